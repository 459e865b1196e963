"""Before the first token: the quota is reserved, the intent recorded, the engine asked. Steps (2), (4) and (5).

What the quota refuses for one prompt of a request is recorded for none. The engine gets each prompt while its intent becomes
durable, and keeps all that it makes of it until the auditor has sent it the ticket; here, too, nothing is answered before that.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from appliance.gateway.errors import PeerUnavailable, QuotaRefused, http_of
from appliance.gateway.flow.coverage import Coverage
from appliance.gateway.flow.desk import Desk
from appliance.gateway.flow.generation import Generation
from appliance.gateway.flow.records import Recorder
from appliance.gateway.flow.request import Asked
from appliance.gateway.identity import Principal
from appliance.gateway.peers.engines import EnginePeer
from appliance.messages.audit import AppendOutcome, IntentRecorded
from appliance.messages.engine import Submit


class Opening:
    """Opens the generations of one request."""

    def __init__(
        self,
        desk: Desk,
        asked: Asked,
        principal: Principal,
        recorder: Recorder,
        close_late: Callable[[Generation, int], AppendOutcome],
    ) -> None:
        """`close_late` builds the outcome of an intent, from its index, that became durable after it was given up."""
        self._close_late = close_late
        self._desk = desk
        self._asked = asked
        self._principal = principal
        self._recorder = recorder

    async def reserve(self, generations: Sequence[Generation]) -> None:
        """(2) The quota: the prompt and a first block of output of each. Raises: QuotaRefused, PeerUnavailable."""
        for number, generation in enumerate(generations):
            generation.coverage = await self._reserve(generation, 0 if number else len(generations) - 1)

    async def begin(self, generations: Sequence[Generation], engine: EnginePeer, time_left_s: float) -> None:
        """(4) and (5) The auditor and the engine are asked at the same time. When this returns, all intents are durable.

        Every one is waited for even if another fails, so that none is left without its outcome.
        Raises: PeerUnavailable, InternalFault.
        """
        self._recorder.hasher = await self._desk.hashers.hasher_for(self._principal.tenant)
        self._recorder.sealing = await self._desk.bodies.key_for(self._principal.tenant)
        if len(generations) == 1:  # Nearly always, and a task for each has its price.
            await self._begin(generations[0], engine, time_left_s)
            return
        beginning = (self._begin(generation, engine, time_left_s) for generation in generations)
        for result in await asyncio.gather(*beginning, return_exceptions=True):
            if result is not None:
                raise result

    async def _begin(self, generation: Generation, engine: EnginePeer, time_left_s: float) -> None:
        generation.request_id = self._desk.engines.new_request_id()
        recorded = self._send_intent(generation, generation.request_id)
        try:
            engine.submit(self._submit(generation, generation.request_id, time_left_s), generation)
            generation.engine = engine
        except PeerUnavailable as lost:
            generation.fail(lost)  # The intent is on its way, and gets its outcome.
        generation.intent_index = (await recorded).index
        self._desk.metrics.num_requests_total.of(self._asked.model)(1)

    def _submit(self, generation: Generation, request_id: int, time_left_s: float) -> Submit:
        asked = self._asked
        return Submit(
            request_id,
            generation.prompt,
            asked.sampling,
            asked.n,
            self._recorder.namespace,
            asked.priority,
            max(1, int(time_left_s * 1000)),
            caches_output=not asked.stops,
            grammar=asked.grammar,
            wants_embedding=asked.wants_embedding,
        )

    async def _reserve(self, generation: Generation, num_further: int) -> Coverage:
        policy, limit = self._desk.policy, generation.token_limit
        try:
            reservation = await policy.reserve(
                self._principal,
                self._asked.model,
                generation.num_prompt_tokens,
                limit,
                num_further=num_further,
                is_further=generation.index > 0,
            )
        except QuotaRefused as refused:
            status = http_of(refused).status
            self._desk.auditor.report(self._recorder.denial(generation.index, refused.code, str(refused), status))
            raise
        return Coverage(policy, reservation, limit)

    def _send_intent(self, generation: Generation, request_id: int) -> Awaitable[IntentRecorded]:
        assert generation.coverage is not None
        reservation = generation.coverage.reservation.number
        lifetime_ms, limit = self._desk.settings.ticket_lifetime_ms, generation.token_limit
        index, prompt = generation.index, generation.prompt
        return self._desk.auditor.send_intent(
            lambda number: self._recorder.intent(number, index, prompt, limit, reservation, lifetime_ms, request_id),
            lambda intent_index: self._note_late(generation, intent_index),
        )

    def _note_late(self, generation: Generation, intent_index: int) -> AppendOutcome | None:
        """An intent is durable that was given up: whoever closes the generation still may record its outcome."""
        if generation.is_closed:
            return self._close_late(generation, intent_index)
        generation.intent_index = intent_index
        return None
