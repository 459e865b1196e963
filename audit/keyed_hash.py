"""Keyed hashes: what a record says of a prompt or an answer, instead of the text.

HMAC-SHA256 under a key that HKDF derives from one root secret by purpose, tenant and day. Whoever holds the key of a day can
look a known text up in the records of that tenant and day, and in no others; once the day's key is destroyed nobody can. The
record names the key by an id that tells nothing about it.

Source: RFC 5869 (HKDF), RFC 2104 (HMAC). The extract step is skipped, as section 3.3 allows: the root is uniformly random.
"""

import datetime
import hashlib
import hmac
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from audit.errors import KeyUnusable

ROOT_BYTES = 32
Purpose = Literal["prompt", "answer", "namespace"]


@dataclass(frozen=True, slots=True)
class KeyedHash:
    """A keyed hash and the name of its key."""

    value: str
    """64 hexadecimal digits."""
    key_id: str
    """Purpose, day and eight bytes that identify the key: `prompt/2026-11-23/0011223344556677`."""


def day_of(time_ms: int) -> str:
    """The UTC day of a time, such as `2026-11-25`."""
    return datetime.datetime.fromtimestamp(time_ms // 1000, datetime.UTC).date().isoformat()


class KeyedHasher:
    """Derives keys from a root secret and hashes with them. Holds a secret; its `repr` does not show it."""

    def __init__(self, root: bytes) -> None:
        if len(root) != ROOT_BYTES:
            raise KeyUnusable(f"root of the keyed hashes: {len(root)} bytes, expected {ROOT_BYTES}")
        self._root = root
        self._key_of = lru_cache(maxsize=1024)(self._derive)

    def hash(self, purpose: Purpose, tenant: str, data: bytes, time_ms: int) -> KeyedHash:
        """Keyed hash of `data` for a tenant on the UTC day of `time_ms`."""
        day = day_of(time_ms)
        key, key_id = self._key_of(purpose, tenant, day)
        return KeyedHash(hmac.digest(key, data, hashlib.sha256).hex(), key_id)

    def _derive(self, purpose: str, tenant: str, day: str) -> tuple[bytes, str]:
        # Each part after its length: no tenant's name can reach into the day or the purpose.
        parts = (b"casemate keyed hash v1", purpose.encode(), tenant.encode(), day.encode())
        info = b"".join(struct.pack(">I", len(part)) + part for part in parts)
        okm = HKDFExpand(algorithm=SHA256(), length=40, info=info).derive(self._root)
        return okm[:32], f"{purpose}/{day}/{okm[32:].hex()}"
