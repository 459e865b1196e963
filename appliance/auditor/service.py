"""The auditor's rules: what it does when a peer opens a link, sends a message or is gone, and what it does as time passes.

| message | who may | what happens |
|---|---|---|
| AppendIntent | gateway | recorded; then a `Ticket` to the engine, and `IntentRecorded` |
| AppendOutcome | the gateway of the intent | waits shortly for the engine's counts, recorded with them; then `Recorded` |
| AppendEvent | by `audit.permissions` | recorded; then `Recorded` |
| CountTokens | the engine of the intent | joins the outcome; one that comes too late is recorded by itself |
| TicketsRefused | engine | somebody asked it without a ticket that holds: counted, and an alarm |
| FetchProof | gateway | the proof of one record: hashes, nothing of what it holds |
| FetchReceipt | gateway | the records with proofs, to whose request it was and to nobody else |
| WitnessAnswered | courier | what a witness is said to have answered goes to `cosigning` |
| KeepBodyKey, OpenBody and others | gateway | `stewardship` decides |
| FetchUsage | policy | what was used today and in the last hour, by the outcomes |

Unasked, policy hears what a request came to that the auditor closed itself (`LostRequest`), and readers of cosigned checkpoints.

Everything that arrived between two calls of `turn` or `commit` becomes durable in one commit, and is answered only after it.
A message whose handling fails unforeseen costs its peer the link, and nobody else anything.
"""

from collections.abc import Callable

import structlog

from appliance.auditor.cosigning import CosigningDesk, Witnessing
from appliance.auditor.history import (
    MARK_INTERVAL,
    find_rules_digest,
    read_backwards,
    recount_last_minute,
    recover_requests,
)
from appliance.auditor.intents import IntentDesk
from appliance.auditor.ledger import Clock, Ledger
from appliance.auditor.outcomes import OutcomeDesk
from appliance.auditor.peer import Peer, Send, name_of
from appliance.auditor.receipts import ReceiptDesk
from appliance.auditor.stewardship import UNKNOWN_RULES, Custody, Stewardship
from appliance.auditor.usage_desk import UsageDesk
from appliance.auditor.vouching import LET_PASS_MS, UNKNOWN_MS, TimeVoucher, recover_unvouched
from appliance.auditor.watches import Limits, Watches
from appliance.messages.audit import (
    AppendEvent,
    AppendIntent,
    AppendOutcome,
    AppendRefused,
    AuditorStatus,
    Cosigned,
    CountTokens,
    FetchProof,
    FetchReceipt,
    FetchUsage,
    PeerToAuditor,
    Recorded,
    TicketKey,
    TicketsRefused,
)
from appliance.messages.stewardship import DecideChange, FetchRules, KeepBodyKey, KeepHashRoot, OpenBody, ProposeChange
from appliance.messages.witnessing import WitnessAnswered
from audit.entry import parse_event
from audit.errors import (
    AuditRejected,
    EntryTooLarge,
    NotDurable,
    NotPermitted,
    StorageFailed,
)
from audit.permissions import verify_permitted
from audit.rotation import Predecessor, predecessor_event
from audit.shares import has_shares

STATUS_INTERVAL_S = 0.5
PUBLISHING_WAIT_S = 0.005
IDLE_WAIT_S = 0.1
"""The longest sleep between two turns: everything that waits for a time is late by at most this."""

log = structlog.get_logger(__name__)


