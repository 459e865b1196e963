"""Zones and arrows: the design's picture of who connects to whom, as values.

    clients ──▶ gateway, authority        telemetry ──▶ gateway        gateway ──▶ authority (on this host)
    admin   ──▶ admin port; console and authority, administration, where these are switched on
    host    ──▶ witnesses, collectors, providers (people sign in there), issuers (of tokens), databases, receivers (of the log)

The engine is in no zone: its network is empty. An arrow is one TCP port in one direction; answers come back by connection
tracking. There is no arrow for name resolution, time or packages: the host is given addresses, a clock and bundles by other ways.
"""

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from security.errors import SegmentsUnusable
from security.segmentation.settings import SegmentsSettings

Zone = Literal[
    "clients", "admin", "telemetry", "collectors", "witnesses", "providers", "issuers", "databases", "receivers",
    "gateway", "authority", "console", "administration", "policy", "host",
]  # fmt: skip
Address = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Arrow:
    """One kind of connection that may be made."""

    name: str
    source: Zone
    target: Zone
    peers: tuple[Address, ...]
    """The other side's networks."""
    port: int
    is_outgoing: bool


@dataclass(frozen=True, slots=True)
class Ports:
    """Where this host listens."""

    gateway: int
    authority: int
    console: int | None = None
    """None where it is switched off."""
    administration: int | None = None

    def listened(self) -> tuple[int, ...]:
        """All that are open."""
        ports = (self.gateway, self.authority, self.console, self.administration)
        return tuple(port for port in ports if port is not None)


def build_arrows(settings: SegmentsSettings, ports: Ports) -> tuple[Arrow, ...]:
    """All arrows of a site. Zones that are not named have none.

    Raises: SegmentsUnusable.
    """
    return tuple(_arrows(settings, ports))


def _arrows(settings: SegmentsSettings, ports: Ports) -> Iterator[Arrow]:
    if clients := _parse_networks(settings.clients, "clients"):
        yield Arrow("clients_to_gateway", "clients", "gateway", clients, ports.gateway, False)
        yield Arrow("clients_to_authority", "clients", "authority", clients, ports.authority, False)
    if admin := _parse_networks(settings.admin, "admin"):
        yield Arrow("admin_to_host", "admin", "host", admin, settings.admin_port, False)
        if ports.console is not None:  # A browser signs in at the authority and comes back.
            yield Arrow("admin_to_console", "admin", "console", admin, ports.console, False)
            yield Arrow("admin_to_authority", "admin", "authority", admin, ports.authority, False)
        if ports.administration is not None:
            yield Arrow("admin_to_administration", "admin", "administration", admin, ports.administration, False)
    if telemetry := _parse_networks(settings.telemetry, "telemetry"):
        yield Arrow("telemetry_to_gateway", "telemetry", "gateway", telemetry, ports.gateway, False)
    yield from _outgoing(settings)


def _outgoing(settings: SegmentsSettings) -> Iterator[Arrow]:
    """One for each address that is named."""
    targets: tuple[tuple[str, Zone, Zone, Sequence[str]], ...] = (
        ("host_to_collector", "host", "collectors", settings.collectors),
        ("host_to_witness", "host", "witnesses", settings.witnesses),
        ("authority_to_provider", "authority", "providers", settings.providers),
        ("gateway_to_issuer", "gateway", "issuers", settings.issuers),
        ("policy_to_database", "policy", "databases", settings.databases),
        ("host_to_receiver", "host", "receivers", settings.receivers),
    )
    for name, source, target, endpoints in targets:
        for number, text in enumerate(endpoints):
            address, port = parse_endpoint(text, target)
            yield Arrow(f"{name}_{number}", source, target, (address,), port, True)


def parse_endpoint(text: str, where: str) -> tuple[Address, int]:
    """`address:port` as a network of one address and a port. Raises: SegmentsUnusable."""
    address, _, port = text.rpartition(":")
    try:
        number = int(port)
        network = ipaddress.ip_network(address.strip("[]"))
    except ValueError:
        raise SegmentsUnusable(f"segments.{where}: {text!r} is not an address and a port") from None
    if not 0 < number < 1 << 16:
        raise SegmentsUnusable(f"segments.{where}: {text!r} has no such port")
    return network, number


def _parse_networks(texts: Sequence[str], where: str) -> tuple[Address, ...]:
    try:
        networks = tuple(ipaddress.ip_network(text) for text in texts)
    except ValueError as error:
        raise SegmentsUnusable(f"segments.{where}: {error}") from None
    if any(network.prefixlen == 0 for network in networks):
        raise SegmentsUnusable(f"segments.{where}: a network that is everything is no zone")
    return networks
