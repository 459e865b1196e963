"""Who the authority says it is, whom its tokens are for, and which names the certificate bears. Pure.

All of it follows from the configuration, so that authority and gateway agree without talking. Nothing is taken from a
request's Host header.
"""

import ipaddress
import socket
from urllib.parse import urlsplit

from appliance.config import Configuration
from appliance.errors import StartRefused

_WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - compared with, never bound to
LOOPBACK = "127.0.0.1"


def issuer_of(configuration: Configuration) -> str:
    """The issuer identifier (RFC 8414 section 2): the address at which the authority answers.

    Raises: StartRefused if the port is not known from the configuration.
    """
    authority = configuration.authority
    return authority.issuer or _origin(authority.host, authority.port, "authority.port", "authority.issuer")


def resource_of(configuration: Configuration) -> str:
    """The gateway's resource identifier (RFC 8707), which is the audience of its tokens.

    Raises: StartRefused if the port is not known from the configuration.
    """
    gateway = configuration.gateway
    return configuration.authority.resource or _origin(gateway.host, gateway.port, "gateway.port", "authority.resource")


def console_of(configuration: Configuration) -> str:
    """Where browsers find the console. Raises: StartRefused if the port is not known from the configuration."""
    console = configuration.console
    return console.url or _origin(console.host, console.port, "console.port", "console.url")


def administration_of(configuration: Configuration) -> str:
    """Where the admin API answers. Raises: StartRefused if the port is not known from the configuration."""
    administration = configuration.administration
    return _origin(administration.host, administration.port, "administration.port", "administration.port")


def _origin(host: str, port: int, port_key: str, override_key: str) -> str:
    if port == 0:
        raise StartRefused(
            f"{port_key} is 0: set {override_key}, as tokens must name an address that is known before the start"
        )
    name = "localhost" if host in _WILDCARDS else host
    return f"https://[{name}]:{port}" if ":" in name else f"https://{name}:{port}"


def local_address(host: str) -> str:
    """Where this host reaches a listener of ours."""
    return LOOPBACK if host == "0.0.0.0" else "::1" if host == "::" else host  # noqa: S104 - compared with


def certificate_names(configuration: Configuration) -> tuple[str, ...]:
    """DNS names and addresses for the automatic certificate, each once: local ones, configured ones, this host's own."""
    names = ["localhost", LOOPBACK, "::1", *configuration.tls.extra_names]
    listeners = (configuration.gateway, configuration.authority, configuration.administration, configuration.console)
    names += [listener.host for listener in listeners if listener.host not in _WILDCARDS]
    for url in (configuration.authority.issuer, configuration.authority.resource, configuration.console.url):
        if url is not None and (hostname := urlsplit(url).hostname):
            names.append(hostname)
    own = socket.gethostname().lower()
    if own.replace("-", "").replace(".", "").isalnum() and own.isascii():
        names.append(own)
    return tuple(dict.fromkeys(_normalize(name) for name in names))


def _normalize(name: str) -> str:
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name.lower()
