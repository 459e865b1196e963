"""Before the first token: the quota is reserved, the intent recorded, the engine asked. Steps (2), (4) and (5).

Each step is taken for all prompts of a request before the next begins: what the quota refuses for one of them is recorded for
none, and none is computed before all of their intents are durable.
"""

import asyncio
from collections.abc import Callable, Sequence

from appliance.gateway.errors import QuotaRefused, http_of
from appliance.gateway.flow.coverage import Coverage
from appliance.gateway.flow.desk import Desk
from appliance.gateway.flow.generation import Generation
from appliance.gateway.flow.records import Recorder
from appliance.gateway.flow.request import Asked
from appliance.gateway.identity import Principal
from appliance.gateway.peers.engines import EnginePeer
from appliance.messages.audit import AppendOutcome
from appliance.messages.engine import Submit, Ticket


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
        for generation in generations:
            generation.coverage = await self._reserve(generation)

    async def record_intents(self, generations: Sequence[Generation]) -> list[Ticket]:
        """(4) All at once; every one is waited for even if another fails, so that none is left without its outcome.

        Raises: PeerUnavailable, InternalFault.
        """
        self._recorder.hasher = await self._desk.hashers.hasher_for(self._principal.tenant)
        self._recorder.sealing = await self._desk.bodies.key_for(self._principal.tenant)
        if len(generations) == 1:  # Nearly always, and a task for each has its price.
            return [await self._record_intent(generations[0])]
        recording = (self._record_intent(generation) for generation in generations)
        results = await asyncio.gather(*recording, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return [result for result in results if isinstance(result, Ticket)]

    def submit(
        self, generations: Sequence[Generation], tickets: Sequence[Ticket], engine: EnginePeer, time_left_s: float
    ) -> None:
        """(5) The engine, which takes nothing without the auditor's ticket. Raises: PeerUnavailable."""
        asked, namespace = self._asked, self._recorder.namespace
        for generation, ticket in zip(generations, tickets, strict=True):
            generation.request_id = self._desk.engines.new_request_id()
            generation.engine = engine
            submit = Submit(
                generation.request_id,
                ticket,
                generation.prompt,
                asked.sampling,
                asked.n,
                namespace,
                asked.priority,
                max(1, int(time_left_s * 1000)),
                caches_output=not asked.stops,
                grammar=asked.grammar,
                wants_embedding=asked.wants_embedding,
            )
            engine.submit(submit, generation)
            self._desk.metrics.num_requests_total.add(1, model_name=asked.model)

    async def _reserve(self, generation: Generation) -> Coverage:
        policy, limit = self._desk.policy, generation.token_limit
        try:
            reservation = await policy.reserve(self._principal, self._asked.model, generation.num_prompt_tokens, limit)
        except QuotaRefused as refused:
            status = http_of(refused).status
            self._desk.auditor.report(self._recorder.denial(generation.index, refused.code, str(refused), status))
            raise
        return Coverage(policy, reservation, limit)

    async def _record_intent(self, generation: Generation) -> Ticket:
        assert generation.coverage is not None
        reservation = generation.coverage.reservation.number
        lifetime_ms, limit = self._desk.settings.ticket_lifetime_ms, generation.token_limit
        index, prompt = generation.index, generation.prompt
        recorded = await self._desk.auditor.record_intent(
            lambda number: self._recorder.intent(number, index, prompt, limit, reservation, lifetime_ms),
            lambda intent_index: self._close_late(generation, intent_index),
        )
        generation.intent_index = recorded.index
        return Ticket(recorded.index, self._asked.model, limit, recorded.expires_at_ms, recorded.mac)
