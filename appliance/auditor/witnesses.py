"""The witnesses of the configuration: a vkey each, and where it is asked, if it is on the network.

An address is a literal, as in `[segments]`: the process that asks resolves no names.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from audit.cosignature import CosignerKey, parse_cosigner_key
from audit.errors import KeyUnusable, MalformedNote


@dataclass(frozen=True, slots=True)
class WitnessAddress:
    """Where a witness listens."""

    host: str
    port: int
    path: str
    is_tls: bool

    @property
    def endpoint(self) -> str:
        """As `[segments] witnesses` writes it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_witnesses(texts: Sequence[str]) -> list[tuple[CosignerKey, WitnessAddress | None]]:
    """The entries of `audit.witnesses`, in their order.

    Raises: KeyUnusable.
    """
    return [_parse(text) for text in texts]


def _parse(text: str) -> tuple[CosignerKey, WitnessAddress | None]:
    vkey, _, url = text.strip().partition(" ")
    try:
        key = parse_cosigner_key(vkey)
    except MalformedNote as error:
        raise KeyUnusable(f"audit.witnesses: {error}") from error
    return key, _parse_url(url.strip(), key.name) if url.strip() else None


def _parse_url(url: str, name: str) -> WitnessAddress:
    parts = urlsplit(url)
    try:
        host, port = str(ipaddress.ip_address(parts.hostname or "")), parts.port
    except ValueError as error:
        raise KeyUnusable(f"audit.witnesses: {name}: {url!r}: expected an address, not a name, and a port") from error
    if parts.scheme not in ("http", "https") or parts.query or parts.fragment or parts.username:
        raise KeyUnusable(f"audit.witnesses: {name}: {url!r}: expected http(s)://ADDRESS:PORT/PATH")
    return WitnessAddress(
        host, port or (443 if parts.scheme == "https" else 80), parts.path.rstrip("/"), parts.scheme == "https"
    )
