"""One HTTP request's answer, from the quota to the outcome. The steps are numbered as ARCHITECTURE.md numbers them.

The order is fixed: what the quota refuses is never recorded as an intent, nothing is answered before the auditor has made the
intent durable, though the engine may have begun, and the last event of an answer waits for the outcome. Quota needs the number
of the prompt's tokens, so (3), template and tokenizer, has run before (2) ends; what those may cost is bounded by the body's
size and a clock.
"""

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

import structlog

from appliance.gateway.errors import ClientGone, DeadlineExceeded, GatewayFault, InternalFault, QuotaRefused
from appliance.gateway.flow.choice import Piece
from appliance.gateway.flow.closing import Closing, status_of
from appliance.gateway.flow.desk import Desk
from appliance.gateway.flow.generation import Generation, Unread, verify_finish
from appliance.gateway.flow.mailbox import Mailbox
from appliance.gateway.flow.opening import Opening
from appliance.gateway.flow.records import Recorder, Source
from appliance.gateway.flow.request import Asked
from appliance.gateway.identity import Principal
from appliance.gateway.observing import EndedInference, ReadAnswer
from appliance.gateway.text.vocabulary import Vocabulary
from runtime.request import TokenDelivery

log = structlog.get_logger(__name__)

SUMMARY_WAIT_S = 1.0
"""How long an answer that was cut short waits for the engine's last word."""


class Sink(Protocol):
    """Takes pieces without waiting, for as long as its client keeps up."""

    @property
    def is_ready(self) -> bool:
        """Whether it can take one now."""
        ...

    def take(self, piece: Piece) -> None:
        """Bring a piece on its way."""
        ...


