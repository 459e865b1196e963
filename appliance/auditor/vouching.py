"""How far the clock may be ahead, by what vouches for it: what cannot be undone is not done by time that nobody vouched for.

A clock that is set forward, over a stop or while everything runs, would have bodies destroyed before their time. What the log
itself shows is that it was written: each minute of a life leaves a record. So of a clock's time is *unvouched*

    what it was set by in this life, against the monotonic clock, which nobody sets
    + what lies between two records of which the second came more than SILENCE_MS later: a stop, or a leap over one
    + what was unvouched before, by the last record that tells it.

It can be at most as much as the clock is ahead of the newest word of the witnesses, as that was not given before its time; and
is none once two people have vouched for the clock. A stop is no wrong clock, but looks like one from within: it takes
somebody outside to tell them apart.

Less than a day is let pass, which is what a retention of days can be wrong by in any case.
"""

from collections.abc import Callable, Iterable

import msgspec

from appliance.auditor.ledger import Clock
from audit.errors import LogCorrupted, StateMismatch
from audit.permissions import AUDITOR

SILENCE_MS = 120_000
"""Twice the time within which a life leaves a record."""
LET_PASS_MS = 86_400_000
UNKNOWN_MS = 36_500 * 86_400_000
"""Of a clock where nothing is left that could show it: a hundred years."""
_TELLERS = frozenset({"log_started", "log_marked", "log_reconciled", "log_time_vouched"})


class _Reporter(msgspec.Struct, gc=False):
    name: str = ""


class _Metadata(msgspec.Struct, gc=False):
    reporter: _Reporter = msgspec.field(default_factory=_Reporter)


class _Own(msgspec.Struct, gc=False):
    kind: str = ""
    unvouched_ms: int = 0


class _Unmapped(msgspec.Struct, gc=False):
    casemate: _Own = msgspec.field(default_factory=_Own)


class _Record(msgspec.Struct, gc=False):
    time: int
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)
    unmapped: _Unmapped = msgspec.field(default_factory=_Unmapped)


_decoder = msgspec.json.Decoder(_Record)


def recover_unvouched(bundles: Iterable[list[bytes]], now_ms: int, progress: Callable[[], None]) -> int:
    """How much of the clock's time nothing vouches for at a start.

    Args:
        bundles: of the log, and of the one before it; the last first. None at a first start.
        now_ms: what the clock says.
    Returns: milliseconds; negative where the clock went back.
    Raises: StateMismatch when the end of the log cannot be read back.
    """
    try:
        return _recover(bundles, now_ms, progress)
    except LogCorrupted as error:
        raise StateMismatch(f"the end of the log cannot be read back: {error}") from error


def _recover(bundles: Iterable[list[bytes]], now_ms: int, progress: Callable[[], None]) -> int:
    unvouched_ms, later_ms = 0, now_ms
    for bundle in bundles:
        for entry in reversed(bundle):
            try:
                record = _decoder.decode(entry)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                continue  # What has no time of its own lies between two that have.
            if abs(later_ms - record.time) > SILENCE_MS:
                unvouched_ms += later_ms - record.time
            later_ms = record.time
            own = record.unmapped.casemate
            if own.kind in _TELLERS and record.metadata.reporter.name.startswith(f"{AUDITOR}/"):
                return unvouched_ms + own.unvouched_ms
        progress()
    return unvouched_ms


class TimeVoucher:
    """Owner of what is unvouched in this life."""

    def __init__(self, clock: Clock, unvouched_ms: int) -> None:
        self._clock = clock
        self._base_ms = unvouched_ms
        self._base_offset_ms = self.offset_ms

    @property
    def unvouched_ms(self) -> int:
        """How far the clock may be ahead."""
        return self._base_ms + self.offset_ms - self._base_offset_ms

    @property
    def vouched_ms(self) -> int:
        """The time by which things may be done that cannot be undone, in milliseconds since 1970."""
        unvouched_ms = self.unvouched_ms
        return self._clock.utc_ms() - (unvouched_ms if unvouched_ms >= LET_PASS_MS else 0)

    def hear(self, said_at_ms: int) -> None:
        """Witnesses gave their word at this time, by their own clocks: it was that late at least."""
        # Theirs may be ahead as well: nobody's word vouches for time that is still to come.
        self._set(min(self.unvouched_ms, max(0, self._clock.utc_ms() - said_at_ms)))

    def vouch(self) -> None:
        """Two people say that the clock is right."""
        self._set(0)

    def _set(self, unvouched_ms: int) -> None:
        self._base_ms, self._base_offset_ms = unvouched_ms, self.offset_ms

    @property
    def offset_ms(self) -> int:
        """How the clock stands to the monotonic one: other only where somebody set it."""
        return self._clock.utc_ms() - round(self._clock.monotonic_s() * 1000)
