"""Whose tokens are whose: maps the requests of several gateway workers onto one engine, and back.

It owns no socket and no clock, so it is tested without processes. Workers are told apart by any hashable key that the
caller chooses (its link). An intent's tokens are counted here and told to the auditor, whatever the gateway says.
"""

import array
import itertools
import sys
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Protocol

import msgspec
import structlog

from appliance.inference.tickets import TicketGate
from appliance.messages.audit import CountTokens
from appliance.messages.engine import Cancel, RequestRefused, StepTokens, Submit
from runtime.errors import EngineUnavailable, RequestRejected
from runtime.request import GenerationRequest, PromptDelivery, RequestSummary, TokenDelivery

log = structlog.get_logger(__name__)

WorkerKey = Hashable


class StepOutput(Protocol):
    """What `runtime.engine` gives after a step."""

    @property
    def prompts(self) -> list[PromptDelivery]: ...
    @property
    def tokens(self) -> list[TokenDelivery]: ...
    @property
    def summaries(self) -> list[RequestSummary]: ...


class Engine(Protocol):
    """What the service needs of `runtime.engine`."""

    def submit(self, request: GenerationRequest) -> None: ...
    def cancel(self, request_id: int, choice: int | None = None, keep_tokens: int | None = None) -> None: ...


@dataclass(slots=True)
class _Open:
    worker: WorkerKey
    request_id: int
    """The worker's own."""
    intent_index: int
    reason: str = "finished"


class InferenceService:
    """Owner of the table of open requests."""

    def __init__(self, engine: Engine, gate: TicketGate, clock: Callable[[], float]) -> None:
        """`clock` is the engine's monotonic clock, seconds."""
        self._engine = engine
        self._gate = gate
        self._clock = clock
        self._ids = itertools.count(1)
        self._open: dict[int, _Open] = {}
        self._by_worker: dict[WorkerKey, dict[int, int]] = {}
        self._counts: list[CountTokens] = []

    @property
    def num_open(self) -> int:
        """Requests that have not been summed up yet."""
        return len(self._open)

    def submit(self, worker: WorkerKey, message: Submit) -> RequestRefused | None:
        """Take a worker's request, or say why not."""
        theirs = self._by_worker.setdefault(worker, {})
        try:
            if message.request_id in theirs:
                raise RequestRejected("duplicate_request", f"request {message.request_id} is open already")
            self._gate.verify(message)
            engine_id = next(self._ids)
            self._engine.submit(self._generation_request(engine_id, message))
        except RequestRejected as rejected:
            return RequestRefused(message.request_id, rejected.code, str(rejected), rejected.parameter)
        except EngineUnavailable as unavailable:
            return RequestRefused(message.request_id, "engine_unavailable", str(unavailable))
        theirs[message.request_id] = engine_id
        self._open[engine_id] = _Open(worker, message.request_id, message.ticket.index)
        return None

    def cancel(self, worker: WorkerKey, message: Cancel) -> None:
        """End a request or one choice of it; unknown ids ended already and are nothing to worry about."""
        engine_id = self._by_worker.get(worker, {}).get(message.request_id)
        if engine_id is not None:
            self._engine.cancel(engine_id, message.choice, message.keep_tokens)

    def lose_worker(self, worker: WorkerKey) -> None:
        """A gateway worker is gone: its requests end; their counts still reach the auditor."""
        for engine_id in list(self._by_worker.pop(worker, {}).values()):
            self._open[engine_id].reason = "gateway_lost"
            self._engine.cancel(engine_id)

    def lose_auditor(self) -> None:
        """Nothing can be recorded: everything ends now, and no ticket is good any more."""
        self._gate.set_key(None)
        for engine_id, request in list(self._open.items()):
            request.reason = "auditor_lost"
            self._engine.cancel(engine_id)

    def sort_by_worker(self, output: StepOutput) -> dict[WorkerKey, StepTokens]:
        """Split one step's output into one message a worker, under the workers' own request ids."""
        messages: dict[WorkerKey, StepTokens] = {}
        for prompt in output.prompts:
            self._put(messages, prompt, "prompts")
        for token in output.tokens:
            self._put(messages, token, "tokens")
        for summary in output.summaries:
            self._put(messages, summary, "summaries")
            self._close(summary)
        return messages

    def take_counts(self) -> list[CountTokens]:
        """Counts of ended requests that the auditor has not been told; the caller MUST send them or keep them."""
        counts, self._counts = self._counts, []
        return counts

    def return_counts(self, counts: list[CountTokens]) -> None:
        """Give back counts that could not be sent; they wait for the next auditor."""
        self._counts = counts + self._counts

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
        )

    def _put(
        self,
        messages: dict[WorkerKey, StepTokens],
        delivery: PromptDelivery | TokenDelivery | RequestSummary,
        kind: str,
    ) -> None:
        request = self._open.get(delivery.request_id)
        if request is None or request.worker not in self._by_worker:
            return
        message = messages.get(request.worker)
        if message is None:
            message = messages[request.worker] = StepTokens([], [], [])
        getattr(message, kind).append(msgspec.structs.replace(delivery, request_id=request.request_id))

    def _close(self, summary: RequestSummary) -> None:
        request = self._open.pop(summary.request_id, None)
        if request is None:
            return
        self._by_worker.get(request.worker, {}).pop(request.request_id, None)
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


def _token_ids(prompt: bytes) -> list[int]:
    """Decode little-endian uint32 token ids.

    Raises: RequestRejected if the bytes are not whole ids.
    """
    if len(prompt) % 4:
        raise RequestRejected("malformed_prompt", f"a prompt of {len(prompt)} bytes is not a row of 4-byte token ids")
    ids = array.array("I", prompt)
    if sys.byteorder == "big":
        ids.byteswap()
    return ids.tolist()