class Answer:
    """An asynchronous context: entering it performs (2) to (5), `next_pieces` gives (6), leaving it makes sure of (7).

    Attributes:
        generations: one for each prompt.
        response_started: set by the caller when the status line is out: the outcome names the status.
        on_fail: called when the answer is ended from outside; the caller may be waiting for its client just then.
        sink: set by the caller once it streams. An ordinary token that finds everything before it dealt with goes there in
            the call that brings it, and wakes nobody; all others are read by `next_pieces`.
    """

    def __init__(
        self, desk: Desk, asked: Asked, principal: Principal, source: Source, vocabulary: Vocabulary, arrived_at: float
    ) -> None:
        self._desk = desk
        self._asked = asked
        self._arrived_at = arrived_at
        self._mailbox: Mailbox[tuple[Generation, Unread]] = Mailbox(desk.settings.max_unread_tokens, self.fail)
        self._engine = desk.engines.for_model(asked.model)
        recorder = Recorder(
            principal,
            source,
            asked,
            engine_build=self._engine.facts.engine_build,
            engine_instance=self._engine.instance,
            vocabulary=vocabulary,
        )
        self._closing = Closing(desk, recorder, asked.model, arrived_at)
        self._opening = Opening(desk, asked, principal, recorder, self._closing.close_late)
        self.generations = [
            Generation(asked, index, vocabulary, self._mailbox, self.fail, self._take_at_once)
            for index in range(len(asked.prompts))
        ]
        self.response_started = False
        self.sink: Sink | None = None
        self._inter_token_latency = desk.metrics.inter_token_latency_seconds.of(asked.model)
        self.on_fail: Callable[[], object] = _nothing
        self._cut_by: GatewayFault | None = None
        """What the pieces that were read last led to."""
        self._timer: asyncio.TimerHandle | None = None

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
        """The outcomes' indices, known when no pieces are left."""
        return ",".join(str(generation.outcome_index) for generation in self.generations)

    def describe(self, *, is_streamed: bool = False, read: ReadAnswer | None = None) -> EndedInference:
        """What an observer is told when it is over; `read` where the API tells calls and reasoning from text."""
        sampling, generations = self._asked.sampling, self.generations
        firsts = [one.first_token_at for one in generations if one.first_token_at is not None]
        return EndedInference(
            request_id=self._asked.uid,
            route=self._asked.route,
            model=self._asked.model,
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=sampling.seed,
            top_k=max(sampling.top_k, 0),
            frequency_penalty=sampling.frequency_penalty,
            presence_penalty=sampling.presence_penalty,
            num_choices=self._asked.n,
            is_streamed=is_streamed,
            is_embedding=self._asked.wants_embedding,
            finish_reasons=self._engine_reasons if read is None else read.finish_reasons,
            prompt_tokens=sum(one.num_prompt_tokens for one in generations),
            cached_tokens=sum(one.num_cached_tokens for one in generations),
            output_tokens=sum(one.num_output_tokens for one in generations),
            reasoning_tokens=None if read is None else read.reasoning_tokens,
            duration_s=time.monotonic() - self._arrived_at,
            first_token_s=min(firsts) - self._arrived_at if firsts else None,
            intents=[one.intent_index for one in generations if one.intent_index is not None],
        )

    @property
    def _engine_reasons(self) -> list[str]:
        return [choice.end.reason for one in self.generations for choice in one.choices if choice.end is not None]

    def fail(self, fault: GatewayFault) -> None:
        """End the answer from outside: the client left, the auditor is gone, the appliance stops."""
        self._mailbox.fail(fault)
        self.on_fail()

    def client_left(self) -> None:
        """Nobody reads the answer any more."""
        self.fail(ClientGone("client_disconnected", "the client left"))

    async def __aenter__(self) -> Self:
        self._desk.open(self)
        try:
            await self._start()
        except BaseException as error:
            await self._conclude(error)
            raise
        # A second later than the engine's own deadline, which is the better place to end it.
        self._timer = asyncio.get_running_loop().call_later(max(0.0, self._time_left_s) + 1.0, self._fail_late)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._conclude(error)

    async def _start(self) -> None:
        # (2) the quota; (5) the engine is asked while the intents become durable, (4), which they are from here on.
        await self._opening.reserve(self.generations)
        if self._mailbox.fault is not None:
            raise self._mailbox.fault
        await self._opening.begin(self.generations, self._engine, self._time_left_s)
        if self._mailbox.fault is not None:
            raise self._mailbox.fault

    @property
    def _time_left_s(self) -> float:
        return self._arrived_at + self._desk.settings.request_timeout_s - time.monotonic()

    async def next_pieces(self) -> list[Piece]:
        """(6) The answer as it comes: all that is there, at once. None are left when the outcomes are durable (7).

        Raises: GatewayFault for whatever cuts it short.
        """
        while self._cut_by is None and not self._is_done:
            if pieces := await self._read():
                return pieces
        self._cancel_timer()
        if self._cut_by is not None:
            raise self._cut_by
        # (7)
        await self._closing.record_outcomes(self.generations, None, 200)
        for generation in self.generations:
            # Before the client hears of the end: its next request may reach policy by another worker, before this could.
            self._closing.settle(generation)
        return []

    @property
    def _is_done(self) -> bool:
        return False not in [generation.is_done for generation in self.generations]

    def _fail_late(self) -> None:
        timeout_s = self._desk.settings.request_timeout_s
        self.fail(DeadlineExceeded("deadline_exceeded", f"the answer took longer than {timeout_s:g} s"))

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _read(self) -> list[Piece]:
        """All that is there, up to what ends the answer: the client gets what it is charged for. Raises: GatewayFault."""
        pieces: list[Piece] = []
        for generation, delivery in await self._mailbox.take():
            if not isinstance(delivery, TokenDelivery):
                generation.take_summary(delivery)
            elif delivery.choice < len(generation.choices) and generation.choices[delivery.choice].end is None:
                try:
                    verify_finish(delivery.finish, self._desk.settings.request_timeout_s)
                    if not generation.covers(len(delivery.token_ids)):
                        await self._cover(generation, len(delivery.token_ids))
                except GatewayFault as fault:
                    self._cut_by = fault
                    break
                pieces.append(self._take_tokens(generation, delivery))
        return pieces

    async def _cover(self, generation: Generation, num_tokens: int) -> None:
        """Wait until policy covers so many more tokens. Raises: QuotaRefused, PeerUnavailable."""
        assert generation.coverage is not None
        counted = generation.num_output_tokens
        if await generation.coverage.reach(counted + num_tokens) < counted + num_tokens:
            raise QuotaRefused("quota_exhausted", f"the quota ended after {counted} output tokens of this answer", 0)

    def _take_tokens(self, generation: Generation, delivery: TokenDelivery) -> Piece:
        self._measure(generation)
        piece = generation.choices[delivery.choice].feed(delivery)
        if piece.end is not None:
            self._cancel_if_cut(generation, delivery.choice)
        return piece

    def _take_at_once(self, generation: Generation, index: int, token_id: int) -> bool:
        """An ordinary token whose turn it is goes straight to the client; False: it has to wait in line."""
        sink = self.sink
        if sink is None or not self._mailbox.is_idle or index >= len(generation.choices):
            return False
        choice = generation.choices[index]
        if choice.end is not None or not sink.is_ready or not generation.covers(1):
            return False
        self._measure(generation)
        try:
            piece = choice.feed_token(token_id)
            if piece.end is not None:
                self._cancel_if_cut(generation, index)
            sink.take(piece)
        except Exception:  # This runs on the engine's link, where one request's fault must end nothing else.
            log.exception("request_failed", request_id=self._asked.uid)
            self.fail(InternalFault("internal_error", f"an internal error, recorded with id {self._asked.uid}"))
        return True

    def _cancel_if_cut(self, generation: Generation, index: int) -> None:
        """A choice has ended. With stop strings the engine leaves it to us which tokens count, and caches no others."""
        choice = generation.choices[index]
        if generation.engine is not None and (choice.cut or self._asked.stops):
            assert generation.request_id is not None
            generation.engine.cancel(generation.request_id, index, choice.num_tokens)

    def _measure(self, generation: Generation) -> None:
        gap = generation.note_tokens()
        if gap is None:
            took_s = generation.last_token_at - self._arrived_at
            self._desk.metrics.time_to_first_token_seconds.of(self._asked.model)(took_s)
        elif len(generation.choices) == 1:
            self._inter_token_latency(gap)

    async def _conclude(self, error: BaseException | None) -> None:
        """Leave nothing open, whatever happened. Runs to its end even if the task is being cancelled."""
        self._desk.close(self)
        self._cancel_timer()
        if error is None and self._is_done:
            self._settle(None)  # Nothing is left to wait for.
        else:
            await asyncio.shield(asyncio.get_running_loop().create_task(self._close(error)))
        self._let_go()

    def _let_go(self) -> None:
        """Of all that holds this answer. Cycles would wait for the collector, which then stops the worker for 20 ms."""
        self.on_fail, self.sink, self._cut_by = _nothing, None, None
        self._mailbox.let_go()
        for generation in self.generations:
            generation.let_go()

    async def _close(self, error: BaseException | None) -> None:
        for generation in self.generations:
            generation.cancel()
        if not self._is_done:
            await self._await_summaries()
            error = error or ClientGone("abandoned", "the answer was not read to its end")
        if error is not None:
            status = status_of(error, response_started=self.response_started)
            for generation in self.generations:
                generation.is_closed = True
            await self._closing.try_outcomes(self.generations, error, status)
        self._settle(error)

    def _settle(self, error: BaseException | None) -> None:
        for generation in self.generations:
            self._closing.settle(generation)
            self._closing.measure(generation, error)
            if generation.engine is not None and generation.request_id is not None:
                generation.engine.forget(generation.request_id)

    async def _await_summaries(self) -> None:
        """Wait a little for the counts of what was cancelled: cached tokens may still be unknown."""
        waiting = [
            generation
            for generation in self.generations
            if generation.engine is not None and generation.summary is None
        ]
        if not waiting:
            return
        try:
            async with asyncio.timeout(SUMMARY_WAIT_S):
                while any(generation.summary is None and generation.engine is not None for generation in waiting):
                    await self._take_summaries()
        except TimeoutError:
            return

    async def _take_summaries(self) -> None:
        """What engines say now of the counts; one that is refused or lost says nothing more, and the others may."""
        try:
            for generation, delivery in await self._mailbox.take():
                if not isinstance(delivery, TokenDelivery):
                    generation.take_summary(delivery)
        except GatewayFault:
            self._mailbox.reopen()


def _nothing() -> None:
    return
