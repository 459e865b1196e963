"""Rounds of cosigning that reached no quorum: counted all of them, told the first, then at most one record an hour.

A witness that is away for a week costs 168 records, not 10,080; one that comes and goes costs no more.
"""

from collections.abc import Sequence

from appliance.auditor.ledger import Clock

TELL_INTERVAL_S = 3600.0


class QuorumWatch:
    """Counts rounds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._next_tell_s = 0.0
        self._untold = 0
        self._in_a_row = 0
        self.num_missed = 0
        """In this life."""
        self.alarm = ""
        """Who was missing in the last round; empty where it reached the quorum, or there was none."""

    def round_ended(self, missing: Sequence[str]) -> None:
        """One more."""
        if not missing:
            self.alarm, self._in_a_row = "", 0
            return
        self.num_missed += 1
        self._untold += 1
        self._in_a_row += 1
        names = ", ".join(missing)
        self.alarm = f"{self._in_a_row} rounds of cosigning in a row reached no quorum of witnesses: no word of {names}"

    def take_untold(self) -> int:
        """How many missed rounds are to be told now; 0 where it is not time."""
        now_s = self._clock.monotonic_s()
        if not self._untold or now_s < self._next_tell_s:
            return 0
        self._next_tell_s = now_s + TELL_INTERVAL_S
        untold, self._untold = self._untold, 0
        return untold
