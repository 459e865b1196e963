"""What may be used once: proofs and assertions, remembered by digest until nobody would accept them any more.

Bounded: when MAX_REMEMBERED are remembered the answer is "used before", as forgetting one would let it be used twice.
"""

import heapq
from collections.abc import Callable

MAX_REMEMBERED = 500_000
"""About 60 MB; at the shortest useful life, several thousand proofs a second."""


class ReplayMemory:
    """Owner of the digests."""

    def __init__(self, *, clock: Callable[[], float], max_remembered: int = MAX_REMEMBERED) -> None:
        self._clock = clock
        self._max_remembered = max_remembered
        self._known: set[bytes] = set()
        self._expiries: list[tuple[float, bytes]] = []

    def use(self, digest: bytes, lifetime_s: float) -> bool:
        """Remember a digest. Returns: whether it was not known."""
        now = self._clock()
        while self._expiries and self._expiries[0][0] <= now:
            self._known.discard(heapq.heappop(self._expiries)[1])
        if digest in self._known or len(self._known) >= self._max_remembered:
            return False
        self._known.add(digest)
        heapq.heappush(self._expiries, (now + lifetime_s, digest))
        return True
