"""Whose tokens are whose: maps the requests of several gateway workers onto one engine, and back.

It owns no socket and no clock, so it is tested without processes. A request comes from its worker, its ticket from the auditor;
until both are here it is held (`holding`), and what leaves passes `_let_go` or comes after it. An intent's tokens are counted
here and told to the auditor, whatever the gateway says.

The engine's id of a request is the worker's own below, and the worker's number above it. So the tokens of a step are sorted
by worker with a shift of all ids at once, and nothing is looked up for an ordinary token.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec
import structlog

from appliance.inference.generation import generation_request
from appliance.inference.holding import Hold, HoldLimits, Phase, Untold
from appliance.inference.neighbours import Engine, Sent, StepOutput, WorkerLink
from appliance.inference.outgoing import Delivery, Outgoing, part
from appliance.inference.tickets import BAD_TICKET, EarlyTickets, RefusedTickets, TicketGate, refusal_of
from appliance.inference.workers import Worker, Workers
from appliance.messages.audit import CountTokens, Ticket, TicketsRefused
from appliance.messages.engine import REQUEST_ID_BITS, AbortIntent, Cancel, RequestRefused, Submit
from runtime.errors import EngineUnavailable, QueueFull, RequestRejected
from runtime.request import Finish, PackedTokens, RequestSummary, TokenDelivery

log = structlog.get_logger(__name__)

RETOLD_S = 10.0
MAX_RETOLD = 4_096
"""What an auditor was told so long before it was lost, the next one is told again: it may not have reached the disk."""
_REQUEST_ID_MASK = (1 << REQUEST_ID_BITS) - 1


@dataclass(slots=True)
class _Open:
    worker: Worker
    intent_index: int | None
    """None until its ticket has come."""
    reason: str = "finished"
    hold: Hold | None = None
    """What keeps it from its worker; None: nothing."""
    is_dropped: bool = False
    """Nobody is told anything of it any more."""


class InferenceService:
    """Owner of the table of open requests."""

    def __init__(
        self, engine: Engine, gate: TicketGate, clock: Callable[[], float], limits: HoldLimits = HoldLimits()
    ) -> None:
        """`clock` is the engine's monotonic clock, seconds."""
        self._engine = engine
        self._gate = gate
        self._clock = clock
        self._wait_s = limits.wait_s
        self._open: dict[int, _Open] = {}
        self._held: dict[int, _Open] = {}
        """Of these, the ones whose tickets are to come, the oldest first."""
        self._early = EarlyTickets()
        self._workers = Workers(limits)
        self._counts: list[CountTokens] = []
        self._latest: deque[tuple[float, CountTokens]] = deque(maxlen=MAX_RETOLD)
        """The latest counts that the auditor was told, and when."""
        self._refused = RefusedTickets()
        self.untold = Untold()
        """Of the engine's counts, what belongs to requests that have no tickets."""

    @property
    def num_open(self) -> int:
        """Requests that have not been summed up yet."""
        return len(self._open)

    @property
    def num_held(self) -> int:
        """Of these, requests whose tickets have not come."""
        return len(self._held)

    def submit(self, worker: WorkerLink, message: Submit) -> RequestRefused | None:
        """Take a worker's request, or say why not. Nothing of it is told before its ticket has come."""
        sender = self._workers.of(worker)
        engine_id = sender.number << REQUEST_ID_BITS | message.request_id
        try:
            if engine_id in self._open:
                raise RequestRejected("duplicate_request", f"request {message.request_id} is open already")
            self._gate.verify_open()
            ticket = self._early.take(worker.peer_instance, message.request_id)
            if ticket is None:
                self._hold(engine_id, sender, message)
                return None
            self._gate.verify(worker.peer_instance, message, ticket)
            self._engine.submit(generation_request(engine_id, message, self._clock()))
        except (RequestRejected, QueueFull, EngineUnavailable) as error:
            return self._refusal(message.request_id, error)
        self._add(engine_id, _Open(sender, ticket.index))
        return None

    def accept(self, ticket: Ticket) -> Sent:
        """The auditor's leave for a request, which may be here already or not."""
        found = self._find_held(ticket)
        if found is None:
            try:
                self._early.put(ticket)
            except RequestRejected as rejected:
                self._refused.note(rejected)
            return []
        engine_id, request, hold = found
        try:
            self._gate.verify(ticket.worker, hold.submit, ticket)
        except (RequestRejected, EngineUnavailable) as error:
            return self._refuse_held(engine_id, request, error)
        request.intent_index = ticket.index
        del self._held[engine_id]
        return self._let_go(engine_id, request, hold)

    def cancel(self, worker: WorkerLink, message: Cancel) -> Sent:
        """End a request or one choice of it; unknown ids ended already and are nothing to worry about.

        A request without a ticket that is cancelled as a whole is forgotten, as its worker has learnt that no ticket will come.
        """
        engine_id = self._workers.number_of(worker) << REQUEST_ID_BITS | message.request_id
        request = self._open.get(engine_id)
        if request is None or request.is_dropped:
            return []
        if request.intent_index is None and message.choice is None:
            return self._refuse_held(engine_id, request, RequestRejected("withdrawn", "its worker withdrew it"))
        self._cancel(engine_id, request, message)
        return []

    def abort(self, message: AbortIntent) -> None:
        """End the request of an intent; one that has ended already is nothing to worry about."""
        for engine_id, request in list(self._open.items()):
            if request.intent_index == message.intent_index:
                request.reason = "aborted"
                self._cancel(engine_id, request, Cancel(engine_id & _REQUEST_ID_MASK))

    def expire(self) -> Sent:
        """Requests whose tickets have not come in time end: their worker asks past the auditor."""
        refused: Sent = []
        while self._held:
            engine_id, request = next(iter(self._held.items()))
            assert request.hold is not None
            if request.hold.arrived_at + self._wait_s > self._clock():
                break
            late = RequestRejected(BAD_TICKET, f"no ticket came within {self._wait_s:g} s")
            refused += self._refuse_held(engine_id, request, late)
        return refused

    def lose_worker(self, worker: WorkerLink) -> None:
        """A gateway worker is gone: its requests end; their counts still reach the auditor."""
        lost = self._workers.lose(worker)
        if lost is None:
            return
        self._early.forget(worker.peer_instance)
        for engine_id in sorted(lost.open):
            request = self._open[engine_id]
            request.reason = "gateway_lost"
            if request.hold is not None:
                self._drop(engine_id, request)
            else:
                self._engine.cancel(engine_id)
        self._workers.forget_if_done(lost)

    def set_key(self, key: bytes | None) -> Sent:
        """Take the key of a new auditor's life; what waits for the tickets of the one before ends."""
        self._early.clear()
        self._gate.set_key(key)
        refused: Sent = []
        for engine_id, request in list(self._open.items()):
            if request.hold is not None and not request.is_dropped:
                away = EngineUnavailable("the auditor was lost before the intent was known to be recorded")
                refused += self._refuse_held(engine_id, request, away)
        return refused

    def lose_auditor(self) -> Sent:
        """Nothing can be recorded: everything ends now, and no ticket is good any more."""
        since = self._clock() - RETOLD_S
        self._counts = [count for told_at, count in self._latest if told_at >= since] + self._counts
        self._latest.clear()
        refused = self.set_key(None)
        for engine_id, request in list(self._open.items()):
            if request.hold is None:
                request.reason = "auditor_lost"
                self._engine.cancel(engine_id)
        return refused

    def sort_by_worker(self, output: StepOutput) -> Sent:
        """Split one step's output into the messages of each worker, in order, under the workers' own request ids."""
        outgoing = Outgoing()
        for number, packed in output.plain.split(REQUEST_ID_BITS):
            free = self._without_held(number, packed)
            if len(free):
                outgoing.to(number).plain = free
        late: Sent = []
        told: list[Delivery] = []
        deliveries: list[Delivery] = [*output.prompts, *output.tokens, *output.summaries]
        for delivery in deliveries:
            request = self._open.get(delivery.request_id)
            if request is None or request.hold is None:
                told.append(delivery)
            else:
                late += self._keep(request, request.hold, delivery)
        return self._tell(outgoing, told) + late

    def _tell(self, outgoing: Outgoing, deliveries: Iterable[Delivery]) -> Sent:
        """What has leave to leave."""
        summaries: list[RequestSummary] = []
        for delivery in deliveries:
            number, request_id = delivery.request_id >> REQUEST_ID_BITS, delivery.request_id & _REQUEST_ID_MASK
            told = self._told(delivery)
            if isinstance(told, TokenDelivery) and told.finish is not None and told.finish.reason == "error":
                self._warn_of_failure(told, told.finish)
            outgoing.to(number).add(msgspec.structs.replace(told, request_id=request_id))
            if isinstance(delivery, RequestSummary):
                summaries.append(delivery)
        messages = self._workers.address(outgoing)
        for summary in summaries:
            self._close(summary)
        return messages

    def _warn_of_failure(self, delivery: TokenDelivery, finish: Finish) -> None:
        """The index is that of the intent in the log, which the client was told as well."""
        request = self._open.get(delivery.request_id)
        index = None if request is None else request.intent_index
        log.warning("choice_failed", reason=finish.detail, audit_index=index, choice=delivery.choice)

    def _told(self, delivery: Delivery) -> Delivery:
        """What ended because its client said so is told apart from what was lost."""
        request = self._open.get(delivery.request_id)
        if request is None or request.reason != "aborted" or not isinstance(delivery, TokenDelivery):
            return delivery
        return msgspec.structs.replace(delivery, finish=Finish("cancelled", None, "aborted"))

    def _hold(self, engine_id: int, sender: Worker, message: Submit) -> None:
        """Let a request wait for its ticket, and compute meanwhile if it may. Raises: QueueFull."""
        hold = Hold(message, self._clock())
        sender.holding.admit(hold)
        request = self._held[engine_id] = _Open(sender, None, hold=hold)
        self._add(engine_id, request)
        if sender.holding.may_compute(hold):
            try:
                self._engine.submit(generation_request(engine_id, message, hold.arrived_at))
            except (RequestRejected, QueueFull, EngineUnavailable):
                return  # It is tried again when the ticket has come, and the refusal told then.
            sender.holding.compute(hold)

    def _let_go(self, engine_id: int, request: _Open, hold: Hold) -> Sent:
        """A ticket that holds has come: what the request gave so far leaves, or it computes from now on."""
        match hold.phase:
            case Phase.STOPPING:
                return []  # Its end in the engine is to come, see `_keep`.
            case Phase.ASIDE:
                return self._start_late(engine_id, request, hold)
            case _:
                self._release(request, hold)
                self.untold.subtract(hold.untold)
                return self._tell(Outgoing(), hold.output)

    def _start_late(self, engine_id: int, request: _Open, hold: Hold) -> Sent:
        """The request has its ticket and is not in the engine."""
        self._release(request, hold)
        try:
            self._engine.submit(generation_request(engine_id, hold.submit, hold.arrived_at))
        except (RequestRejected, QueueFull, EngineUnavailable) as error:
            return self._forget(engine_id, request, error)
        for cancel in hold.cancels.values():
            self._engine.cancel(engine_id, cancel.choice, cancel.keep_tokens)
        return []

    def _keep(self, request: _Open, hold: Hold, delivery: Delivery) -> Sent:
        """Something came of a request that is held."""
        engine_id, holding = delivery.request_id, request.worker.holding
        self.untold.add(delivery)
        if hold.phase is not Phase.STOPPING:
            if not holding.keep(hold, delivery):
                holding.stop(hold)
                self._engine.cancel(engine_id)
        elif isinstance(delivery, RequestSummary):
            return self._stopped(engine_id, request, hold)
        return []

    def _stopped(self, engine_id: int, request: _Open, hold: Hold) -> Sent:
        """The engine has nothing more of a request that was stopped."""
        if request.is_dropped:
            self._release(request, hold)
            return self._forget(engine_id, request, None)
        request.worker.holding.stopped(hold)
        return [] if request.intent_index is None else self._start_late(engine_id, request, hold)

    def _without_held(self, number: int, packed: PackedTokens) -> PackedTokens:
        """A worker's plain tokens less those of held requests; only where there are such is each looked at."""
        worker = self._workers.get(number)
        if worker is None or not worker.holding.has_spoken:
            return packed
        above = number << REQUEST_ID_BITS
        held = {
            engine_id & _REQUEST_ID_MASK
            for engine_id in worker.open
            if (hold := self._open[engine_id].hold) is not None and hold.has_spoken
        }
        free, kept = part(packed, held)
        for request_id, choice, token_id in kept:
            request = self._open[above | request_id]
            assert request.hold is not None
            self._keep(request, request.hold, TokenDelivery(above | request_id, choice, [token_id]))
        return free

    def _cancel(self, engine_id: int, request: _Open, message: Cancel) -> None:
        if request.hold is not None and request.hold.phase in (Phase.ASIDE, Phase.STOPPING):
            request.hold.note_cancel(message)
        else:
            self._engine.cancel(engine_id, message.choice, message.keep_tokens)

    def _refuse_held(self, engine_id: int, request: _Open, error: Exception) -> Sent:
        """End a held request, and tell its worker why."""
        link = request.worker.link
        self._drop(engine_id, request)
        refusal = self._refusal(engine_id & _REQUEST_ID_MASK, error)
        return [] if link is None else [(link, refusal)]

    def _drop(self, engine_id: int, request: _Open) -> None:
        """Let a held request end untold; nothing of it stays but what the engine has yet to say."""
        hold = request.hold
        assert hold is not None
        self._held.pop(engine_id, None)
        request.is_dropped = True
        if hold.phase is Phase.COMPUTING:
            request.worker.holding.stop(hold)
            self._engine.cancel(engine_id)
        elif hold.phase is not Phase.STOPPING:
            self._release(request, hold)
            self._forget(engine_id, request, None)

    def _release(self, request: _Open, hold: Hold) -> None:
        request.worker.holding.release(hold)
        request.hold = None

    def _forget(self, engine_id: int, request: _Open, error: Exception | None) -> Sent:
        """A request that is not in the engine is open no longer."""
        del self._open[engine_id]
        request.worker.open.discard(engine_id)
        self._workers.forget_if_done(request.worker)
        if error is None or request.worker.link is None:
            return []
        return [(request.worker.link, self._refusal(engine_id & _REQUEST_ID_MASK, error))]

    def _find_held(self, ticket: Ticket) -> tuple[int, _Open, Hold] | None:
        """The request of a ticket, if it is here and waits for it."""
        for number in self._workers.numbered(ticket.worker):
            engine_id = number << REQUEST_ID_BITS | ticket.request_id
            request = self._held.get(engine_id)
            if request is not None and request.hold is not None:
                return engine_id, request, request.hold
        return None

    def _refusal(self, request_id: int, error: Exception) -> RequestRefused:
        self._refused.note(error)
        return refusal_of(request_id, error)

    def _add(self, engine_id: int, request: _Open) -> None:
        self._open[engine_id] = request
        request.worker.open.add(engine_id)

    def take_counts(self) -> list[CountTokens]:
        """Counts of ended requests that the auditor has not been told; the caller MUST send them."""
        counts, self._counts = self._counts, []
        if counts:
            now = self._clock()
            self._latest.extend((now, count) for count in counts)
        return counts

    def take_refusals(self) -> TicketsRefused | None:
        """What the auditor has not been told of bad tickets; the caller MUST send it."""
        return self._refused.take()

    def _close(self, summary: RequestSummary) -> None:
        request = self._open.pop(summary.request_id, None)
        if request is None:
            return
        assert request.intent_index is not None
        request.worker.open.discard(summary.request_id)
        self._workers.forget_if_done(request.worker)
        self._counts.append(
            CountTokens(
                request.intent_index,
                summary.prompt_tokens,
                summary.cached_tokens,
                summary.output_tokens,
                request.reason,
                summary.delivered_tokens,
            )
        )
