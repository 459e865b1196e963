"""One HTTP request's answer, from the quota to the outcome. The steps are numbered as ARCHITECTURE.md numbers them.

The order is fixed: what the quota refuses is never recorded as an intent, what the auditor has not made durable is never
submitted, and the last event of an answer waits for the outcome. Quota needs the number of the prompt's tokens, so (3),
template and tokenizer, has run before (2) ends; what those may cost is bounded by the body's size and a clock.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from types import TracebackType
from typing import Self

import structlog

from appliance.gateway.errors import ClientGone, DeadlineExceeded, GatewayFault, QuotaRefused, http_of
from appliance.gateway.flow.choice import Piece
from appliance.gateway.flow.coverage import Coverage
from appliance.gateway.flow.desk import Desk
from appliance.gateway.flow.generation import Generation, verify_finish
from appliance.gateway.flow.mailbox import Mailbox
from appliance.gateway.flow.records import Ending, Recorder, Source
from appliance.gateway.flow.request import Asked
from appliance.gateway.identity import Principal
from appliance.gateway.peers.engines import Delivery
from appliance.gateway.text.vocabulary import Vocabulary
from appliance.messages.engine import Submit, Ticket
from runtime.request import PromptDelivery, TokenDelivery

SUMMARY_WAIT_S = 1.0
"""How long an answer that was cut short waits for the engine's last word."""

log = structlog.get_logger(__name__)


