"""Policy as the gateway sees it: quotas, static keys, what may be used once, and which tokens are void.

Tokens are reserved in blocks before they are computed, and settled after. When policy is started again, reservations that
are open here are resumed with it, so that a kill gives nobody a fresh quota, and streams that did not need policy meanwhile
go on.
"""

import time
from collections.abc import Sequence
from typing import Any

import msgspec
import structlog

from appliance.gateway.errors import GatewayFault, InternalFault, NotAllowed, QuotaRefused
from appliance.gateway.identity import Principal
from appliance.gateway.peers.links import Link
from appliance.gateway.peers.questions import Questions
from appliance.gateway.quota_headers import quota_headers
from appliance.messages.policy import (
    CheckKey,
    Denied,
    Extend,
    FilterModels,
    Granted,
    KeyHolder,
    Lookup,
    LookupGranted,
    ModelsAllowed,
    NonceKey,
    PolicyStatus,
    Reserve,
    Resume,
    Revocations,
    Settle,
    UsedOnce,
    UseOnce,
)
from security.oauth.dpop_nonces import MemoryStart
from security.oauth.revocations import RevocationList

FRESH_S = 2.0
"""Policy speaks twice a second; what is silent for longer may have revoked something that we were not told."""

log = structlog.get_logger(__name__)


class Reservation:
    """What one generation may still use. `life` is the life of policy that knows it."""

    __slots__ = ("asked", "covered_tokens", "life", "number")

    def __init__(self, number: int, covered_tokens: int, life: int, asked: Reserve) -> None:
        self.number = number
        self.covered_tokens = covered_tokens
        self.life = life
        self.asked = asked


