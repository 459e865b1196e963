"""Reading back what an auditor must know at its start: which intents have no outcome, where the latest requests lie, which rules
are in force, and what of the last minute was not reconciled.

Not the whole log is read. Records of the auditor (at each start, at the end of each recovery, and every MARK_INTERVAL records) say
from which index on intents may be open; the last of them bounds the reading, and so does the number of receipts kept.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

import structlog

from appliance.auditor.reconciliation import Reconciliation
from appliance.auditor.requests import OpenIntent, RequestBook
from audit.append import LogWriter
from audit.entry import parse_canonical
from audit.errors import EntryNotFound, LogCorrupted, MalformedEntry, StateMismatch
from audit.permissions import kind_of
from audit.reader import LogReader
from audit.rotation import Predecessor, place_of
from audit.summary import EntrySummary, summarize
from audit.tiles import TILE_WIDTH

MARK_INTERVAL = 50_000
MAX_RECOUNTED = 100_000
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


def read_backwards(writer: LogWriter, predecessor: Predecessor | None) -> Iterator[list[bytes]]:
    """The bundles of the log, and of the one before it, last first; where that one was taken away, of the log alone.

    Raises: LogCorrupted, of the log itself.
    """
    for number in reversed(range(-(-writer.size // TILE_WIDTH))):
        yield writer.read_bundle(number)
    if predecessor is not None:
        size, reader = predecessor.checkpoint.size, LogReader(place_of(writer.folder, predecessor))
        with suppress(EntryNotFound, LogCorrupted):
            for number in reversed(range(-(-size // TILE_WIDTH))):
                yield reader.read_bundle(number, size)


def find_rules_digest(bundles: Iterable[list[bytes]], progress: Callable[[], None]) -> str:
    """The digest of the retention and holds that the log says are in force; empty where it does not say.

    The last record of a kind that tells it counts: where an earlier release made that one, nothing is known.

    Args:
        bundles: of the log, and of the one before it, last first.
    Raises: StateMismatch.
    """
    try:
        for bundle in bundles:
            for entry in reversed(bundle):
                summary = _summarize(entry)
                if summary is not None and summary.kind in _TELL_RULES:
                    return summary.rules
            progress()
    except (LogCorrupted, MalformedEntry) as error:
        raise StateMismatch(f"the end of the log cannot be read back: {error}") from error
    return ""


def recount_last_minute(writer: LogWriter, reconciliation: Reconciliation, progress: Callable[[], None]) -> None:
    """Lay side by side what a former life recorded behind its last reconciliation: a kill takes no minute out of it.

    Of a minute with more than MAX_RECOUNTED records the last of them.
    Raises: StateMismatch.
    """
    try:
        start = _find_behind_reconciled(writer, progress)
        for number in range(start // TILE_WIDTH, -(-writer.size // TILE_WIDTH)):
            for index, entry in enumerate(writer.read_bundle(number), number * TILE_WIDTH):
                if index >= start:
                    _recount(reconciliation, entry)
            progress()
    except (LogCorrupted, MalformedEntry) as error:
        raise StateMismatch(f"the end of the log cannot be read back: {error}") from error


def _find_behind_reconciled(writer: LogWriter, progress: Callable[[], None]) -> int:
    oldest = max(0, writer.size - MAX_RECOUNTED)
    for number in reversed(range(oldest // TILE_WIDTH, -(-writer.size // TILE_WIDTH))):
        entries = writer.read_bundle(number)
        for offset in reversed(range(len(entries))):
            summary = _summarize(entries[offset])
            if summary is not None and summary.kind == "log_reconciled":
                return number * TILE_WIDTH + offset + 1
        progress()
    return oldest


def _recount(reconciliation: Reconciliation, entry: bytes) -> None:
    summary = _summarize(entry)
    match summary.kind if summary is not None else "":
        case "inference_intent":
            reconciliation.note_intent()
        case "inference_outcome":
            reconciliation.note_outcome(parse_canonical(entry))
        case "inference_late_count":
            reconciliation.note_late(parse_canonical(entry))


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
