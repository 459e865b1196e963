"""The section `[telemetry]`."""

import ipaddress
from typing import Annotated, NamedTuple
from urllib.parse import urlsplit

from msgspec import Meta, Struct


class CollectorAddress(NamedTuple):
    """Where the collector listens."""

    host: str
    port: int

    @property
    def endpoint(self) -> str:
        """As `segments.collectors` has it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class TelemetrySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is told to whom about requests."""

    otlp_endpoint: Annotated[
        str,
        Meta(
            max_length=1024,
            description="OpenTelemetry collector on site that takes OTLP over HTTP, such as `https://10.5.0.9:4318`; "
            "an address, not a name. Empty: nothing is sent anywhere.",
        ),
    ] = ""
    otlp_ca_certificate: Annotated[
        Annotated[str, Meta(min_length=1, max_length=4096)] | None,
        Meta(extra={"path": True}, description="PEM file of who vouches for the collector; none: the machine's."),
    ] = None
    export_interval_s: Annotated[
        float, Meta(ge=0.1, le=300, description="How often spans and metrics are sent, in seconds.")
    ] = 5.0
    trace_ratio: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="Share of the traces begun here that are sent. Where a client sends `traceparent`, its own mark decides.",
        ),
    ] = 1.0


def parse_collector(endpoint: str) -> CollectorAddress:
    """Host and port of an endpoint.

    Raises: ValueError with what is wrong, in words for the operator.
    """
    parts = urlsplit(endpoint)
    try:
        address = ipaddress.ip_address(parts.hostname or "")
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        raise ValueError(f"{endpoint!r}: expected an address, not a name, and a port") from None
    if parts.scheme not in ("http", "https") or parts.query or parts.fragment or parts.username:
        raise ValueError(f"{endpoint!r}: expected http(s)://ADDRESS:PORT")
    if parts.scheme == "http" and not address.is_loopback:
        raise ValueError(f"{endpoint!r}: only a collector on this host is spoken to without TLS")
    return CollectorAddress(str(address), port)