class PolicyPeer:
    """The one owner of quotas."""

    def __init__(self, timeout_s: float) -> None:
        self._questions = Questions("policy_unavailable", "policy", timeout_s)
        self._life = 0
        self._open: set[Reservation] = set()
        self.revocations = RevocationList()
        self.nonce_key: bytes | None = None
        self.memory = MemoryStart(0.0)
        self.status: PolicyStatus | None = None
        self.status_at = 0.0

    @property
    def connected(self) -> bool:
        """There is a link."""
        return self._questions.connected

    def verify_connected(self) -> None:
        """Refuse early. Raises: PeerUnavailable."""
        self._questions.verify_connected()

    def verify_fresh(self) -> None:
        """Refuse to believe a token while revocations may be missed. Raises: PeerUnavailable."""
        self.verify_connected()
        if self.status is None or time.monotonic() - self.status_at > FRESH_S:
            raise self._questions.unavailable("is silent")

    async def run(self, link: Link) -> None:
        """Serve one link until it ends. Raises: LinkClosed."""
        self._life += 1
        self._questions.attach(link)
        try:
            self._resume_open(link)
            await link.serve(self._handle)
        finally:
            if self._questions.detach(link):
                self.status = None

    async def reserve(
        self,
        principal: Principal,
        model: str,
        prompt_tokens: int,
        max_output_tokens: int,
        *,
        num_further: int = 0,
        is_further: bool = False,
    ) -> Reservation:
        """Ask whether a generation may start; reserves its prompt and a first block of output. What is granted too late is given
        back.

        Args:
            num_further: prompts of the same list that will be asked for next.
            is_further: it is one of those.
        Raises: QuotaRefused, PeerUnavailable.
        """
        life = self._life
        asked = _asked_by(principal, model, prompt_tokens, max_output_tokens, num_further, is_further)
        answer = await self._questions.ask(
            lambda number: msgspec.structs.replace(asked, correlation=number), self._give_back
        )
        if isinstance(answer, Granted | Denied):
            principal.notice.headers = quota_headers(answer.requests_left, answer.tokens_left, answer.day_tokens_left)
        granted = _granted(answer)
        reservation = Reservation(granted.reservation, granted.output_tokens, life, asked)
        self._open.add(reservation)
        return reservation

    async def look_up(self, principal: Principal, model: str) -> None:
        """Ask whether a request may use a model's tokenizer, which takes no tokens. Raises: QuotaRefused, PeerUnavailable."""
        asked = _asked_by(principal, model)
        answer = await self._questions.ask(lambda number: Lookup(msgspec.structs.replace(asked, correlation=number)))
        if isinstance(answer, LookupGranted):
            principal.notice.headers = quota_headers(answer.lookups_left, None, None)
            return
        if isinstance(answer, Denied):
            principal.notice.headers = quota_headers(answer.requests_left, None, None)
        _granted(answer)

    async def filter_models(self, principal: Principal, models: Sequence[str]) -> tuple[str, ...]:
        """Those of `models` that the principal may use, in their order. Raises: PeerUnavailable."""
        asked = _asked_by(principal, "")
        answer = await self._questions.ask(
            lambda number: FilterModels(msgspec.structs.replace(asked, correlation=number), tuple(models))
        )
        if isinstance(answer, ModelsAllowed):
            return answer.models
        raise InternalFault("policy_refused", f"policy answered with {type(answer).__name__}")

    async def extend(self, reservation: Reservation) -> None:
        """Ask for the next block of a running generation. Raises: QuotaRefused, PeerUnavailable."""
        if reservation.life != self._life:
            raise self._questions.unavailable("was restarted while the answer ran")
        granted = _granted(await self._questions.ask(lambda number: Extend(number, reservation.number)))
        reservation.covered_tokens = max(reservation.covered_tokens, granted.output_tokens)

    def settle(
        self,
        reservation: Reservation,
        prompt_tokens: int,
        output_tokens: int,
        *,
        is_recorded: bool = True,
        is_begun: bool = True,
    ) -> None:
        """A generation ended. A policy that has lost its memory since rebuilds it from the log, so it need not be told. One that
        was not recorded may be told of again.

        Args:
            is_recorded: False where the log may have another count than this one: the engine's, or that of a late intent.
            is_begun: False where no intent was sent.
        """
        self._open.discard(reservation)
        if reservation.life == self._life:
            self._questions.tell(Settle(reservation.number, prompt_tokens, output_tokens, is_recorded, is_begun))

    async def check_key(self, digest: bytes, address: str) -> KeyHolder | None:
        """Whose a static key is; None if it is not good from this address. Raises: PeerUnavailable."""
        answer = await self._questions.ask(lambda number: CheckKey(number, digest, address))
        return answer if isinstance(answer, KeyHolder) else None

    async def use_once(self, digest: bytes, lifetime_s: int) -> bool:
        """Whether this is used for the first time by anybody. Raises: PeerUnavailable."""
        answer = await self._questions.ask(lambda number: UseOnce(number, digest, lifetime_s))
        return isinstance(answer, UsedOnce) and answer.is_first

    def _give_back(self, answer: object) -> None:
        """Nobody uses it."""
        if isinstance(answer, Granted):
            self._questions.tell(Settle(answer.reservation, 0, 0, is_begun=False))

    def _handle(self, message: Any) -> None:
        if isinstance(message, PolicyStatus):
            self.status, self.status_at = message, time.monotonic()
            self.revocations.forget_expired()
        elif isinstance(message, NonceKey):
            self.nonce_key, self.memory = message.key, MemoryStart(message.began_at)
        elif isinstance(message, Revocations):
            self.revocations.replace(message.entries)
        else:
            self._questions.answer(message.correlation, message)

    def _resume_open(self, link: Link) -> None:
        """Tell a new life of policy what is open: sent before anything else can be asked on the link, so nothing overtakes it."""
        for reservation in self._open:
            number = self._questions.expect(lambda answer, held=reservation: self._note_resumed(held, answer))  # type: ignore[misc]
            asked = msgspec.structs.replace(reservation.asked, correlation=number)
            link.send(Resume(asked, reservation.covered_tokens, reservation.number))

    def _note_resumed(self, reservation: Reservation, answer: object) -> None:
        if isinstance(answer, GatewayFault):
            return  # The link ended again; the next life is told anew.
        if not isinstance(answer, Granted):
            log.warning("reservation_not_resumed", client_id=reservation.asked.client_id)
        elif reservation in self._open:
            reservation.number, reservation.life = answer.reservation, self._life
        else:  # It ended while the answer was on its way, and is in the log.
            self._questions.tell(Settle(answer.reservation, 0, 0))


def _asked_by(
    principal: Principal,
    model: str,
    prompt_tokens: int = 0,
    max_output_tokens: int = 0,
    num_further: int = 0,
    is_further: bool = False,
) -> Reserve:
    return Reserve(
        0,
        principal.client_id,
        principal.subject,
        principal.tenant,
        principal.role,
        model,
        prompt_tokens,
        max_output_tokens,
        principal.is_registered,
        num_further,
        is_further,
    )


def _granted(answer: object) -> Granted:
    if isinstance(answer, Granted):
        return answer
    if isinstance(answer, Denied):
        family = NotAllowed if answer.code in ("model_not_allowed", "client_disabled") else QuotaRefused
        raise family(answer.code, answer.message, answer.retry_after_s)
    raise InternalFault("policy_refused", f"policy answered with {type(answer).__name__}")
