"""Whose tokens are whose: maps the requests of several gateway workers onto one engine, and back.

It owns no socket and no clock, so it is tested without processes. Workers are told apart by any hashable key that the
caller chooses (its link). An intent's tokens are counted here and told to the auditor, whatever the gateway says.

The engine's id of a request is the worker's own below, and the worker's number above it. So the tokens of a step are sorted
by worker with a shift of all ids at once, and nothing is looked up for an ordinary token.
"""

import array
import sys
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
import structlog

from appliance.inference.outgoing import Delivery, Outgoing
from appliance.inference.tickets import BAD_TICKET, TicketGate
from appliance.messages.audit import MAX_REASON_CHARS, CountTokens, TicketsRefused
from appliance.messages.engine import REQUEST_ID_BITS, AbortIntent, Cancel, RequestRefused, StepTokens, Submit
from runtime.errors import EngineUnavailable, QueueFull, RequestRejected
from runtime.request import Finish, GenerationRequest, PackedTokens, PromptDelivery, RequestSummary, TokenDelivery

log = structlog.get_logger(__name__)

WorkerKey = Hashable
MAX_WORKER_NUMBER = (1 << (63 - REQUEST_ID_BITS)) - 1
_REQUEST_ID_MASK = (1 << REQUEST_ID_BITS) - 1


class PlainTokens(Protocol):
    """What `runtime.scheduling.delivery.PlainTokens` gives."""

    def split(self, num_bits: int) -> Iterator[tuple[int, PackedTokens]]:
        """By worker: what stands above `num_bits` of a request's id, and the tokens of those requests."""
        ...


class StepOutput(Protocol):
    """What `runtime.engine` gives after a step."""

    @property
    def prompts(self) -> list[PromptDelivery]:
        """One for each request, with or before its first token."""
        ...

    @property
    def plain(self) -> PlainTokens:
        """Tokens that neither begin nor end an answer and come with nothing else."""
        ...

    @property
    def tokens(self) -> list[TokenDelivery]:
        """All other tokens."""
        ...

    @property
    def summaries(self) -> list[RequestSummary]:
        """Requests of which all choices have ended, and their counts."""
        ...


class Engine(Protocol):
    """What the service needs of `runtime.engine`."""

    def submit(self, request: GenerationRequest) -> None:
        """Queue a request. Raises: RequestRejected, QueueFull, EngineUnavailable."""
        ...

    def cancel(self, request_id: int, choice: int | None = None, keep_tokens: int | None = None) -> None:
        """End a request or one choice of it; the next step says so. Unknown ids are ignored."""
        ...


@dataclass(slots=True)
class _Worker:
    number: int
    key: WorkerKey | None
    """None: it is gone, and its requests are about to end."""
    open: set[int] = field(default_factory=set)
    """Ids in the engine of its open requests."""


@dataclass(slots=True)
class _Open:
    worker: _Worker
    intent_index: int
    reason: str = "finished"


