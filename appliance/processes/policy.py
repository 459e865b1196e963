"""The policy process: the one owner of quotas and of the definitions, and what answers the admin API.

It refuses to start if the definitions cannot be brought to this program's schema. Before it is ready it has counted what
the log says was used, so a kill gives nobody a fresh day.
"""

import asyncio
import gc
import hashlib
import time
from collections.abc import Coroutine, Sequence
from functools import partial
from socket import socket
from typing import Protocol

import msgspec

from appliance.authority.journal import Journal, JournalUnavailable
from appliance.console.identity import client_id_of, define_console
from appliance.policy.authority_desk import AuthorityDesk
from appliance.policy.locations import database_of, load_credentials_key
from appliance.policy.ownership import claim_definitions
from appliance.policy.recording import run_recording
from appliance.policy.service import PolicyService
from appliance.policy.store import DefinitionsStore
from appliance.policy.usage import charge_recorded_usage, correct_lost
from appliance.processes.member import Member
from appliance.processes.niceness import take_short_turns
from audit.entry import encode_event
from audit.events import configuration_event
from security.policy.decisions import PolicyDecider
from security.policy.definitions import Definitions, name_accounts_by_one
from security.policy.limits import Limits, LimitSubject, LimitTable
from security.policy.quotas import QuotaBook
from security.policy.replay import ReplayMemory
from security.registry.clients import ClientRegistry
from security.registry.database import Database
from security.registry.roles import RoleRegistry
from security.settings import PolicySettings

RECORD_TIMEOUT_S = 10.0
RECORD_RETRY_S = 0.5
RESERVATIONS_A_SECOND_BITS = 20
"""A life begins to number where none before can have come to."""
_MAX_NAMES_CHARS = 4_000
CONFIGURED = "configuration"
"""Who changes a rule that stands in the configuration."""


class ListenerServer(Protocol):
    """What is needed of the admin API's server, which is not imported where it is not served."""

    async def serve(self, listeners: Sequence[socket], stop: asyncio.Event) -> None:
        """Answer until `stop` is set."""


def default_limits(settings: PolicySettings) -> dict[LimitSubject, Limits]:
    """What the configuration says for those who have no limits of their own."""
    client = Limits(
        requests_per_minute=settings.requests_per_minute_per_client,
        tokens_per_minute=settings.tokens_per_minute_per_client,
        tokens_per_day=settings.tokens_per_day_per_client,
        tokens_in_flight=settings.tokens_in_flight_per_client,
        concurrent_requests=settings.max_concurrent_requests_per_client,
    )
    return {"client": client}


def build_quota_book(settings: PolicySettings) -> QuotaBook:
    """The book under the configured limits."""
    table = LimitTable((), default_limits(settings))
    return QuotaBook(
        table,
        block_tokens=settings.quota_block_tokens,
        clock_ns=time.monotonic_ns,
        last_reservation=int(time.time()) << RESERVATIONS_A_SECOND_BITS,
    )


def build_loaded_record(settings: PolicySettings, definitions: Definitions) -> bytes:
    """The record of the limits and definitions that are in force from now on.

    Args:
        definitions: each recorded change makes their generation greater: less than at the start before is an older database.
            Privileged accounts on which one person alone decided are named, as far as they can be used.
    """
    privileged = definitions.find_privileged()
    by_one = name_accounts_by_one(privileged)
    shown = msgspec.structs.replace(settings, database_url=None)  # It may hold a password.
    limits = msgspec.json.encode(shown, order="sorted")
    digest = hashlib.sha256(limits).hexdigest()
    facts: dict[str, str | int] = {
        "generation": definitions.generation,
        "num_privileged": len(privileged),
        "num_privileged_by_one": len(by_one),
        "privileged_by_one": ", ".join(by_one)[:_MAX_NAMES_CHARS],
    }
    event = configuration_event("policy_loaded", name="policy", digest=digest, detail=limits.decode(), facts=facts)
    return encode_event(event)


async def record_loaded(journal: Journal, record: bytes) -> None:
    """Tell the log once what is in force; tried until it is durable."""
    while True:
        try:
            await journal.record(record)
            return
        except JournalUnavailable:
            await asyncio.sleep(RECORD_RETRY_S)


