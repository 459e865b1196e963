"""Who the appliance is on the network: its URLs and its TLS files, as all processes derive them from the configuration."""

from pathlib import Path

from appliance.config import Configuration
from security.tls import TlsIdentity


def gateway_url(configuration: Configuration) -> str:
    """The gateway's base URL, which is also the audience of access tokens."""
    return _url(configuration.gateway.host, configuration.gateway.port)


def authority_url(configuration: Configuration) -> str:
    """The authority's base URL, which is the issuer of access tokens (RFC 8414 section 2)."""
    return configuration.authority.issuer or _url(configuration.authority.host, configuration.authority.port)


def server_names(configuration: Configuration) -> tuple[str, ...]:
    """DNS names and addresses that the automatic certificate is for."""
    hosts = (configuration.gateway.host, configuration.authority.host, "localhost", "127.0.0.1")
    return tuple(dict.fromkeys((*hosts, *configuration.tls.extra_names)))


def tls_identity(configuration: Configuration) -> TlsIdentity:
    """Certificate and key of both listeners, and what clients must trust: configured files, or those of our own authority."""
    tls, own = configuration.tls, configuration.state_path / "tls"
    if tls.certificate is not None and tls.key is not None:
        ca = None if tls.ca_certificate is None else Path(tls.ca_certificate)
        return TlsIdentity(Path(tls.certificate), Path(tls.key), ca)
    return TlsIdentity(own / "server.pem", own / "server.key", own / "ca.pem")


def _url(host: str, port: int) -> str:
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