class Answer:
    """An asynchronous context: entering it performs (2) to (5), `batches` gives (6), leaving it makes sure of (7).

    Attributes:
        generations: one for each prompt.
        response_started: set by the caller when the status line is out: the outcome names the status.
        on_fail: called when the answer is ended from outside; the caller may be waiting for its client just then.
    """

    def __init__(
        self, desk: Desk, asked: Asked, principal: Principal, source: Source, vocabulary: Vocabulary, arrived_at: float
    ) -> None:
        self._desk = desk
        self._asked = asked
        self._principal = principal
        self._arrived_at = arrived_at
        self._mailbox: Mailbox[tuple[Generation, Delivery]] = Mailbox(desk.settings.max_unread_tokens)
        self._engine = desk.engines.for_model(asked.model)
        self._recorder = Recorder(desk.hasher, principal, source, asked, self._engine.facts.engine_build)
        self.generations = [Generation(asked, index, vocabulary, self._mailbox) for index in range(len(asked.prompts))]
        self.response_started = False
        self.on_fail: Callable[[], object] = _nothing

    @property
    def engine_build(self) -> str:
        """What computes the answer."""
        return self._engine.facts.engine_build

    @property
    def intent_indices(self) -> str:
        """Value of the `casemate-audit-index` header."""
        return ",".join(str(generation.intent_index) for generation in self.generations)

    @property
    def outcome_indices(self) -> str:
        """The outcomes' indices, known when `batches` has ended."""
        return ",".join(str(generation.outcome_index) for generation in self.generations)

    def fail(self, fault: GatewayFault) -> None:
        """End the answer from outside: the client left, the auditor is gone, the appliance stops."""
        self._mailbox.fail(fault)
        self.on_fail()

    async def __aenter__(self) -> Self:
        self._desk.open(self)
        try:
            await self._start()
        except BaseException as error:
            await self._conclude(error)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._conclude(error)

    async def _start(self) -> None:
        # (2) the quota: the prompt and a first block of output, for every prompt before any is recorded.
        for generation in self.generations:
            await self._reserve(generation)
        # (4) the intents; they are durable when this returns.
        tickets = await self._record_intents()
        if self._mailbox.fault is not None:
            raise self._mailbox.fault
        # (5) the engine, which takes nothing without the auditor's ticket.
        for generation, ticket in zip(self.generations, tickets, strict=True):
            self._submit(generation, ticket)
            self._desk.metrics.num_requests_total.add(1, model_name=self._asked.model)

    async def _reserve(self, generation: Generation) -> None:
        try:
            reservation = await self._desk.policy.reserve(
                self._principal, self._asked.model, generation.num_prompt_tokens, generation.token_limit
            )
        except QuotaRefused as refused:
            status = http_of(refused).status
            self._desk.auditor.report(self._recorder.denial(generation.index, refused.code, str(refused), status))
            raise
        generation.coverage = Coverage(self._desk.policy, reservation, generation.token_limit)

    async def _record_intents(self) -> list[Ticket]:
        """All at once; every one is waited for even if another fails, so that none is left without its outcome."""
        recording = (self._record_intent(generation) for generation in self.generations)
        results = await asyncio.gather(*recording, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return [result for result in results if isinstance(result, Ticket)]

    async def _record_intent(self, generation: Generation) -> Ticket:
        assert generation.coverage is not None
        reservation = generation.coverage.reservation.number
        lifetime_ms = self._desk.settings.ticket_lifetime_ms
        limit = generation.token_limit
        recorded = await self._desk.auditor.record_intent(
            lambda number: self._recorder.intent(
                number, generation.index, generation.prompt, limit, reservation, lifetime_ms
            )
        )
        generation.intent_index = recorded.index
        return Ticket(recorded.index, self._asked.model, limit, recorded.expires_at_ms, recorded.mac)

    def _submit(self, generation: Generation, ticket: Ticket) -> None:
        asked = self._asked
        generation.request_id = self._desk.engines.new_request_id()
        generation.engine = self._engine
        submit = Submit(
            generation.request_id,
            ticket,
            generation.prompt,
            asked.sampling,
            asked.n,
            self._recorder.namespace,
            asked.priority,
            max(1, int(self._time_left_s * 1000)),
            caches_output=not asked.stops,
        )
        self._engine.submit(submit, generation)

    @property
    def _time_left_s(self) -> float:
        return self._arrived_at + self._desk.settings.request_timeout_s - time.monotonic()

    async def batches(self) -> AsyncGenerator[list[Piece], None]:
        """(6) The answer as it comes: all that is there, at once. When it ends, the outcomes are durable (7).

        Raises: GatewayFault for whatever cuts it short.
        """
        timeout_s = self._desk.settings.request_timeout_s
        late = DeadlineExceeded("deadline_exceeded", f"the answer took longer than {timeout_s:g} s")
        # A second later than the engine's own deadline, which is the better place to end it.
        timer = asyncio.get_running_loop().call_later(max(0.0, self._time_left_s) + 1.0, self.fail, late)
        try:
            while not all(generation.is_done for generation in self.generations):
                pieces: list[Piece] = []
                for generation, delivery in await self._mailbox.take():
                    piece = await self._handle(generation, delivery)
                    if piece is not None:
                        pieces.append(piece)
                if pieces:
                    yield pieces
        finally:
            timer.cancel()
        # (7)
        await self._record_outcomes(None)

    async def _handle(self, generation: Generation, delivery: Delivery) -> Piece | None:
        if isinstance(delivery, PromptDelivery):
            generation.prompt_delivery = delivery
        elif not isinstance(delivery, TokenDelivery):
            generation.summary = delivery
            generation.ended_at = time.monotonic()
        elif delivery.choice < len(generation.choices) and generation.choices[delivery.choice].end is None:
            return await self._take_tokens(generation, delivery)
        return None

    async def _take_tokens(self, generation: Generation, delivery: TokenDelivery) -> Piece:
        verify_finish(delivery.finish, self._desk.settings.request_timeout_s)
        assert generation.coverage is not None
        assert generation.request_id is not None
        counted = generation.num_output_tokens
        wanted = counted + len(delivery.token_ids)
        if await generation.coverage.reach(wanted) < wanted:
            raise QuotaRefused("quota_exhausted", f"the quota ended after {counted} output tokens of this answer", 0)
        self._measure(generation)
        choice = generation.choices[delivery.choice]
        piece = choice.feed(delivery)
        if generation.engine is not None and (choice.cut or (choice.end is not None and self._asked.stops)):
            # With stop strings the engine leaves it to us which tokens count, and caches no others.
            generation.engine.cancel(generation.request_id, delivery.choice, choice.num_tokens)
        return piece

    def _measure(self, generation: Generation) -> None:
        metrics, model = self._desk.metrics, self._asked.model
        gap = generation.note_tokens()
        if gap is None:
            metrics.time_to_first_token_seconds.observe(time.monotonic() - self._arrived_at, model_name=model)
        elif len(generation.choices) == 1:
            metrics.inter_token_latency_seconds.observe(gap, model_name=model)

    async def _conclude(self, error: BaseException | None) -> None:
        """Leave nothing open, whatever happened. Runs to its end even if the task is being cancelled."""
        self._desk.close(self)
        await asyncio.shield(asyncio.get_running_loop().create_task(self._close(error)))

    async def _close(self, error: BaseException | None) -> None:
        for generation in self.generations:
            generation.cancel()
        if not all(generation.is_done for generation in self.generations):
            await self._await_summaries()
            await self._try_outcomes(error or ClientGone("abandoned", "the answer was not read to its end"))
        model = self._asked.model
        for generation in self.generations:
            if generation.coverage is not None:
                generation.coverage.close()
                self._settle(generation)
            if generation.engine is not None and generation.request_id is not None:
                generation.engine.forget(generation.request_id)
            if generation.request_id is not None:
                self._desk.metrics.e2e_request_latency_seconds.observe(
                    time.monotonic() - self._arrived_at, model_name=model
                )
                if not generation.is_done:
                    self._desk.metrics.num_aborted_requests_total.add(1, model_name=model, reason=_code(error))

    def _settle(self, generation: Generation) -> None:
        assert generation.coverage is not None
        ran = generation.request_id is not None
        prompt_tokens = generation.num_prompt_tokens if ran else 0
        self._desk.policy.settle(generation.coverage.reservation, prompt_tokens, generation.num_output_tokens)

    async def _await_summaries(self) -> None:
        """Wait a little for the counts of what was cancelled: cached tokens may still be unknown."""
        waiting = [
            generation
            for generation in self.generations
            if generation.engine is not None and generation.summary is None
        ]
        if not waiting:
            return
        mailbox = self._mailbox.reopen()
        try:
            async with asyncio.timeout(SUMMARY_WAIT_S):
                while any(generation.summary is None and generation.engine is not None for generation in waiting):
                    for generation, delivery in await mailbox.take():
                        if not isinstance(delivery, TokenDelivery):
                            await self._handle(generation, delivery)
        except (TimeoutError, GatewayFault):
            return

    async def _try_outcomes(self, error: BaseException) -> None:
        try:
            await self._record_outcomes(error)
        except GatewayFault as fault:
            # The auditor closes such an intent itself when it recovers, at the engine's count.
            log.warning("outcome_not_recorded", intent=self.intent_indices, code=fault.code)

    async def _record_outcomes(self, error: BaseException | None) -> None:
        await asyncio.gather(*(self._record_outcome(generation, error) for generation in self.generations))

    async def _record_outcome(self, generation: Generation, error: BaseException | None) -> None:
        intent_index = generation.intent_index
        if intent_index is None or generation.outcome_index is not None:
            return
        ending = self._ending(generation, error)
        recorded = await self._desk.auditor.record_outcome(
            lambda number: self._recorder.outcome(number, generation.index, intent_index, ending)
        )
        generation.outcome_index = recorded.index

    def _ending(self, generation: Generation, error: BaseException | None) -> Ending:
        first = generation.first_token_at
        end = generation.ended_at or time.monotonic()
        status = 200
        if error is not None and not self.response_started:
            status = http_of(error).status if isinstance(error, GatewayFault) else 500
        return Ending(
            reason=generation.reason if generation.is_done else _code(error),
            is_success=generation.is_done and error is None,
            http_status=status,
            counts=generation.counts,
            texts=tuple("".join(choice.texts) for choice in generation.choices),
            first_token_ms=None if first is None else round((first - self._arrived_at) * 1000),
            total_ms=round((end - self._arrived_at) * 1000),
        )


def _nothing() -> None:
    return


def _code(error: BaseException | None) -> str:
    if isinstance(error, GatewayFault):
        return error.code
    return "cancelled" if isinstance(error, asyncio.CancelledError | None) else "internal_error"
