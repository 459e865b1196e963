"""How open requests get their outcome: from the gateway, joined with the engine's counts, or from the auditor itself.

An intent is *open* until its outcome is durable. A gateway's outcome is *held* until the engine has told its counts, or a short
time is over. An intent whose gateway is gone, or that a former life of the auditor left open, is *lost*: it waits as long
for the engine, then the auditor closes it.
"""

from collections.abc import Callable

import structlog

from appliance.auditor.ledger import OWN_NAME, Clock, Ledger
from appliance.auditor.peer import Peer, Send, name_of
from appliance.auditor.reconciliation import Reconciliation
from appliance.auditor.requests import HeldOutcome, OpenIntent, RequestBook
from appliance.messages.audit import AppendOutcome, AppendRefused, CountTokens, Recorded
from audit.closing import (
    add_engine_counts,
    closing_event,
    engine_counts,
    late_count_event,
    prompt_tokens_of,
    shared_members,
    verify_outcome,
)
from audit.entry import MAX_INTEGER, Json, parse_canonical
from audit.errors import EntryNotFound, EntryTooLarge, MalformedEntry
from audit.events import TokenCounts
from audit.permissions import kind_of

ORPHAN_WAIT_S = 3.0
"""How long intents of a former life wait for gateways and engines to come back and tell what they know."""

log = structlog.get_logger(__name__)