class InferenceService:
    """Owner of the table of open requests."""

    def __init__(self, engine: Engine, gate: TicketGate, clock: Callable[[], float]) -> None:
        """`clock` is the engine's monotonic clock, seconds."""
        self._engine = engine
        self._gate = gate
        self._clock = clock
        self._open: dict[int, _Open] = {}
        self._workers: dict[int, _Worker] = {}
        self._numbers: dict[WorkerKey, int] = {}
        self._last_number = 0
        self._counts: list[CountTokens] = []
        self._num_bad_tickets = 0
        self._bad_ticket = ""

    @property
    def num_open(self) -> int:
        """Requests that have not been summed up yet."""
        return len(self._open)

    def submit(self, worker: WorkerKey, message: Submit) -> RequestRefused | None:
        """Take a worker's request, or say why not."""
        sender = self._worker(worker)
        engine_id = sender.number << REQUEST_ID_BITS | message.request_id
        try:
            if engine_id in self._open:
                raise RequestRejected("duplicate_request", f"request {message.request_id} is open already")
            self._gate.verify(message)
            self._engine.submit(self._generation_request(engine_id, message))
        except RequestRejected as rejected:
            if rejected.code == BAD_TICKET:
                self._num_bad_tickets += 1
                self._bad_ticket = str(rejected)[:MAX_REASON_CHARS]
            return RequestRefused(message.request_id, rejected.code, str(rejected), rejected.parameter)
        except QueueFull as full:
            return RequestRefused(message.request_id, "queue_full", str(full))
        except EngineUnavailable as unavailable:
            return RequestRefused(message.request_id, "engine_unavailable", str(unavailable))
        sender.open.add(engine_id)
        self._open[engine_id] = _Open(sender, message.ticket.index)
        return None

    def cancel(self, worker: WorkerKey, message: Cancel) -> None:
        """End a request or one choice of it; unknown ids ended already and are nothing to worry about."""
        engine_id = self._numbers.get(worker, 0) << REQUEST_ID_BITS | message.request_id
        if engine_id in self._open:
            self._engine.cancel(engine_id, message.choice, message.keep_tokens)

    def abort(self, message: AbortIntent) -> None:
        """End the request of an intent; one that has ended already is nothing to worry about."""
        for engine_id, request in list(self._open.items()):
            if request.intent_index == message.intent_index:
                request.reason = "aborted"
                self._engine.cancel(engine_id)

    def lose_worker(self, worker: WorkerKey) -> None:
        """A gateway worker is gone: its requests end; their counts still reach the auditor."""
        number = self._numbers.pop(worker, None)
        if number is None:
            return
        lost = self._workers[number]
        lost.key = None
        for engine_id in sorted(lost.open):
            self._open[engine_id].reason = "gateway_lost"
            self._engine.cancel(engine_id)
        self._forget_if_done(lost)

    def lose_auditor(self) -> None:
        """Nothing can be recorded: everything ends now, and no ticket is good any more."""
        self._gate.set_key(None)
        for engine_id, request in list(self._open.items()):
            request.reason = "auditor_lost"
            self._engine.cancel(engine_id)

    def sort_by_worker(self, output: StepOutput) -> list[tuple[WorkerKey, StepTokens]]:
        """Split one step's output into the messages of each worker, in order, under the workers' own request ids."""
        outgoing = Outgoing()
        for number, packed in output.plain.split(REQUEST_ID_BITS):
            outgoing.to(number).plain = packed
        deliveries: list[Delivery] = [*output.prompts, *output.tokens, *output.summaries]
        for delivery in deliveries:
            number, request_id = delivery.request_id >> REQUEST_ID_BITS, delivery.request_id & _REQUEST_ID_MASK
            told = self._told(delivery)
            outgoing.to(number).add(msgspec.structs.replace(told, request_id=request_id))
        messages = [
            (self._workers[number].key, message)
            for number, message in outgoing.messages()
            if number in self._workers and self._workers[number].key is not None
        ]
        for summary in output.summaries:
            self._close(summary)
        return messages

    def _told(self, delivery: Delivery) -> Delivery:
        """What ended because its client said so is told apart from what was lost."""
        request = self._open.get(delivery.request_id)
        if request is None or request.reason != "aborted" or not isinstance(delivery, TokenDelivery):
            return delivery
        return msgspec.structs.replace(delivery, finish=Finish("cancelled", None, "aborted"))

    def take_counts(self) -> list[CountTokens]:
        """Counts of ended requests that the auditor has not been told; the caller MUST send them."""
        counts, self._counts = self._counts, []
        return counts

    def take_refusals(self) -> TicketsRefused | None:
        """What the auditor has not been told of tickets that did not hold; the caller MUST send it."""
        if not self._num_bad_tickets:
            return None
        refused = TicketsRefused(self._num_bad_tickets, self._bad_ticket)
        self._num_bad_tickets = 0
        return refused

    def _generation_request(self, engine_id: int, message: Submit) -> GenerationRequest:
        timeout_ms = message.timeout_ms
        return GenerationRequest(
            request_id=engine_id,
            prompt=_token_ids(message.prompt),
            sampling=message.sampling,
            n=message.n,
            namespace=message.namespace,
            priority=message.priority,
            deadline=None if timeout_ms is None else self._clock() + timeout_ms / 1000,
            caches_output=message.caches_output,
            grammar=message.grammar,
            wants_embedding=message.wants_embedding,
        )

    def _worker(self, key: WorkerKey) -> _Worker:
        """The worker behind a key; a new one gets a number under which nothing is open."""
        number = self._numbers.get(key)
        if number is None:
            number = self._last_number % MAX_WORKER_NUMBER + 1
            while number in self._workers:
                number = number % MAX_WORKER_NUMBER + 1
            self._last_number = self._numbers[key] = number
            self._workers[number] = _Worker(number, key)
        return self._workers[number]

    def _forget_if_done(self, worker: _Worker) -> None:
        if worker.key is None and not worker.open:
            del self._workers[worker.number]

    def _close(self, summary: RequestSummary) -> None:
        request = self._open.pop(summary.request_id, None)
        if request is None:
            return
        request.worker.open.discard(summary.request_id)
        self._forget_if_done(request.worker)
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


def _token_ids(prompt: bytes) -> "array.array[int]":
    """Decode little-endian uint32 token ids; no object is made for any of them.

    Raises: RequestRejected if the bytes are not whole ids.
    """
    if len(prompt) % 4:
        raise RequestRejected("malformed_prompt", f"a prompt of {len(prompt)} bytes is not a row of 4-byte token ids")
    ids = array.array("I", prompt)
    if sys.byteorder == "big":
        ids.byteswap()
    return ids
