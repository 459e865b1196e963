"""What may be used once: proofs and assertions, remembered by digest until nobody would accept them any more.

In memory; whoever must not forget over a restart says what was known and where to keep what is new, which is kept before it is let
through. Bounded: when MAX_REMEMBERED are remembered the answer is "used before", as forgetting one would let it be used twice.
"""

import heapq
from collections.abc import Callable, Iterable

MAX_REMEMBERED = 500_000
"""About 60 MB; at the shortest useful life, several thousand proofs a second."""


class ReplayMemory:
    """Owner of the digests."""

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        max_remembered: int = MAX_REMEMBERED,
        known: Iterable[tuple[bytes, float]] = (),
        keep: Callable[[bytes, float], None] | None = None,
    ) -> None:
        """
        Args:
            known: digests of an earlier life, each with when it may be forgotten.
            keep: called with the same for each new one; what it raises refuses the use.
        """
        self._clock = clock
        self._max_remembered = max_remembered
        self._keep = keep
        self._expiries: list[tuple[float, bytes]] = [(expires_at, digest) for digest, expires_at in known]
        self._known: set[bytes] = {digest for _, digest in self._expiries}
        heapq.heapify(self._expiries)

    def use(self, digest: bytes, lifetime_s: float) -> bool:
        """Remember a digest. Returns: whether it was not known."""
        now = self._clock()
        while self._expiries and self._expiries[0][0] <= now:
            self._known.discard(heapq.heappop(self._expiries)[1])
        if digest in self._known or len(self._known) >= self._max_remembered:
            return False
        if self._keep is not None:
            self._keep(digest, now + lifetime_s)
        self._known.add(digest)
        heapq.heappush(self._expiries, (now + lifetime_s, digest))
        return True