async def recover_quotas(book: QuotaBook, journal: Journal) -> None:
    """Count what the log says was used; tried until the auditor has told."""
    while True:
        await journal.connected()
        try:
            await charge_recorded_usage(book, journal)
            return
        except JournalUnavailable:
            await asyncio.sleep(RECORD_RETRY_S)


async def serve(member: Member) -> None:
    """Serve until drained.

    Raises: SecurityMisconfigured.
    """
    take_short_turns()
    settings = member.config.policy
    credentials_key = load_credentials_key(member.config.state_path)
    location = database_of(member.config)
    database = Database.open(location)
    claim_definitions(database, location, credentials_key)
    RoleRegistry(database).set_two_person(settings.two_person_grants, actor=CONFIGURED)
    if member.config.console.enabled:
        console = define_console(member.config)
        ClientRegistry(database, credentials_key).ensure(client_id_of(member.config), console, actor=CONFIGURED)
    store = DefinitionsStore(database, max_age_s=settings.definitions_max_age_s)
    book = build_quota_book(settings)
    replays = ReplayMemory(clock=time.monotonic)
    service = PolicyService(store, PolicyDecider(book), replays, credentials_key)
    defaults = default_limits(settings)

    def put_in_force(definitions: Definitions) -> None:
        book.change_limits(LimitTable(definitions.rules, defaults))
        service.tell_changed(definitions)

    store.subscribe(put_in_force)
    journal = Journal(timeout_s=RECORD_TIMEOUT_S, on_other=partial(correct_lost, book))
    member.on_link("auditor", journal.run)
    try:
        await store.look()
        await _unless_draining(recover_quotas(book, journal), member.draining)
        # What was read before the wait for the auditor may be too old by now to be told as in force.
        loaded = build_loaded_record(settings, await store.look())
        # Only now may anybody ask.
        desk = AuthorityDesk(store, service, credentials_key)
        member.on_link("gateway", service.run)
        member.on_link("authority", desk.run)
        administration = await _build_administration(member, desk, store, replays, credentials_key, journal)
        async with asyncio.TaskGroup() as group:  # A task that fails ends the process, which is then started again.
            tasks = [
                group.create_task(service.report()),
                group.create_task(store.run()),
                group.create_task(run_recording(store, journal)),
                group.create_task(record_loaded(journal, loaded)),
            ]
            if administration is not None:
                tasks.append(group.create_task(administration.serve(member.listeners, member.draining)))
            gc.collect()
            gc.freeze()  # What lives as long as the process is not walked again: a full collection took 52 ms.
            await member.ready()
            await member.draining.wait()
            for task in tasks:
                task.cancel()
    finally:
        store.close()


async def _build_administration(
    member: Member,
    desk: AuthorityDesk,
    store: DefinitionsStore,
    replays: ReplayMemory,
    credentials_key: bytes,
    journal: Journal,
) -> ListenerServer | None:
    """The admin API's server, imported only where it is served: it is half of this process's memory."""
    if not member.config.administration.enabled:
        return None
    from appliance.authority.credentials import build_listener_context, renew_certificate
    from appliance.gateway.rejections import Rejections
    from appliance.policy.administration.application import AdminApplication, AdminListener
    from appliance.policy.administration.endpoints import Administration
    from appliance.policy.administration.token_check import build_admin_check

    check = build_admin_check(member.config, desk, store, replays)
    rejections = Rejections(journal.tell, "admin API")
    application = AdminApplication(Administration(store, credentials_key), check, rejections)
    tls = build_listener_context(member.config)
    member.on_certificate = partial(renew_certificate, tls)
    await member.listening()
    return AdminListener(member.config, application, tls, rejections, lambda: journal.is_connected)


async def _unless_draining(work: Coroutine[object, object, None], draining: asyncio.Event) -> None:
    """Do `work`, or give it up when the process is to end."""
    working = asyncio.ensure_future(work)
    stopping = asyncio.ensure_future(draining.wait())
    await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    for task in (working, stopping):
        if not task.done():
            task.cancel()
    if working.done() and not working.cancelled():
        working.result()
