"""Keyed hashes: what a record says of a prompt or an answer, instead of the text.

HMAC-SHA256 under a key that HKDF derives by purpose from the *root* of one tenant and epoch, an epoch being a UTC day. A root is 32
random bytes that nothing else follows from, and is followed by nothing: it lies with the shares of the sealed bodies
(`audit.shares`), escrowed to the auditors where there are any, and is destroyed with them. Whoever has it can look a known text
up in the records of that tenant and day, and in no others; once it is destroyed nobody can. The record names the key by an id that
tells nothing about it.

Source: RFC 5869 (HKDF), RFC 2104 (HMAC). The extract step is skipped, as section 3.3 allows: the root is uniformly random.
"""

import datetime
import hashlib
import hmac
import struct
from functools import lru_cache
from typing import Literal

import msgspec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from audit.errors import KeyUnusable
from audit.sealing import KeyContext

ROOT_BYTES = 32
ROOT_LABEL = "casemate keyed hash root v1"
"""What an escrow of a root is bound to, so that none of a body's share opens in its place."""
_DAY_MS = 86_400_000
_EPOCH = datetime.date(1970, 1, 1)
Purpose = Literal["prompt", "answer", "namespace"]


class KeyedHash(msgspec.Struct, frozen=True):
    """A keyed hash and the name of its key."""

    value: str
    """64 hexadecimal digits."""
    key_id: str
    """Purpose, day and eight bytes that identify the key: `prompt/2026-11-23/0011223344556677`."""


def day_of(time_ms: int) -> str:
    """The UTC day of a time, such as `2026-11-25`."""
    return _name_day(time_ms // _DAY_MS)


@lru_cache(maxsize=16)
def _name_day(day: int) -> str:
    return (_EPOCH + datetime.timedelta(days=day)).isoformat()


def root_context(tenant: str, day: str) -> KeyContext:
    """Where the root of a tenant and day lies among the shares: one for each, so its id follows from the tenant."""
    return KeyContext(tenant, day, hashlib.sha256(b"casemate keyed hash root\0" + tenant.encode()).hexdigest()[:32])


class KeyedHasher:
    """Derives the keys of one tenant and day, and hashes with them. Holds a secret; its `repr` does not show it."""

    def __init__(self, root: bytes, context: KeyContext) -> None:
        if len(root) != ROOT_BYTES:
            raise KeyUnusable(f"root of the keyed hashes: {len(root)} bytes, expected {ROOT_BYTES}")
        self._root = root
        self._context = context
        self._key_of = lru_cache(maxsize=None)(self._derive)
        self.namespace = bytes.fromhex(self.hash("namespace", b"").value)
        """Of the tenant's prefix cache on this day: other tenants cannot even learn by timing what is in it."""

    def hash(self, purpose: Purpose, data: bytes) -> KeyedHash:
        """Keyed hash of `data`."""
        keyed, key_id = self._key_of(purpose)
        mac = keyed.copy()
        mac.update(data)
        return KeyedHash(mac.hexdigest(), key_id)

    def _derive(self, purpose: Purpose) -> tuple[hmac.HMAC, str]:
        """A HMAC that has taken its key and no data yet: copies of it are quicker than the key each time."""
        # Each part after its length: no tenant's name can reach into the day or the purpose.
        day = self._context.day
        parts = (b"casemate keyed hash v1", purpose.encode(), self._context.tenant.encode(), day.encode())
        info = b"".join(struct.pack(">I", len(part)) + part for part in parts)
        okm = HKDFExpand(algorithm=SHA256(), length=40, info=info).derive(self._root)
        return hmac.new(okm[:32], digestmod=hashlib.sha256), f"{purpose}/{day}/{okm[32:].hex()}"