class AuditorService:
    """One auditor, for one life.

    Args:
        ledger: of a writer that was just opened.
        cut: ends the link to a peer; `link_ended` follows from outside, as for any other end.
        predecessor: the log that a new one continues: its first leaf says so, and the rules and the time go on from there.
        receipts_kept: how many of the latest requests can be asked for.
        receipt_wait_s: how long a receipt waits for a checkpoint.
        progress: called now and then while the log is read back.
    Raises: StateMismatch when the end of the log cannot be read back.
    """

    def __init__(
        self,
        ledger: Ledger,
        send: Send,
        clock: Clock,
        *,
        cut: Callable[[Peer], None],
        count_wait_s: float,
        receipts_kept: int,
        receipt_wait_s: float,
        limits: Limits = Limits(),
        witnessing: Witnessing | None = None,
        custody: Custody = Custody(),
        predecessor: Predecessor | None = None,
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        self._ledger = ledger
        self._send = send
        self._cut = cut
        self._clock = clock
        self._book = recover_requests(ledger.writer, receipts_kept, progress)
        self._usage = UsageDesk(ledger, send, clock, predecessor, progress)
        is_blank = not any(read_backwards(ledger.writer, predecessor))
        is_lost = is_blank and (predecessor is not None or has_shares(ledger.writer.folder.parent))
        bundles = read_backwards(ledger.writer, predecessor)
        unvouched_ms = UNKNOWN_MS if is_lost else recover_unvouched(bundles, clock.utc_ms(), progress)
        self._voucher = TimeVoucher(clock, unvouched_ms)
        self._watches = Watches(ledger, clock, limits, self._voucher)
        reconciliation = self._watches.reconciliation
        recount_last_minute(ledger.writer, reconciliation, progress)
        usage = self._usage
        self._outcomes = OutcomeDesk(
            ledger, self._book, send, clock, count_wait_s, usage.note, usage.note_lost, reconciliation
        )
        self._receipts = ReceiptDesk(ledger.writer, send, receipt_wait_s, lambda: self._watches.cosigned)
        self._intents = IntentDesk(ledger, self._book, send, clock, self._outcomes, reconciliation)
        watches = self._watches
        self._cosigning = None if witnessing is None else CosigningDesk(ledger.writer, witnessing, send, clock, watches)
        bundles = read_backwards(ledger.writer, predecessor)
        told = UNKNOWN_RULES if is_lost else find_rules_digest(bundles, progress)
        self._stewardship = Stewardship(ledger, send, clock, custody, lambda: self._gateways, self._voucher, told)
        self._gateways: list[Peer] = []
        self._readers: dict[Peer, bytes] = {}
        """With the cosigned checkpoint that each was told."""
        self._next_status_s = 0.0
        self._told_can_append: bool | None = None
        self._is_started = False
        self._predecessor = predecessor
        self._next_mark = ledger.writer.size + MARK_INTERVAL

    @property
    def num_open(self) -> int:
        """Intents without an outcome."""
        return len(self._book.open)

    @property
    def wait_s(self) -> float:
        """How long the caller may sleep before the next turn, when nothing arrives."""
        if self._ledger.has_waiting:
            return 0.0
        return PUBLISHING_WAIT_S if self._ledger.writer.is_publishing else IDLE_WAIT_S

    def start(self) -> None:
        """Record that the log is written to again. Intents of a former life are closed in later turns.

        Raises: StorageFailed.
        """
        self._ledger.open()
        self.turn()

    def link_opened(self, peer: Peer) -> None:
        """A peer can be spoken to. An engine gets its ticket key first of all."""
        if peer.peer_role == "engine":
            self._outcomes.engine_came()
            self._send(peer, TicketKey(self._intents.engine_came(peer)))
        elif peer.peer_role == "gateway":
            self._gateways.append(peer)
            self._intents.gateway_came(peer)
            self._send(peer, self._status())
            self._stewardship.gateway_came(peer)
        elif peer.peer_role == "policy":
            self._usage.policy_came(peer)
        elif peer.peer_role == "reader":
            self._readers[peer] = b""
        elif peer.peer_role == "courier" and self._cosigning is not None:
            self._cosigning.courier_came(peer)

    def link_ended(self, peer: Peer) -> None:
        """A peer is gone."""
        if peer.peer_role == "engine" and self._intents.engine_left(peer):
            self._outcomes.engine_left()
        elif peer in self._gateways:
            self._gateways.remove(peer)
            self._intents.gateway_left(peer)
            self._outcomes.lose(peer)
            self._receipts.forget(lambda waiting: waiting is peer)
        elif peer.peer_role == "policy":
            self._usage.policy_left(peer)
        elif peer.peer_role == "courier" and self._cosigning is not None:
            self._cosigning.courier_left(peer)
        else:
            self._readers.pop(peer, None)

    def received(self, peer: Peer, message: PeerToAuditor | WitnessAnswered) -> None:
        """Take one message; answers come from `turn`, refusals at once.

        Raises: StorageFailed, NotDurable.
        """
        try:
            self._take(peer, message)
        except (StorageFailed, NotDurable):
            raise
        except Exception:
            log.exception("peer_cut", peer=name_of(peer), message=type(message).__name__)
            self._cut(peer)

    def _take(self, peer: Peer, message: PeerToAuditor | WitnessAnswered) -> None:
        match message:
            case AppendEvent() | AppendIntent() | AppendOutcome():  # First, as nearly every message is one of them.
                try:
                    self._append(peer, message)
                except AuditRejected as rejected:
                    log.warning("append_refused", peer=name_of(peer), reason=str(rejected))
                    self._send(peer, AppendRefused(message.correlation, _code_of(rejected), str(rejected)))
            case WitnessAnswered():
                if self._cosigning is not None:
                    self._cosigning.answered(peer, message)
            case CountTokens():
                if peer.peer_role == "engine":
                    self._outcomes.count(message, peer.peer_instance)
                else:
                    log.error("count_refused", peer=name_of(peer))
            case TicketsRefused():
                if peer.peer_role == "engine":
                    self._watches.reconciliation.note_bad_tickets(
                        message.num_refused, f"{name_of(peer)}: {message.reason}"
                    )
                else:
                    log.error("refusals_refused", peer=name_of(peer))
            case FetchReceipt():
                self._fetch(peer, message)
            case FetchUsage():
                self._usage.fetch(peer, message)
            case FetchProof():
                self._receipts.prove(peer, message)
            case KeepBodyKey() | KeepHashRoot() | OpenBody() | ProposeChange() | DecideChange() | FetchRules():
                self._stewardship.take(peer, message)

    def commit(self) -> None:
        """Make durable what arrived, and answer it: all that a request waits for.

        Raises: StorageFailed, after which the process MUST end; nothing was answered then.
        """
        self._ledger.commit()

    def turn(self) -> None:
        """The same, and do what is due.

        Raises: StorageFailed, after which the process MUST end; nothing was answered then.
        """
        self._ledger.watch_space()
        self._note_start()
        self._outcomes.close_due()
        self._watches.look(self.num_open)
        if self._cosigning is not None:
            self._cosigning.look()
        if self._is_started:
            self._stewardship.look()
        self._ledger.commit()
        self._ledger.publish_if_due()
        self._mark_if_due()
        self._receipts.answer(self._clock.monotonic_s(), self._ledger.fault)
        self._send_status_if_due()
        self._tell_readers()

    def stop(self) -> None:
        """Close what is open, record the end, and publish; with a full disk the next start does so.

        Raises: StorageFailed.
        """
        self._watches.stop(self.num_open)  # Before: what is still open has no counts, which is no difference.
        self._outcomes.close_all("stopped", "the appliance was stopped while the request was open")
        self._ledger.commit()
        self._ledger.add_own(self._ledger.describe("log_stopped", {"num_open": self.num_open}))
        self._ledger.commit()
        self._ledger.publish()
        self._receipts.answer(self._clock.monotonic_s(), self._ledger.fault)

    def _append(self, peer: Peer, message: AppendIntent | AppendOutcome | AppendEvent) -> None:
        event = parse_event(message.event)
        match message:
            case AppendEvent():
                kind = verify_permitted(peer.peer_role, "event", event)
                if not self._watches.rations.take(kind.name, event):
                    reason = "too many of the kind in this minute; it is counted, and told in one record"
                    self._send(peer, AppendRefused(message.correlation, "rationed", reason))
                    return
                self._ledger.add(
                    event,
                    name_of(peer),
                    lambda index: self._send(peer, Recorded(message.correlation, index)),
                    lambda reason: self._refuse(peer, message.correlation, reason),
                )
            case AppendIntent():
                verify_permitted(peer.peer_role, "intent", event)
                self._intents.append(peer, message, event)
            case AppendOutcome():
                verify_permitted(peer.peer_role, "outcome", event)
                self._outcomes.take(peer, message, event)

    def _refuse(self, peer: Peer, correlation: int, reason: str) -> None:
        self._send(peer, AppendRefused(correlation, "not_durable", reason))

    def _fetch(self, peer: Peer, message: FetchReceipt) -> None:
        records = None
        if peer.peer_role == "gateway":
            subject = message.subject or message.client_id
            records = self._book.find(message.request_uid, message.client_id, subject)
        if records is None:
            # The same words whether it is somebody else's, too old or was never there.
            reason = "no such request among the latest of this client; older ones are found by index"
            self._send(peer, AppendRefused(message.correlation, "not_found", reason))
            return
        self._receipts.ask(peer, message.correlation, records, self._clock.monotonic_s())

    def _note_start(self) -> None:
        """The first record of a life; with a full disk it comes when there is space."""
        if self._is_started or not self._ledger.can_append:
            return
        self._is_started = True
        writer = self._ledger.writer
        if self._predecessor is not None and writer.next_index == 0:
            self._ledger.add_own(predecessor_event(self._predecessor, writer.key.name))
        facts: dict[str, str | int] = {
            "checkpoint_size": writer.checkpoint.size,
            "num_open": self.num_open,
            "scan_from": self._book.oldest_open(writer.next_index),
            "torn_bytes": writer.torn_bytes,
            "tree_size": writer.size,
        }
        self._ledger.add_own(self._ledger.describe("log_started", facts | self._stewardship.facts))
        if (unvouched_ms := self._voucher.unvouched_ms) >= LET_PASS_MS:
            detail = "nothing in the log vouches for so much of the clock's time: the appliance was off, or somebody set the clock"
            self._ledger.add_own(self._ledger.describe("log_time_unvouched", {"unvouched_ms": unvouched_ms}, detail))

    def _mark_if_due(self) -> None:
        """Now and then, bound what a later start has to read back."""
        size = self._ledger.writer.size
        if size >= self._next_mark and self._ledger.can_append:
            self._next_mark = size + MARK_INTERVAL
            facts: dict[str, str | int] = {"scan_from": self._book.oldest_open(size)}
            self._ledger.add_own(self._ledger.describe("log_marked", facts | self._stewardship.facts))

    def _tell_readers(self) -> None:
        note = self._watches.cosigned
        for reader, told in self._readers.items():
            if told != note:
                self._readers[reader] = note
                self._send(reader, Cosigned(note))

    def _status(self) -> AuditorStatus:
        writer = self._ledger.writer
        return AuditorStatus(
            writer.size,
            writer.checkpoint.size,
            self._ledger.can_append,
            self._ledger.fault,
            (*self._watches.alarms, *self._stewardship.alarms),
            self._watches.free_bytes,
            self._watches.reconciliation.num_differences,
            self._watches.cosigned_size,
            self._watches.cosigned_age_s,
            self._watches.num_quorums_missed,
        )

    def _send_status_if_due(self) -> None:
        now_s = self._clock.monotonic_s()
        if now_s < self._next_status_s and self._told_can_append == self._ledger.can_append:
            return
        self._next_status_s = now_s + STATUS_INTERVAL_S
        self._told_can_append = self._ledger.can_append
        status = self._status()
        for gateway in self._gateways:
            self._send(gateway, status)


def _code_of(rejected: AuditRejected) -> str:
    match rejected:
        case EntryTooLarge():
            return "too_large"
        case NotPermitted():
            return "not_permitted"
        case _:
            return "malformed"
