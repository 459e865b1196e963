"""Nonces of a server in proofs of possession (RFC 9449 sections 8 and 9): a proof made before, to be used later, is worth nothing.

A nonce is the number of a span of time and its MAC, so nothing is remembered, and several processes with one key know each other's.
It is good in its span and the next: for `lifetime_s` at least, twice that at most. A new key only makes clients ask once more.
"""

import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable

from security.oauth.dpop import PROOF_LIFETIME_S

KEY_BYTES = 32
MAX_NONCE_CHARS = 64
_CONTEXT = b"casemate/dpop-nonce/v1"
_MAC_BYTES = 16


class MemoryStart:
    """When somebody's memory of used proofs began, for as long as that matters: no proof that is older will be taken after
    PROOF_LIFETIME_S, whatever became of the clock by then.
    """

    def __init__(self, began_at: float, *, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        """To be made when it begins, or when one is told of it; `began_at` in UTC."""
        self._began_at = began_at
        self._monotonic_s = monotonic_s
        self._matters_until_s = monotonic_s() + PROOF_LIFETIME_S

    def knows(self, issued_at: float) -> bool:
        """False if a proof of that time may have been used before it began."""
        return issued_at >= self._began_at or self._monotonic_s() >= self._matters_until_s


def make_nonce_key() -> bytes:
    """A new key; it need not outlive the process."""
    return secrets.token_bytes(KEY_BYTES)


class DpopNonces:
    """The nonces under one key."""

    def __init__(self, key: bytes, lifetime_s: int, *, clock: Callable[[], float] = time.time) -> None:
        self._key = key
        self._lifetime_s = lifetime_s
        self._clock = clock

    def current(self) -> str:
        """The nonce to give out now."""
        return self._make(self._span())

    def is_good(self, nonce: str) -> bool:
        """True for this span's, and for the one's before."""
        if len(nonce) > MAX_NONCE_CHARS or not nonce.isascii():
            return False
        span = self._span()
        return any(hmac.compare_digest(nonce, self._make(one)) for one in (span, span - 1))

    def _span(self) -> int:
        return int(self._clock()) // self._lifetime_s

    def _make(self, span: int) -> str:
        number = span.to_bytes(8, "big")
        mac = hmac.new(self._key, _CONTEXT + b"\0" + number, hashlib.sha256).digest()[:_MAC_BYTES]
        return base64.urlsafe_b64encode(number + mac).decode()
