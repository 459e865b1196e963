"""Reading back what an auditor must know at its start: which intents have no outcome, where the latest requests lie, which rules
are in force.

Not the whole log is read. Records of the auditor (at each start, at the end of each recovery, and every MARK_INTERVAL records) say
from which index on intents may be open; the last of them bounds the reading, and so does the number of receipts kept.
"""

from collections.abc import Callable

import structlog

from appliance.auditor.requests import OpenIntent, RequestBook
from audit.append import LogWriter
from audit.entry import parse_canonical
from audit.errors import LogCorrupted, MalformedEntry, StateMismatch
from audit.permissions import kind_of
from audit.summary import EntrySummary, summarize
from audit.tiles import TILE_WIDTH

MARK_INTERVAL = 50_000
_MARKS = ("log_started", "log_recovered", "log_marked")
_NEEDED = frozenset({"inference_intent", "inference_outcome", *_MARKS})
_TELL_RULES = frozenset({"log_started", "log_marked", "retention_changed", "hold_placed", "hold_lifted"})

log = structlog.get_logger(__name__)


def recover_requests(writer: LogWriter, receipts_kept: int, progress: Callable[[], None]) -> RequestBook:
    """Fill the tables from the end of the log.

    Args:
        progress: called for every few hundred records, so that others see that the work goes on.
    Raises: StateMismatch when the log's own records cannot be read.
    """
    book = RequestBook(receipts_kept)
    try:
        first = min(_find_scan_start(writer, progress), max(0, writer.size - 2 * receipts_kept))
        for number in range(first // TILE_WIDTH, -(-writer.size // TILE_WIDTH)):
            for offset, entry in enumerate(writer.read_bundle(number)):
                index = number * TILE_WIDTH + offset
                if index >= first and (summary := _summarize(entry)) is not None:
                    _take(book, index, summary)
            progress()
    except (LogCorrupted, MalformedEntry) as error:
        raise StateMismatch(f"the end of the log cannot be read back: {error}") from error
    return book


def find_rules_digest(writer: LogWriter, progress: Callable[[], None]) -> str:
    """The digest of the retention and holds that the log says are in force; empty where it does not say.

    The last record of a kind that tells it counts: where an earlier release made that one, nothing is known.
    Raises: StateMismatch.
    """
    try:
        for number in reversed(range(-(-writer.size // TILE_WIDTH))):
            for entry in reversed(writer.read_bundle(number)):
                summary = _summarize(entry)
                if summary is not None and summary.kind in _TELL_RULES:
                    return summary.rules
            progress()
    except (LogCorrupted, MalformedEntry) as error:
        raise StateMismatch(f"the end of the log cannot be read back: {error}") from error
    return ""


def _find_scan_start(writer: LogWriter, progress: Callable[[], None]) -> int:
    """The first index at which an intent may be open, by the last record that says so."""
    for number in reversed(range(-(-writer.size // TILE_WIDTH))):
        for entry in reversed(writer.read_bundle(number)):
            summary = _summarize(entry)
            if summary is not None and summary.kind in _MARKS and summary.scan_from >= 0:
                return summary.scan_from
        progress()
    return 0


def _summarize(entry: bytes) -> EntrySummary | None:
    """Summarize a record; None when that fails for one of a kind that nothing is recovered from.

    Raises: MalformedEntry.
    """
    try:
        return summarize(entry)
    except MalformedEntry as error:
        kind = kind_of(parse_canonical(entry))
        if kind in _NEEDED:
            raise
        log.warning("record_skipped", kind=kind, reason=str(error))
        return None


def _take(book: RequestBook, index: int, summary: EntrySummary) -> None:
    if summary.kind == "inference_intent":
        book.note_intent(
            OpenIntent(index, summary.request_uid, summary.reporter, None), summary.client_id, summary.subject
        )
    elif summary.kind == "inference_outcome":
        book.note_outcome(summary.intent_index, summary.request_uid, index)
