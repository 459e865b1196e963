"""A period of time, and the run of records that were made in it.

Records are found by bisection, as the auditor gives them times that do not go back but where the host's clock was set back while it
ran; such a record is in the log (`log_clock_jumped`), and the report of the period tells it.
"""

import datetime
from dataclasses import dataclass

import msgspec

from audit.errors import MalformedEntry
from audit.reader import LogReader
from audit.tiles import TILE_WIDTH
from compliance.errors import PeriodRejected

UTC = datetime.UTC


@dataclass(frozen=True, slots=True)
class Period:
    """From the first moment to before the last, in milliseconds since 1970 (UTC)."""

    start_ms: int
    end_ms: int

    @property
    def words(self) -> str:
        """For people."""
        return f"{format_time(self.start_ms)} to {format_time(self.end_ms)}"


class _Timed(msgspec.Struct, gc=False):
    time: int = 0


_decoder = msgspec.json.Decoder(_Timed)


def parse_time(text: str) -> int:
    """A date, or a date and time in UTC, as milliseconds.

    Raises: PeriodRejected.
    """
    try:
        parsed = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise PeriodRejected(f"{text[:40]!r}: expected a date (2026-11-01) or a time (2026-11-01T12:00:00Z)") from None
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=UTC)
    return int(parsed.timestamp() * 1000)


def make_period(start_ms: int, end_ms: int) -> Period:
    """A period. Raises: PeriodRejected where it ends before it began."""
    if not 0 <= start_ms < end_ms:
        raise PeriodRejected(f"from {format_time(start_ms)} to {format_time(end_ms)}: is no period")
    return Period(start_ms, end_ms)


def format_time(time_ms: int) -> str:
    """`2026-11-25 21:14:29 UTC`."""
    return f"{datetime.datetime.fromtimestamp(time_ms // 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def format_instant(time_ms: int) -> str:
    """RFC 3339, to the second."""
    return f"{datetime.datetime.fromtimestamp(time_ms // 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"


def find_records(reader: LogReader, size: int, period: Period) -> tuple[int, int]:
    """First index and the one behind the last of the records of a period, under a tree of `size`.

    Raises: PeriodRejected where there is none; LogCorrupted.
    """
    start, end = (_first_from(reader, size, time_ms) for time_ms in (period.start_ms, period.end_ms))
    if start == end:
        raise PeriodRejected(f"the log has no record from {period.words}")
    return start, end


def time_of(entry: bytes) -> int:
    """When a record was made.

    Raises: MalformedEntry.
    """
    try:
        return _decoder.decode(entry).time
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedEntry(f"entry: {error}") from error


def _first_from(reader: LogReader, size: int, time_ms: int) -> int:
    """The first record at this time or after it: first by bundles, then within one."""
    low, high = 0, -(-size // TILE_WIDTH)
    while low < high:
        middle = (low + high) // 2
        if time_of(reader.read_bundle(middle, size)[-1]) < time_ms:
            low = middle + 1
        else:
            high = middle
    if low * TILE_WIDTH >= size:
        return size
    entries = reader.read_bundle(low, size)
    return low * TILE_WIDTH + next(index for index, entry in enumerate(entries) if time_of(entry) >= time_ms)
