"""Static keys `cm-…`, for programs that can only send an `api_key`: random, expiring, shown once, good from stated networks.

A key stands for a client of role `user` and gives what the client may do, no more. A gateway hashes what it was sent and asks
policy about the digest, so no message between processes carries a key; what is stored is an HMAC of the digest under the
credentials' key, so a copy of the database lets nobody in and confirms no guess.
"""

import hashlib
import hmac
import ipaddress
import re
import secrets

import msgspec

from security.errors import ClientRejected

KEY_PREFIX = "cm-"
MAX_NETWORKS = 64
MAX_LIFETIME_DAYS = 365

_KEY = re.compile(r"cm-[A-Za-z0-9_-]{43}")
_HASH_CONTEXT = b"casemate/static-key/v1"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class StaticKey(msgspec.Struct, frozen=True, kw_only=True):
    """A registered key, without itself."""

    key_id: str
    client_id: str
    name: str
    key_hash: bytes
    networks: tuple[str, ...]
    """Where it may be used from, as CIDR networks; never empty."""
    created_at: int
    """UTC, seconds since the epoch, as are the others."""
    expires_at: int
    revoked_at: int | None

    def __repr__(self) -> str:
        return f"StaticKey(key_id={self.key_id!r}, client_id={self.client_id!r})"

    def is_good_from(self, address: str, now: float) -> bool:
        """True if the key may be used now, by somebody at this address."""
        if self.revoked_at is not None or now >= self.expires_at:
            return False
        try:
            source = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        if isinstance(source, ipaddress.IPv6Address) and source.ipv4_mapped is not None:
            source = source.ipv4_mapped
        return any(source in ipaddress.ip_network(network) for network in self.networks)


class IssuedKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key with itself, which is shown once."""

    key: StaticKey
    secret: str

    def __repr__(self) -> str:
        return f"IssuedKey(key_id={self.key.key_id!r}, secret=<hidden>)"


def make_static_key() -> str:
    """A new key: the prefix, then 256 random bits in base64url."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def is_static_key(token: str) -> bool:
    """True if a bearer token has the form of a key."""
    return _KEY.fullmatch(token) is not None


def digest_static_key(key: str) -> bytes:
    """What a gateway asks policy about."""
    return hashlib.sha256(key.encode()).digest()


def hash_key_digest(secret_key: bytes, digest: bytes) -> bytes:
    """What is stored of a key."""
    return hmac.new(secret_key, _HASH_CONTEXT + b"\0" + digest, hashlib.sha256).digest()


def _unmap(network: Network) -> Network:
    """IPv4 written as IPv6 (RFC 4291 section 2.5.5.2) is IPv4, as sources are."""
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return ipaddress.IPv4Network((mapped, network.prefixlen - 96))
    return network


def parse_networks(texts: tuple[str, ...]) -> tuple[str, ...]:
    """CIDR networks in their canonical form; a single address is a network of one.

    Raises: ClientRejected.
    """
    if not 0 < len(texts) <= MAX_NETWORKS:
        raise ClientRejected(f"networks: expected 1 to {MAX_NETWORKS}")
    networks: list[str] = []
    for text in texts:
        try:
            networks.append(str(_unmap(ipaddress.ip_network(text))))
        except ValueError:
            raise ClientRejected(
                f"network {text[:80]!r}: expected an address or a network like 10.1.0.0/16, without host bits"
            ) from None
    return tuple(dict.fromkeys(networks))
