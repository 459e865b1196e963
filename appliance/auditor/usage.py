"""What was used, by the outcomes in the log: from here policy writes its quotas anew after it was killed.

Read back from the end of the log when policy first asks, which is when everything starts; from then on kept as outcomes come.
Where the log is younger than the day, the one that it continues is read as well: nobody gets a fresh day by a rotation. Kept by
the minute for the last hour and by the day for the current day in UTC, so its size follows who is active and not how much they
ask. MAX_RECORDS are read at most: a longer day counts from there on.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec
import structlog

from appliance.auditor.history import read_backwards
from appliance.messages.audit import LostRequest, UsageRow
from audit.append import LogWriter
from audit.entry import Json
from audit.errors import LogCorrupted, StateMismatch
from audit.rotation import Predecessor

MAX_RECORDS = 500_000
ROWS_A_PAGE = 5_000
_MINUTE_MS = 60_000
_MINUTES_KEPT = 60
_DAY_MINUTES = 1_440

log = structlog.get_logger(__name__)


class _Whose(NamedTuple):
    client_id: str
    subject: str
    tenant: str
    model: str


class _User(msgspec.Struct, gc=False):
    uid: str = ""


class _Actor(msgspec.Struct, gc=False):
    app_uid: str = ""
    user: _User = msgspec.field(default_factory=_User)


class _Model(msgspec.Struct, gc=False):
    name: str = ""


class _Context(msgspec.Struct, gc=False):
    total_tokens: int = 0


class _Metadata(msgspec.Struct, gc=False):
    tenant_uid: str = ""


class _Own(msgspec.Struct, gc=False):
    kind: str = ""


class _Unmapped(msgspec.Struct, gc=False):
    casemate: _Own = msgspec.field(default_factory=_Own)


class _Outcome(msgspec.Struct, gc=False):
    time: int = 0
    actor: _Actor = msgspec.field(default_factory=_Actor)
    ai_model: _Model = msgspec.field(default_factory=_Model)
    message_context: _Context = msgspec.field(default_factory=_Context)
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)
    unmapped: _Unmapped = msgspec.field(default_factory=_Unmapped)


_decoder = msgspec.json.Decoder(_Outcome)


class UsageBook:
    """Sums of requests and tokens."""

    def __init__(self) -> None:
        self._sums: dict[tuple[int, _Whose], tuple[int, int]] = {}
        self._minute = 0

    def note(self, event: Json, time_ms: int) -> None:
        """An outcome is durable."""
        try:
            self.add(msgspec.convert(event, _Outcome), time_ms)
        except msgspec.ValidationError as error:
            log.error("usage_unreadable", reason=str(error))

    def add(self, outcome: _Outcome, time_ms: int) -> None:
        """Count one outcome, in whatever order they come: what is older than the newest by an hour is the day's at once."""
        minute = time_ms // _MINUTE_MS
        if minute > self._minute:
            self._minute = minute
            self._fold()
        if (place := self._place_of(minute)) is not None:
            self._count(place, _whose(outcome), 1, outcome.message_context.total_tokens)

    def pages(self, since_ms: int) -> Iterator[tuple[list[UsageRow], bool]]:
        """What was used since a time, oldest first, in pieces that fit a message; the last one says so."""
        rows = [
            UsageRow(minute, *whose, requests, tokens)
            for (minute, whose), (requests, tokens) in sorted(self._sums.items())
            if (minute + 1) * _MINUTE_MS > since_ms
        ]
        for start in range(0, max(1, len(rows)), ROWS_A_PAGE):
            yield rows[start : start + ROWS_A_PAGE], start + ROWS_A_PAGE >= len(rows)

    def _count(self, minute: int, whose: _Whose, requests: int, tokens: int) -> None:
        found = self._sums.get((minute, whose), (0, 0))
        self._sums[minute, whose] = (found[0] + requests, found[1] + tokens)

    def _fold(self) -> None:
        """Sum up minutes that only the day needs under the day's first, and drop what is of an earlier day."""
        old = [key for key in self._sums if self._place_of(key[0]) != key[0]]
        for minute, whose in old:
            requests, tokens = self._sums.pop((minute, whose))
            if (place := self._place_of(minute)) is not None:
                self._count(place, whose, requests, tokens)

    def _place_of(self, minute: int) -> int | None:
        """The minute under which use of this one is kept; None where nobody needs it any more."""
        today = self._minute - self._minute % _DAY_MINUTES
        if minute >= self._minute - _MINUTES_KEPT:
            return minute
        return today if minute >= today else None


def lost_request(event: Json, reservation: object) -> LostRequest | None:
    """What policy is told of an outcome that the auditor made itself; None where no engine told its count.

    Args:
        event: the outcome.
        reservation: of its intent, as the gateway said it.
    """
    if "engine" not in event["unmapped"]["casemate"] or type(reservation) is not int or reservation < 0:
        return None
    try:
        outcome = msgspec.convert(event, _Outcome)
    except msgspec.ValidationError as error:
        log.error("usage_unreadable", reason=str(error))
        return None
    return LostRequest(reservation, *_whose(outcome), outcome.message_context.total_tokens)


def _whose(outcome: _Outcome) -> _Whose:
    actor = outcome.actor
    return _Whose(actor.app_uid, actor.user.uid, outcome.metadata.tenant_uid, outcome.ai_model.name)


def recover_usage(
    writer: LogWriter,
    utc_ms: Callable[[], int],
    progress: Callable[[], None],
    predecessor: Predecessor | None = None,
) -> UsageBook:
    """Read back what this day and the last hour used.

    Args:
        predecessor: the log that this one continues; where it was taken away, what it says is not known.
    Raises: StateMismatch when the log's own records cannot be read.
    """
    minute = utc_ms() // _MINUTE_MS
    since_ms = min(minute - minute % _DAY_MINUTES, minute - _MINUTES_KEPT) * _MINUTE_MS
    book = UsageBook()
    num_read = 0
    try:
        for bundle in read_backwards(writer, predecessor):
            outcomes = [outcome for entry in bundle if (outcome := _parse(entry)) is not None]
            for outcome in reversed(outcomes):
                if outcome.time >= since_ms:
                    book.add(outcome, outcome.time)
            progress()
            num_read += len(bundle)
            if num_read >= MAX_RECORDS or (outcomes and outcomes[0].time < since_ms):
                break
    except LogCorrupted as error:
        raise StateMismatch(f"the end of the log cannot be read back: {error}") from error
    return book


def _parse(entry: bytes) -> _Outcome | None:
    """An outcome; None for any other record, and for one that says nothing of use, which must not stop a start."""
    try:
        outcome = _decoder.decode(entry)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return outcome if outcome.unmapped.casemate.kind == "inference_outcome" else None
