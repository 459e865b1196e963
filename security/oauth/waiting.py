"""What waits for a browser to come back, by the digest of what that browser holds: bounded, short-lived, good once.

Whoever can connect can begin, so there is a share for each source (an address, of IPv6 its /64): who begins more puts an end
to the oldest of their own, and to nobody else's.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

from security.oauth.failure_limit import normalize_source

_T = TypeVar("_T")


class _Entry(msgspec.Struct, Generic[_T], frozen=True):
    value: _T
    source: str
    expires_at: float


class WaitingRoom(Generic[_T]):
    """Owner of what waits."""

    def __init__(self, *, lifetime_s: float, max_waiting: int, max_per_source: int, clock: Callable[[], float]) -> None:
        self._lifetime_s = lifetime_s
        self._max_waiting = max_waiting
        self._max_per_source = max_per_source
        self._clock = clock
        self._entries: OrderedDict[bytes, _Entry[_T]] = OrderedDict()
        self._by_source: dict[str, OrderedDict[bytes, None]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, held: str, value: _T, address: str) -> None:
        """Somebody at this address begins, and holds this."""
        now, source = self._clock(), normalize_source(address)
        while self._entries and next(iter(self._entries.values())).expires_at <= now:
            self._remove(next(iter(self._entries)))
        if len(self._by_source.get(source, ())) >= self._max_per_source:
            self._remove(next(iter(self._by_source[source])))
        elif len(self._entries) >= self._max_waiting:
            self._remove(next(iter(self._entries)))
        digest = _hash(held)
        self._entries[digest] = _Entry(value, source, now + self._lifetime_s)
        self._by_source.setdefault(source, OrderedDict())[digest] = None

    def take(self, held: str | None) -> _T | None:
        """What waits for whoever holds this, if it is not over; it waits no longer."""
        digest = _hash(held or "")
        if digest not in self._entries:
            return None
        entry = self._remove(digest)
        return None if entry.expires_at <= self._clock() else entry.value

    def _remove(self, digest: bytes) -> _Entry[_T]:
        entry = self._entries.pop(digest)
        own = self._by_source[entry.source]
        del own[digest]
        if not own:
            del self._by_source[entry.source]
        return entry


def _hash(held: str) -> bytes:
    return hashlib.sha256(held.encode("utf-8", "replace")).digest()
