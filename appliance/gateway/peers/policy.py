"""Policy as the gateway sees it: tokens are reserved in blocks before they are computed, and settled after."""

import time
from dataclasses import dataclass

from appliance.gateway.errors import InternalFault, NotAllowed, QuotaRefused
from appliance.gateway.identity import Principal
from appliance.gateway.peers.links import Link
from appliance.gateway.peers.questions import Questions
from appliance.messages.policy import Denied, Extend, Granted, PolicyStatus, Reserve, Settle


@dataclass
class Reservation:
    """What one generation may still use. `life` is the life of policy that granted it: a later one does not know it."""

    number: int
    covered_tokens: int
    life: int


class PolicyPeer:
    """The one owner of quotas."""

    def __init__(self, timeout_s: float) -> None:
        self._questions = Questions("policy_unavailable", "policy", timeout_s)
        self._life = 0
        self.status: PolicyStatus | None = None
        self.status_at = 0.0

    @property
    def connected(self) -> bool:
        """There is a link."""
        return self._questions.connected

    def verify_connected(self) -> None:
        """Refuse early. Raises: PeerUnavailable."""
        if not self._questions.connected:
            raise self._questions.unavailable()

    async def run(self, link: Link) -> None:
        """Serve one link until it ends. Raises: LinkClosed."""
        self._life += 1
        self._questions.attach(link)
        try:
            while True:
                message = await link.receive()
                if isinstance(message, PolicyStatus):
                    self.status, self.status_at = message, time.monotonic()
                else:
                    self._questions.answer(message.correlation, message)
        finally:
            if self._questions.detach(link):
                self.status = None

    async def reserve(
        self, principal: Principal, model: str, prompt_tokens: int, max_output_tokens: int
    ) -> Reservation:
        """Ask whether a generation may start; reserves its prompt and a first block of output.

        Raises: QuotaRefused, PeerUnavailable.
        """
        life = self._life
        answer = await self._questions.ask(
            lambda number: Reserve(
                number,
                principal.client_id,
                principal.subject,
                principal.tenant,
                principal.role,
                model,
                prompt_tokens,
                max_output_tokens,
            )
        )
        granted = _granted(answer)
        return Reservation(granted.reservation, granted.output_tokens, life)

    async def extend(self, reservation: Reservation) -> None:
        """Ask for the next block of a running generation. Raises: QuotaRefused, PeerUnavailable."""
        if reservation.life != self._life:
            raise self._questions.unavailable("was restarted while the answer ran")
        granted = _granted(await self._questions.ask(lambda number: Extend(number, reservation.number)))
        reservation.covered_tokens = max(reservation.covered_tokens, granted.output_tokens)

    def settle(self, reservation: Reservation, prompt_tokens: int, output_tokens: int) -> None:
        """A generation ended. A policy that has lost its memory since rebuilds it from the log, so it need not be told."""
        if reservation.life == self._life:
            self._questions.tell(Settle(reservation.number, prompt_tokens, output_tokens))


def _granted(answer: object) -> Granted:
    if isinstance(answer, Granted):
        return answer
    if isinstance(answer, Denied):
        family = NotAllowed if answer.code in ("model_not_allowed", "client_disabled") else QuotaRefused
        raise family(answer.code, answer.message, answer.retry_after_s)
    raise InternalFault("policy_refused", f"policy answered with {type(answer).__name__}")
