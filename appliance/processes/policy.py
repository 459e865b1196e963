"""The policy process: the one owner of quotas, and what the client registry allows.

A gateway's reservations live exactly as long as its link: when it ends, they are released. When the registry cannot be read the
link is closed, so that gateways say that policy is away rather than decide without it.
"""

import asyncio
import hashlib
import itertools
import time
from typing import Any, Protocol

import msgspec
import structlog

from appliance.authority.credentials import CLIENTS_FILE
from appliance.authority.journal import Journal, JournalUnavailable
from appliance.errors import LinkClosed
from appliance.messages.policy import Denied, Extend, Granted, PolicyStatus, Reserve, Settle
from appliance.processes.member import Member
from audit.entry import encode_event
from audit.events import configuration_event
from security.errors import SecurityUnavailable
from security.policy.decisions import PolicyDecider, Refusal, RequestFacts
from security.policy.definitions import ClientDefinitions
from security.policy.quotas import QuotaBook, QuotaDenial, QuotaGrant, QuotaLimits
from security.settings import PolicySettings

STATUS_INTERVAL_S = 0.5
TICKS_PER_CLEANING = 120
RECORD_TIMEOUT_S = 10.0
RECORD_RETRY_S = 0.5

log = structlog.get_logger(__name__)


class GatewayLink(Protocol):
    """What is needed of `appliance.ipc.link.Link`."""

    def send(self, message: msgspec.Struct) -> None:
        """Raises: LinkClosed."""

    async def receive(self) -> Any:
        """Raises: LinkClosed."""


class PolicyService:
    """Answers gateways, and tells them once in a while how things stand."""

    def __init__(self, decider: PolicyDecider) -> None:
        self._decider = decider
        self._quotas = decider.quotas
        self._gateways: dict[int, GatewayLink] = {}
        self._owners = itertools.count(1)

    async def run(self, link: GatewayLink) -> None:
        """Serve one gateway until its link ends.

        Raises: LinkClosed.
        """
        owner = next(self._owners)
        self._gateways[owner] = link
        try:
            link.send(self._status())
            while True:
                self._answer(owner, link, await link.receive())
        except SecurityUnavailable as error:
            log.error("definitions_unreadable", reason=str(error))
        finally:
            del self._gateways[owner]
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
            for link in list(self._gateways.values()):
                try:
                    link.send(self._status())
                except LinkClosed:
                    continue  # Its own task sees the end and releases what it held.

    def _answer(self, owner: int, link: GatewayLink, message: Any) -> None:
        match message:
            case Reserve():
                link.send(self._reserve(owner, message))
            case Extend():
                answer = self._quotas.extend(message.reservation, owner)
                link.send(_answer_quota(message.correlation, answer))
            case Settle():
                self._quotas.settle(
                    message.reservation, owner, prompt_tokens=message.prompt_tokens, output_tokens=message.output_tokens
                )

    def _reserve(self, owner: int, message: Reserve) -> Granted | Denied:
        facts = RequestFacts(
            client_id=message.client_id,
            tenant=message.tenant,
            role=message.role,
            model=message.model,
            prompt_tokens=message.prompt_tokens,
            max_output_tokens=message.max_output_tokens,
        )
        decision = self._decider.decide(facts, owner)
        if isinstance(decision, Refusal):
            return Denied(message.correlation, decision.code, decision.message, 0)
        return _answer_quota(message.correlation, decision)

    def _status(self) -> PolicyStatus:
        return PolicyStatus(self._quotas.num_reservations, self._quotas.tokens_reserved)


def _answer_quota(correlation: int, answer: QuotaGrant | QuotaDenial) -> Granted | Denied:
    if isinstance(answer, QuotaGrant):
        return Granted(correlation, answer.reservation, answer.output_tokens)
    return Denied(correlation, answer.code, answer.message, answer.retry_after_s)


def build_quota_book(settings: PolicySettings) -> QuotaBook:
    """The book under the configured limits."""
    limits = QuotaLimits(
        max_concurrent_requests=settings.max_concurrent_requests_per_client,
        requests_per_minute=settings.requests_per_minute_per_client,
        tokens_per_minute=settings.tokens_per_minute_per_client,
        block_tokens=settings.quota_block_tokens,
    )
    return QuotaBook(limits, clock_ns=time.monotonic_ns)


def build_loaded_record(settings: PolicySettings) -> bytes:
    """The record of the limits that are in force from now on."""
    limits = msgspec.json.encode(settings, order="sorted")
    digest = hashlib.sha256(limits).hexdigest()
    return encode_event(configuration_event("policy_loaded", name="policy", digest=digest, detail=limits.decode()))


async def record_loaded(journal: Journal, settings: PolicySettings) -> None:
    """Tell the log once which limits are in force; tried until it is durable."""
    record = build_loaded_record(settings)
    while True:
        try:
            await journal.record(record)
            return
        except JournalUnavailable:
            await asyncio.sleep(RECORD_RETRY_S)


async def serve(member: Member) -> None:
    """Serve until drained.

    Raises: SecurityMisconfigured.
    """
    state = member.config.state_path
    settings = member.config.policy
    definitions = ClientDefinitions(state / "authority" / CLIENTS_FILE, max_age_s=settings.definitions_max_age_s)
    service = PolicyService(PolicyDecider(definitions, build_quota_book(settings)))
    journal = Journal(timeout_s=RECORD_TIMEOUT_S)
    member.on_link("gateway", service.run)
    member.on_link("auditor", journal.run)
    try:
        async with asyncio.TaskGroup() as group:  # A task that fails ends the process, which is then started again.
            tasks = [group.create_task(service.report()), group.create_task(record_loaded(journal, settings))]
            await member.ready()
            await member.draining.wait()
            for task in tasks:
                task.cancel()
    finally:
        definitions.close()
