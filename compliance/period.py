"""A period of time, and the run of records that were made in it.

It goes from the first record whose time lies in the period to the last one, with all that lies between. Their times go back where
the host's clock was set back while it ran. So records that claim another time than it was lie among those of the true one, and
nobody takes them out of the evidence by setting the clock: the first record of every bundle is looked at, rather than a few by
bisection, and around those that the period touches every record of as many bundles as have one in it.

Where the log itself began within the period, what the period has before lies elsewhere: in the log that it continues, as its first
record says, or nowhere. That is told, as nobody would miss it in the counts.

The records on both sides of the run are led to the signed tree like those in it: else who changed them on the disk could have the
run end before them.
"""

import datetime
from dataclasses import dataclass
from itertools import pairwise

import msgspec

from audit.checkpoint import Checkpoint
from audit.errors import MalformedEntry
from audit.formats import own_of, parse_json
from audit.merkle import leaf_hash, verify_inclusion
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


@dataclass(frozen=True, slots=True)
class Beginning:
    """That a log began within a period.

    Attributes:
        continued: the log before it, as the first record names it; empty where it continues none.
    """

    at_ms: int
    continued: str

    @property
    def words(self) -> str:
        """For people."""
        if not self.continued:
            return f"The log began on {format_time(self.at_ms)}, and continues no other: of the time before there is no record."
        return (
            f"The log began on {format_time(self.at_ms)}, and continues {self.continued}: what came before is recorded there, "
            "and neither counted nor proven here."
        )


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

    The caller MUST verify them, and those on both sides (`verify_edges`).
    Raises: PeriodRejected where there is none; LogCorrupted.
    """
    times = [time_of(reader.read_first(number, size)) for number in range(-(-size // TILE_WIDTH))]
    times.append(time_of(reader.read_entry(size - 1, size)) if size else 0)
    touched = [
        number
        for number, (one, other) in enumerate(pairwise(times))
        if min(one, other) < period.end_ms and max(one, other) >= period.start_ms
    ]
    start = next((inside[0] for number in touched if (inside := _find_inside(reader, size, period, number))), size)
    if start == size:
        raise PeriodRejected(f"the log has no record from {period.words}")
    last = next(inside[-1] for number in touched[::-1] if (inside := _find_inside(reader, size, period, number)))
    # A bundle whose first record claims another time may have others that are of the period.
    for number in range(start // TILE_WIDTH - 1, -1, -1):
        if not (inside := _find_inside(reader, size, period, number)):
            break
        start = inside[0]
    for number in range(last // TILE_WIDTH + 1, -(-size // TILE_WIDTH)):
        if not (inside := _find_inside(reader, size, period, number)):
            break
        last = inside[-1]
    return start, last + 1


def find_beginning(first: bytes, period: Period) -> Beginning | None:
    """What the first record of a log, which was verified, says of the time before it; None where it is older than the period.

    Raises: MalformedEntry.
    """
    at_ms = time_of(first)
    if at_ms <= period.start_ms:
        return None
    own = own_of(parse_json(first))
    if own.get("kind") != "log_rotated":
        return Beginning(at_ms, "")
    origin, size, root = (own.get(f"previous_{name}") for name in ("origin", "size", "root"))
    return Beginning(at_ms, f"the log {origin} of {size} records, root {root}")


def edges_of(start: int, end: int, size: int) -> list[int]:
    """The records whose times say where a run begins and ends: the first and last of it, and those before and behind."""
    return sorted({index for index in (start - 1, start, end - 1, end) if 0 <= index < size})


def verify_edges(reader: LogReader, checkpoint: Checkpoint, start: int, end: int) -> None:
    """Lead the records before and behind a run to the signed tree: their times said where it begins and ends.

    Raises: ProofRejected, LogCorrupted.
    """
    for index in edges_of(start, end, checkpoint.size):
        if not start <= index < end:
            leaf = leaf_hash(reader.read_entry(index, checkpoint.size))
            path = reader.prove_inclusion(index, checkpoint.size)
            verify_inclusion(leaf, index, checkpoint.size, path, checkpoint.root)


def time_of(entry: bytes) -> int:
    """When a record was made.

    Raises: MalformedEntry.
    """
    try:
        return _decoder.decode(entry).time
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedEntry(f"entry: {error}") from error


def _find_inside(reader: LogReader, size: int, period: Period, number: int) -> list[int]:
    """The records of a bundle whose times lie in the period."""
    entries = enumerate(reader.read_bundle(number, size), number * TILE_WIDTH)
    return [index for index, entry in entries if period.start_ms <= time_of(entry) < period.end_ms]
