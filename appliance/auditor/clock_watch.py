"""Time, as far as it can be checked from within: a floor at the start, jumps while running.

The floor is the time of the log's last record: an earlier clock would order records wrongly, and would make expired tokens and
metadata hold again. Jumps are seen against the monotonic clock, which nobody sets.
"""

import datetime
from collections.abc import Iterable

from appliance.auditor.ledger import Clock
from audit.entry import parse_canonical
from audit.errors import ClockRejected, MalformedEntry

TOLERANCE_MS = 60_000
"""How far a clock may lie below the floor: what a time server corrects in a step."""
SMALLEST_JUMP_MS = 1_000
SUSPENDING_JUMP_MS = 86_400_000
"""A jump of more than a day suspends installs: metadata that was checked before it may have expired."""
LOOK_INTERVAL_S = 1.0


def verify_floor(bundles: Iterable[list[bytes]], utc_ms: int) -> None:
    """Refuse a clock that is earlier than the last record.

    Args:
        bundles: of the log, and of the one before it, last first.
    Raises: ClockRejected; LogCorrupted when that record cannot be read.
    """
    floor_ms = _time_of_last(bundles)
    if utc_ms < floor_ms - TOLERANCE_MS:
        said = datetime.datetime.fromtimestamp(utc_ms // 1000, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        behind_s = (floor_ms - utc_ms) // 1000
        raise ClockRejected(f"the clock says {said}, {behind_s} s before the log's last record: set the clock")


def _time_of_last(bundles: Iterable[list[bytes]]) -> int:
    last = next(iter(bundles), None)
    if not last:
        return 0
    try:
        time_ms = parse_canonical(last[-1]).get("time")
    except MalformedEntry:
        return 0  # Whether the log may be opened at all was decided before; `verify` says what is wrong with a record.
    return time_ms if isinstance(time_ms, int) else 0


class ClockWatch:
    """Compares the wall clock with the monotonic one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._first_offset_ms = self._offset_ms = self._read_offset()
        self._next_look_s = clock.monotonic_s() + LOOK_INTERVAL_S

    @property
    def is_far_off(self) -> bool:
        """Whether the wall clock is more than a day from where it was at the start, in however many steps."""
        return abs(self._read_offset() - self._first_offset_ms) >= SUSPENDING_JUMP_MS

    def find_jump(self) -> int:
        """By how many milliseconds the wall clock was set forward (or back, negative) since the last look; 0 for not at all."""
        now_s = self._clock.monotonic_s()
        if now_s < self._next_look_s:
            return 0
        self._next_look_s = now_s + LOOK_INTERVAL_S
        offset_ms = self._read_offset()
        jump_ms = offset_ms - self._offset_ms
        if abs(jump_ms) < SMALLEST_JUMP_MS:
            return 0  # The old offset stays: a clock that creeps away is a jump once it has come far enough.
        self._offset_ms = offset_ms
        return jump_ms

    def _read_offset(self) -> int:
        return self._clock.utc_ms() - round(self._clock.monotonic_s() * 1000)
