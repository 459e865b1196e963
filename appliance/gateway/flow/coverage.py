"""How far a running generation's quota reaches. Part of step (6): a token is delivered only if it is covered."""

import asyncio

from appliance.gateway.errors import QuotaRefused
from appliance.gateway.peers.policy import PolicyPeer, Reservation


class Coverage:
    """Output tokens that policy covers so far; asks for the next block when half of the last one is used."""

    def __init__(self, policy: PolicyPeer, reservation: Reservation, max_tokens: int) -> None:
        self._policy = policy
        self._max_tokens = max_tokens
        self._block = max(1, reservation.covered_tokens)
        self._asking: asyncio.Task[None] | None = None
        self.reservation = reservation
        self._num_ample = self._find_ample()
        """So many tokens are covered, and are not so many that more would be asked for: nearly always."""

    def covers(self, num_tokens: int) -> bool:
        """Whether so many output tokens are covered already; asks ahead when it gets low."""
        if num_tokens <= self._num_ample:
            return True
        self._forget_answered()
        self._num_ample = self._find_ample()
        if num_tokens > self.reservation.covered_tokens:
            return False
        if self._asking is None and num_tokens > self._num_ample:
            self._ask()
        return True

    async def reach(self, num_tokens: int) -> int:
        """How many of so many output tokens are covered; waits for policy where they are not yet.

        Returns: `num_tokens`, or fewer if policy refuses more.
        Raises: PeerUnavailable if policy cannot be asked.
        """
        self._forget_answered()
        while num_tokens > self.reservation.covered_tokens:
            before = self.reservation.covered_tokens
            self._ask()
            assert self._asking is not None
            try:
                await self._asking
            except QuotaRefused:
                return before
            finally:
                self._asking = None
            if self.reservation.covered_tokens <= before:
                return before
        self.covers(num_tokens)
        return num_tokens

    def close(self) -> None:
        """Ask for nothing more."""
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None

    def _forget_answered(self) -> None:
        """What an earlier answer granted is covered already; what it refused is asked again if it comes to that."""
        if self._asking is not None and self._asking.done():
            self._asking = None

    def _find_ample(self) -> int:
        covered = self.reservation.covered_tokens
        return covered if covered >= self._max_tokens else covered - self._block // 2 - 1

    def _ask(self) -> None:
        if self._asking is None:
            self._asking = asyncio.get_running_loop().create_task(self._policy.extend(self.reservation))
            # A refusal matters only when the answer gets there; until then nobody looks at the task.
            self._asking.add_done_callback(_look_away)


def _look_away(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()
