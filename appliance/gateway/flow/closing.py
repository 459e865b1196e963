"""After the last token, or whatever ended a request instead: outcomes are recorded, the quota is settled. Step (7)."""

import asyncio
import time
from collections.abc import Sequence

import structlog

from appliance.gateway.errors import GatewayFault, PeerUnavailable, http_of
from appliance.gateway.flow.desk import Desk
from appliance.gateway.flow.generation import Generation
from appliance.gateway.flow.records import Ending, Recorder
from appliance.gateway.peers.auditor import TOLD
from appliance.gateway.peers.policy import Reservation
from appliance.messages.audit import AppendOutcome

log = structlog.get_logger(__name__)


class Closing:
    """Closes the generations of one request. Each part may run again: what is done is not done twice."""

    def __init__(self, desk: Desk, recorder: Recorder, model: str, arrived_at: float) -> None:
        self._desk = desk
        self._recorder = recorder
        self._model = model
        self._arrived_at = arrived_at

    async def record_outcomes(
        self, generations: Sequence[Generation], error: BaseException | None, http_status: int
    ) -> None:
        """Record how each ended; durable when this returns. Raises: PeerUnavailable, InternalFault."""
        if len(generations) == 1:
            await self._record(generations[0], error, http_status)
            return
        await asyncio.gather(*(self._record(generation, error, http_status) for generation in generations))

    async def try_outcomes(self, generations: Sequence[Generation], error: BaseException, http_status: int) -> None:
        """Record what is not recorded yet. An auditor that is gone closes such intents itself, at the engine's count."""
        try:
            await self.record_outcomes(generations, error, http_status)
        except GatewayFault as fault:
            intents = [generation.intent_index for generation in generations]
            log.warning("outcome_not_recorded", intents=intents, code=fault.code)

    def close_late(self, generation: Generation, intent_index: int) -> AppendOutcome:
        """The outcome of an intent that became durable when nobody waited for it any more: the engine has thrown away its work. The
        quota counts what the log does.
        """
        generation.is_late = True
        if generation.settled is not None:
            self._tell_policy(generation, generation.settled)
        error = PeerUnavailable("audit_unavailable", "the intent was not durable in time")
        ending = self._ending(generation, error, http_of(error).status)
        return self._recorder.outcome(TOLD, generation.index, intent_index, ending)

    def settle(self, generation: Generation) -> None:
        """Give back what was reserved and not used; a prompt that was never recorded costs nothing.

        Of what the auditor does not know to have ended it says later what it came to.
        """
        coverage, generation.coverage = generation.coverage, None
        if coverage is None:
            return
        coverage.close()
        generation.settled = coverage.reservation
        self._tell_policy(generation, coverage.reservation)

    def _tell_policy(self, generation: Generation, reservation: Reservation) -> None:
        is_in_log = generation.intent_index is not None or generation.is_late
        prompt_tokens = generation.num_prompt_tokens if is_in_log else 0
        is_recorded = generation.request_id is None or generation.outcome_index is not None
        self._desk.policy.settle(
            reservation,
            prompt_tokens,
            generation.num_output_tokens,
            is_recorded=is_recorded,
            is_begun=generation.request_id is not None,
        )

    def measure(self, generation: Generation, error: BaseException | None) -> None:
        """Count the end of what was recorded."""
        if generation.intent_index is None:
            return
        metrics = self._desk.metrics
        metrics.e2e_request_latency_seconds.of(self._model)(time.monotonic() - self._arrived_at)
        if error is not None:
            metrics.num_aborted_requests_total.add(1, model_name=self._model, reason=code_of(error))

    async def _record(self, generation: Generation, error: BaseException | None, http_status: int) -> None:
        intent_index = generation.intent_index
        if intent_index is None or generation.outcome_index is not None:
            return
        ending = self._ending(generation, error, http_status)
        recorded = await self._desk.auditor.record_outcome(
            lambda number: self._recorder.outcome(number, generation.index, intent_index, ending)
        )
        generation.outcome_index = recorded.index

    def _ending(self, generation: Generation, error: BaseException | None, http_status: int) -> Ending:
        first = generation.first_token_at
        end = generation.ended_at or time.monotonic()
        return Ending(
            reason=generation.reason if error is None else code_of(error),
            is_success=error is None,
            http_status=http_status,
            counts=generation.counts,
            texts=tuple("".join(choice.texts) for choice in generation.choices),
            first_token_ms=None if first is None else round((first - self._arrived_at) * 1000),
            total_ms=round((end - self._arrived_at) * 1000),
            num_cut=sum(choice.cut for choice in generation.choices),
        )


def status_of(error: BaseException | None, *, response_started: bool) -> int:
    """The status that the client got, or gets."""
    if error is None or response_started:
        return 200
    return http_of(error).status if isinstance(error, GatewayFault) else 500


def code_of(error: BaseException) -> str:
    """The stable word for what ended a request."""
    if isinstance(error, GatewayFault):
        return error.code
    return "cancelled" if isinstance(error, asyncio.CancelledError) else "internal_error"
