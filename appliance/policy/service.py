"""Answers to gateways: quotas, static keys, what may be used once; and every revocation, told at once.

A message is answered in the call that brings it. Only who is not known waits for another look at the definitions, and holds up
nobody else. A gateway's reservations live exactly as long as its link: when it ends, they are released, and count as used until the
auditor has closed the requests. When the definitions cannot
be read the link is closed, so that gateways say that policy is away rather than decide without it.
"""

import asyncio
import itertools
import time
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
import structlog

from appliance.errors import LinkClosed
from appliance.messages.policy import (
    CheckKey,
    Denied,
    Extend,
    FilterModels,
    Granted,
    KeyHolder,
    Left,
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
from security.errors import SecurityUnavailable
from security.oauth.dpop_nonces import make_nonce_key
from security.oauth.revocations import Revocation
from security.policy.allowances import Allowance, Allowances
from security.policy.decisions import PolicyDecider, Refusal, RequestFacts, find_refusal, is_upstream
from security.policy.definitions import Definitions
from security.policy.denials import QuotaDenial
from security.policy.quotas import QuotaGrant
from security.policy.replay import ReplayMemory
from security.scopes import Role, format_scopes
from security.static_keys import hash_key_digest

STATUS_INTERVAL_S = 0.5
TICKS_PER_CLEANING = 120

log = structlog.get_logger(__name__)


class PeerLink(Protocol):
    """What is needed of `appliance.ipc.link.Link` to tell somebody."""

    def send(self, message: msgspec.Struct) -> None:
        """Raises: LinkClosed."""


class GatewayLink(PeerLink, Protocol):
    """And to answer."""

    async def serve(self, handle: Callable[[Any], None]) -> None:
        """Raises: LinkClosed, and what `handle` raises."""


class DefinitionsSource(Protocol):
    """What is needed of `store.DefinitionsStore`."""

    @property
    def current(self) -> Definitions:
        """Raises: SecurityUnavailable."""

    async def look(self) -> Definitions:
        """Raises: SecurityUnavailable."""


class PolicyService:
    """Answers gateways, and tells them once in a while how things stand."""

    def __init__(
        self,
        definitions: DefinitionsSource,
        decider: PolicyDecider,
        replays: ReplayMemory,
        credentials_key: bytes,
        *,
        utc_s: Callable[[], float] = time.time,
    ) -> None:
        self._definitions = definitions
        self._decider = decider
        self._quotas = decider.quotas
        self._replays = replays
        self._credentials_key = credentials_key
        self._utc_s = utc_s
        self._nonce_key = NonceKey(make_nonce_key(), utc_s())
        self._told: tuple[Revocation, ...] = ()
        self._listeners: dict[int, PeerLink] = {}
        self._gateways: dict[int, PeerLink] = {}
        self._owners = itertools.count(1)

    async def run(self, link: GatewayLink) -> None:
        """Serve one gateway until its link ends.

        Raises: LinkClosed.
        """
        owner = next(self._owners)
        self._gateways[owner] = self._listeners[owner] = link
        try:
            link.send(Revocations((await self._definitions.look()).revocations))
            link.send(self._nonce_key)
            link.send(self._status())
            await self._serve(owner, link)
        except SecurityUnavailable as error:
            log.error("definitions_unreadable", reason=str(error))
        finally:
            del self._gateways[owner], self._listeners[owner]
            released = self._quotas.release_owner(owner)
            if released:
                log.warning("reservations_released", number=released)

    async def report(self) -> None:
        """Send the status for ever; to be cancelled."""
        tick = 0
        while True:
            await asyncio.sleep(STATUS_INTERVAL_S)
            tick += 1
            if tick % TICKS_PER_CLEANING == 0:
                self._quotas.forget_idle()
            try:
                _ = self._definitions.current
            except SecurityUnavailable:
                continue  # A gateway that hears nothing stops accepting tokens, as it may have missed a revocation.
            self._tell(self._gateways, self._status())

    def add_listener(self, link: PeerLink) -> int:
        """Tell this link of revocations too, the authority's. Returns: a number for `remove_listener`."""
        number = next(self._owners)
        self._listeners[number] = link
        return number

    def remove_listener(self, number: int) -> None:
        """Tell it no more."""
        del self._listeners[number]

    def tell_changed(self, definitions: Definitions) -> None:
        """The definitions are others now: gateways hear of new revocations before anybody is told that they stand."""
        if definitions.revocations != self._told:
            self._told = definitions.revocations
            self._tell(self._listeners, Revocations(self._told))

    def _tell(self, links: dict[int, PeerLink], message: msgspec.Struct) -> None:
        for link in list(links.values()):
            try:
                link.send(message)
            except LinkClosed:
                continue  # Its own task sees the end and releases what it held.

    async def _serve(self, owner: int, link: GatewayLink) -> None:
        """Raises: LinkClosed, SecurityUnavailable."""
        unknown: list[Any] = []
        came = asyncio.Event()

        def answer(message: Any) -> None:
            found = self._answer(owner, message)
            if found is not None:
                link.send(found)

        def take(message: Any) -> None:
            if self._is_known(message):
                answer(message)
            else:
                unknown.append(message)
                came.set()

        async def look_for_unknown() -> None:
            while True:
                await came.wait()
                came.clear()
                waiting, unknown[:] = unknown[:], []
                await self._definitions.look()
                for message in waiting:
                    answer(message)

        tasks = [asyncio.ensure_future(link.serve(take)), asyncio.ensure_future(look_for_unknown())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        for failure in ended:
            if isinstance(failure, Exception):
                raise failure

    def _is_known(self, message: Any) -> bool:
        """Whom a message is about. Raises: SecurityUnavailable."""
        match message:
            case Reserve():
                return not message.is_registered or _knows(self._definitions.current, message)
            case Lookup() | FilterModels():
                return self._is_known(message.reserve)
            case CheckKey():
                return self._stored(message) in self._definitions.current.static_keys
        return True

    def _answer(self, owner: int, message: Any) -> msgspec.Struct | None:
        """By the definitions as they are now. Raises: SecurityUnavailable."""
        match message:
            case Reserve():
                return self._reserve(owner, message)
            case Resume():
                return self._resume(owner, message)
            case Lookup():
                return self._look_up(message.reserve)
            case FilterModels():
                return self._filter_models(message)
            case Extend():
                answer = self._quotas.extend(message.reservation, owner)
                return _answer_quota(message.correlation, answer, None)
            case CheckKey():
                return self._check_key(message)
            case UseOnce():
                return UsedOnce(message.correlation, self._replays.use(message.digest, message.lifetime_s))
            case Settle():
                self._quotas.settle(
                    message.reservation,
                    owner,
                    prompt_tokens=message.prompt_tokens,
                    output_tokens=message.output_tokens,
                    is_final=message.is_recorded,
                    is_begun=message.is_begun,
                )
        return None

    def _reserve(self, owner: int, message: Reserve) -> Granted | Denied:
        facts = _facts(message)
        decision = self._decider.decide(self._definitions.current, facts, owner)
        if isinstance(decision, Refusal):
            return Denied(message.correlation, decision.code, decision.message, 0)
        return _answer_quota(message.correlation, decision, self._decider.allowances(facts))

    def _look_up(self, asked: Reserve) -> LookupGranted | Denied:
        facts = _facts(asked)
        denial = self._decider.decide_lookup(self._definitions.current, facts)
        if isinstance(denial, Refusal):
            return Denied(asked.correlation, denial.code, denial.message, 0)
        left = _left(self._decider.lookups_left(facts))
        if denial is None:
            return LookupGranted(asked.correlation, left)
        return Denied(asked.correlation, denial.code, denial.message, denial.retry_after_s, left)

    def _filter_models(self, message: FilterModels) -> ModelsAllowed:
        definitions, facts = self._definitions.current, _facts(message.reserve)
        allowed = tuple(
            model
            for model in message.models
            if find_refusal(definitions, msgspec.structs.replace(facts, model=model)) is None
        )
        return ModelsAllowed(message.reserve.correlation, allowed)

    def _resume(self, owner: int, message: Resume) -> Granted | Denied:
        reserve = message.reserve
        grant = self._quotas.resume(
            _facts(reserve).subjects,
            owner,
            prompt_tokens=reserve.prompt_tokens,
            output_tokens=message.output_tokens,
            max_output_tokens=max(reserve.max_output_tokens, message.output_tokens),
            reservation=message.reservation,
        )
        return _answer_quota(reserve.correlation, grant, None)

    def _stored(self, message: CheckKey) -> bytes:
        return hash_key_digest(self._credentials_key, message.digest)

    def _check_key(self, message: CheckKey) -> KeyHolder | Denied:
        definitions = self._definitions.current
        key = definitions.static_keys.get(self._stored(message))
        client = None if key is None else definitions.clients.get(key.client_id)
        # A key proves nothing but that it was read somewhere: whoever has another role by now must show more.
        may_use = (
            client is not None and not client.is_disabled and client.role is Role.USER and client.kind == "service"
        )
        if key is None or client is None or not may_use or not key.is_good_from(message.address, self._utc_s()):
            # The same words whatever was wrong: whoever has a stolen key learns nothing about where it would be good.
            return Denied(message.correlation, "invalid_key", "the key is not valid, or not from this address", 0)
        scope = format_scopes(client.scopes)
        return KeyHolder(
            message.correlation, key.key_id, client.client_id, client.tenant, client.role.value, scope, key.expires_at
        )

    def _status(self) -> PolicyStatus:
        return PolicyStatus(self._quotas.num_reservations, self._quotas.tokens_reserved)


def _facts(message: Reserve) -> RequestFacts:
    return RequestFacts(
        client_id=message.client_id,
        subject=message.subject,
        tenant=message.tenant,
        role=message.role,
        model=message.model,
        prompt_tokens=message.prompt_tokens,
        max_output_tokens=message.max_output_tokens,
        is_registered=message.is_registered,
        num_further=message.num_further,
        is_further=message.is_further,
    )


def _knows(definitions: Definitions, message: Reserve) -> bool:
    """The client, and the person it acts for if that is one of ours."""
    if message.client_id not in definitions.clients:
        return False
    return message.subject == message.client_id or is_upstream(message.subject) or message.subject in definitions.users


def _answer_quota(
    correlation: int, answer: QuotaGrant | QuotaDenial, allowances: Allowances | None
) -> Granted | Denied:
    found = allowances or Allowances(None, None, None)
    left = (_left(found.requests), _left(found.tokens), _left(found.day_tokens))
    if isinstance(answer, QuotaGrant):
        return Granted(correlation, answer.reservation, answer.output_tokens, *left)
    return Denied(correlation, answer.code, answer.message, answer.retry_after_s, *left)


def _left(allowance: Allowance | None) -> Left | None:
    return None if allowance is None else Left(allowance.limit, allowance.remaining, allowance.reset_ms)
