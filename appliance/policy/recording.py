"""Changes to the definitions, from their outbox into the audit log, oldest first, each until its record is durable."""

import asyncio

import msgspec
import structlog

from appliance.authority.journal import Journal, JournalUnavailable
from appliance.policy.store import DefinitionsStore
from audit.changes import definition_changed_event
from audit.entry import encode_event
from security.errors import SecurityFault
from security.registry.database import Change
from security.registry.revocations import RevocationRegistry

INTERVAL_S = 0.5
TICKS_PER_CLEANING = 240

log = structlog.get_logger(__name__)


def build_change_record(change: Change) -> bytes:
    """The record of one change."""
    return encode_event(
        definition_changed_event(
            change.action,
            target=change.target,
            actor=change.actor,
            changed_at_ms=change.at * 1000,
            before=change.before,
            after=change.after,
            **({} if change.source is None else msgspec.structs.asdict(change.source)),
        )
    )


async def record_changes(store: DefinitionsStore, journal: Journal) -> None:
    """Record what waits now, as far as the auditor takes it. Raises: JournalUnavailable, SecurityFault."""
    changes = await store.call(lambda database: database.unrecorded_changes())
    for change in changes:
        await journal.record(build_change_record(change))
        number = change.number
        await store.call(lambda database, number=number: database.forget_change(number))  # type: ignore[misc]


async def run_recording(store: DefinitionsStore, journal: Journal) -> None:
    """Record for ever; to be cancelled."""
    tick = 0
    while True:
        await asyncio.sleep(INTERVAL_S)
        tick += 1
        try:
            if journal.is_connected:
                await record_changes(store, journal)
            if tick % TICKS_PER_CLEANING == 0:
                await store.call(lambda database: RevocationRegistry(database).forget_expired())
        except JournalUnavailable as fault:
            if journal.is_connected:
                log.warning("change_waits_for_its_record", reason=str(fault))
        except SecurityFault as fault:
            log.error("changes_unreadable", reason=str(fault))