class OutcomeDesk:
    """Owner of what happens to open intents."""

    def __init__(
        self,
        ledger: Ledger,
        book: RequestBook,
        send: Send,
        clock: Clock,
        count_wait_s: float,
        note_usage: Callable[[Json], None],
        note_lost: Callable[[Json, object], None],
        reconciliation: Reconciliation,
    ) -> None:
        """
        Args:
            note_usage: hears of each outcome.
            note_lost: hears of each that the auditor made itself, with the reservation.
        """
        self._note_usage = note_usage
        self._note_lost = note_lost
        self._ledger = ledger
        self._book = book
        self._send = send
        self._clock = clock
        self._count_wait_s = count_wait_s
        self._reconciliation = reconciliation
        self._orphans = set(book.open)
        self._num_orphans = len(self._orphans)
        self._num_engines = 0
        self._first_own = ledger.writer.size
        """Intents below this are of former lives, in which counts may have been told to nobody."""
        self._timed: dict[int, OpenIntent] = {}
        """Open intents that have a deadline: a turn looks at these only, however many are open."""
        deadline_s = clock.monotonic_s() + ORPHAN_WAIT_S
        for intent in book.open.values():
            self._lose(intent, deadline_s, "recovered", "the auditor was started again while the request was open")

    def engine_came(self) -> None:
        """An engine's link opened."""
        self._num_engines += 1

    def engine_left(self) -> None:
        """An engine's link ended: what it has not told it will not tell."""
        self._num_engines -= 1
        if self._num_engines == 0:
            now_s = self._clock.monotonic_s()
            for intent in self._timed.values():
                if intent.index not in self._orphans:
                    intent.deadline_s = now_s

    def take(self, peer: Peer, message: AppendOutcome, event: Json) -> None:
        """A gateway tells an outcome. It is answered when it is durable.

        Args:
            event: parsed, permitted for a gateway, and without what only the auditor may say.
        Raises: MalformedEntry.
        """
        intent = self._book.open.get(message.intent_index)
        if intent is None or intent.held or intent.is_closing or not _may_close(intent, peer):
            reason = f"intent {message.intent_index} is not open, or not of {name_of(peer)}"
            self._send(peer, AppendRefused(message.correlation, "unknown_intent", reason))
            return
        own = event["unmapped"]["casemate"]
        if own.get("intent_index") != intent.index or own.get("request_uid") != intent.request_uid:
            raise MalformedEntry(f"outcome: is not about intent {intent.index} of request {intent.request_uid!r}")
        self._recall(intent)
        if shared_members(event) != intent.shared:
            raise MalformedEntry(f"outcome: names another caller, call, model or tenant than intent {intent.index}")
        if prompt_tokens_of(event) not in (None, intent.prompt_tokens):
            raise MalformedEntry(f"outcome: tells another length of the prompt than intent {intent.index}")
        if "engine" in own or "counts" in own:
            raise MalformedEntry("outcome: the engine's counts are set by the auditor, never by the peer")
        verify_outcome(event)
        intent.peer, intent.held = peer, HeldOutcome(peer, message.correlation, event)
        if intent.engine is None and self._num_engines and self._count_wait_s > 0:
            self._set_deadline(intent, self._clock.monotonic_s() + self._count_wait_s)
        else:
            self._finish(intent)

    def count(self, message: CountTokens, engine_instance: int) -> None:
        """An engine tells what it computed for an intent. Another engine than the intent's is not listened to."""
        numbers = (message.prompt_tokens, message.cached_tokens, message.output_tokens)
        if not all(0 <= number <= MAX_INTEGER for number in (*numbers, message.delivered_tokens or 0)):
            log.error("engine_count_rejected", intent=message.intent_index, counts=numbers)
            return
        prompt_tokens, cached_tokens, output_tokens = numbers
        counts = TokenCounts(prompt_tokens=prompt_tokens, cached_tokens=cached_tokens, output_tokens=output_tokens)
        engine = engine_counts(counts, message.reason, message.delivered_tokens)
        intent = self._book.open.get(message.intent_index)
        if intent is None:
            self._count_late(message.intent_index, engine, engine_instance)
        elif intent.engine_instance not in (None, engine_instance):
            log.error("engine_count_refused", intent=intent.index, engine=engine_instance)
            self._reconciliation.note_unexpected()
        elif intent.engine is None:
            intent.engine = engine
            if intent.deadline_s is not None and not intent.is_closing:
                self._finish(intent)

    def lose(self, peer: Peer) -> None:
        """A gateway's link ended: its open intents wait for the engine, then the auditor closes them."""
        wait_s = self._count_wait_s if self._num_engines else 0.0
        deadline_s = self._clock.monotonic_s() + wait_s
        for intent in list(self._book.open.values()):
            if intent.peer is peer:
                intent.peer = None
                if intent.held is None:
                    self._lose(intent, deadline_s, "gateway_lost", f"the link to {name_of(peer)} ended")

    def close_due(self) -> None:
        """Record outcomes that have waited long enough. With the disk full they wait on."""
        now_s = self._clock.monotonic_s()
        due = [
            intent
            for intent in self._timed.values()
            if intent.deadline_s is not None and intent.deadline_s <= now_s and not intent.is_closing
        ]
        for intent in due:
            if intent.held is not None or self._ledger.can_append:
                self._finish(intent)

    def close_all(self, reason: str, detail: str) -> None:
        """Close whatever is open now, without waiting: the auditor ends."""
        for intent in list(self._book.open.values()):
            if intent.is_closing:
                continue
            if intent.held is None:
                self._lose(intent, 0.0, reason, detail)
            else:
                self._set_deadline(intent, 0.0)
        self.close_due()

    def _lose(self, intent: OpenIntent, deadline_s: float, reason: str, detail: str) -> None:
        """Its gateway will not tell its outcome: the auditor closes it after the deadline."""
        intent.lost_reason, intent.lost_detail = reason, detail
        self._set_deadline(intent, deadline_s)

    def _set_deadline(self, intent: OpenIntent, deadline_s: float) -> None:
        intent.deadline_s = deadline_s
        self._timed[intent.index] = intent

    def _finish(self, intent: OpenIntent) -> None:
        """Add the outcome with what is known now. Where a gateway's cannot be recorded, the auditor tells one."""
        held, intent.held = intent.held, None
        intent.is_closing = True
        try:
            self._add_outcome(intent, held)
        except Exception as error:
            intent.is_closing = False
            if held is None or not isinstance(error, MalformedEntry):
                raise
            log.warning("outcome_refused", peer=name_of(held.peer), intent=intent.index, reason=str(error))
            code = "too_large" if isinstance(error, EntryTooLarge) else "malformed"
            self._send(held.peer, AppendRefused(held.correlation, code, str(error)))
            self._lose(intent, 0.0, "outcome_refused", "its gateway told an outcome that cannot be recorded")

    def _add_outcome(self, intent: OpenIntent, held: HeldOutcome | None) -> None:
        engine = intent.engine
        if held is None:
            event = self._closing_event(intent, engine)
            reporter = OWN_NAME
        else:
            event, reporter = held.event, name_of(held.peer)
            add_engine_counts(event, engine)
        self._ledger.add(
            event,
            reporter,
            lambda index: self._note_durable(intent, held, event, index),
            lambda reason: self._note_refused(intent, held, reason),
        )

    def _recall(self, intent: OpenIntent) -> None:
        """What an intent of a former life says, from its record."""
        if not intent.shared:
            event = parse_canonical(self._ledger.writer.read(intent.index))
            intent.shared, intent.prompt_tokens = shared_members(event), prompt_tokens_of(event)

    def _closing_event(self, intent: OpenIntent, engine: Json | None) -> Json:
        entry = parse_canonical(self._ledger.writer.read(intent.index))
        intent.reservation = entry["unmapped"]["casemate"].get("reservation")
        return closing_event(entry, intent.index, intent.lost_reason, intent.lost_detail, engine)

    def _note_durable(self, intent: OpenIntent, held: HeldOutcome | None, event: Json, index: int) -> None:
        self._note_usage(event)
        self._reconciliation.note_outcome(event)
        self._timed.pop(intent.index, None)
        self._book.note_outcome(intent.index, intent.request_uid, index)
        if held is None:
            self._note_lost(event, intent.reservation)
        else:
            self._send(held.peer, Recorded(held.correlation, index))
        if "engine" not in event["unmapped"]["casemate"]:
            self._book.note_uncounted(intent, index)
            if intent.engine is not None:  # It came while the outcome was on its way to the disk.
                self._count_late(intent.index, intent.engine, intent.engine_instance)
        self._note_recovered(intent)

    def _note_refused(self, intent: OpenIntent, held: HeldOutcome | None, reason: str) -> None:
        intent.is_closing = False
        if held is not None:
            self._send(held.peer, AppendRefused(held.correlation, "not_durable", reason))
            self._lose(intent, 0.0, "outcome_not_durable", "its gateway told an outcome while the disk was full")

    def _note_recovered(self, intent: OpenIntent) -> None:
        """With the last intent of the former life closed, say from where on the next life has to look."""
        if intent.index in self._orphans:
            self._orphans.remove(intent.index)
            if not self._orphans:
                scan_from = self._book.oldest_open(self._ledger.writer.size)
                facts: dict[str, str | int] = {"num_closed": self._num_orphans, "scan_from": scan_from}
                self._ledger.add_own(self._ledger.describe("log_recovered", facts))

    def _count_late(self, intent_index: int, engine: Json, engine_instance: int | None) -> None:
        """The outcome stands already, without these counts: they get a record of their own."""
        outcome_index = self._book.take_uncounted(intent_index, engine_instance)
        intent = self._read(intent_index, "inference_intent")
        if intent is None or (outcome_index is None and intent_index >= self._first_own):
            log.error("engine_count_unexpected", intent=intent_index)
            self._reconciliation.note_unexpected()
            return
        if outcome_index is None:
            outcome_index = self._book.outcome_of(intent["unmapped"]["casemate"]["request_uid"], intent_index)
        outcome = None if outcome_index is None else self._read(outcome_index, "inference_outcome")
        told = None if outcome is None else outcome["unmapped"]["casemate"].get("engine")
        if intent_index < self._first_own and told == engine:
            return  # The life before was told as well, and had recorded it.
        event = late_count_event(intent, intent_index, engine, outcome)
        self._reconciliation.note_late(event)
        self._ledger.add(event, OWN_NAME)

    def _read(self, index: int, kind: str) -> Json | None:
        """A record, if it is of this kind."""
        try:
            entry = parse_canonical(self._ledger.writer.read(index))
        except (EntryNotFound, MalformedEntry):
            return None
        return entry if kind_of(entry) == kind else None


def _may_close(intent: OpenIntent, peer: Peer) -> bool:
    """A gateway closes its own; after a restart of the auditor, those that its number had reported."""
    return intent.peer is peer or (intent.peer is None and intent.reporter == name_of(peer))
