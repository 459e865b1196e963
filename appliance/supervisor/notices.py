"""Carries what commands left in the outbox into the log.

Each notice is a file; it is removed when its record is durable, so that one is recorded at least once, whatever dies in between.
"""

import asyncio
from functools import partial
from pathlib import Path

import structlog

from appliance.supervisor.lifecycle import LifecycleRecorder
from audit.changes import change_event
from audit.entry import Json, encode_event
from audit.errors import AuditFault
from audit.events import HOST_KINDS, PERSON, host_event, log_event
from security.stewards.outbox import Notice, Outbox

log = structlog.get_logger(__name__)

_INTERVAL_S = 1.0
_AUDIT_KINDS = ("log_exported", "key_rotated", "hash_looked_up")


class NoticeCarrier:
    """Owner of the way from the outbox to the recorder."""

    def __init__(self, outbox: Outbox, recorder: LifecycleRecorder) -> None:
        self._outbox = outbox
        self._recorder = recorder
        self._sent: set[Path] = set()

    async def run(self) -> None:
        """Carry for ever; to be cancelled."""
        while True:
            self.carry()
            await asyncio.sleep(_INTERVAL_S)

    def carry(self) -> None:
        """Hand over what is new."""
        for path, notice in self._outbox.waiting():
            if path in self._sent:
                continue
            self._sent.add(path)
            event = encode_notice(notice)
            if event is None:
                log.error("notice_refused", file=path.name, kind=notice.kind[:64])
                continue
            self._recorder.record(event, on_recorded=partial(self._remove, path))

    def _remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._sent.discard(path)


def encode_notice(notice: Notice) -> bytes | None:
    """The event of a notice; None for one that the log would not take."""
    if notice.kind not in (*HOST_KINDS, *_AUDIT_KINDS):
        return None
    try:
        if notice.kind in _AUDIT_KINDS:
            return encode_event(_build_audit_event(notice))
        return encode_event(
            host_event(
                notice.kind,
                name=notice.name,
                digest=notice.digest,
                actor=notice.actor,
                at_ms=notice.at_ms,
                facts=notice.facts,
            )
        )
    except AuditFault:
        return None


def _build_audit_event(notice: Notice) -> Json:
    """What the commands of `casemate audit` did."""
    facts = {**notice.facts, "changed_at_ms": notice.at_ms}
    match notice.kind:
        case "log_exported":
            event = log_event(notice.kind, log_name=notice.name, facts={**facts, "digest": notice.digest})
            return event | {"actor": {"user": {"name": notice.actor, "type_id": PERSON}}}
        case "key_rotated":
            before = {"key_id": str(notice.facts.get("previous", ""))}
            after = {"key_id": notice.digest, "stage": str(notice.facts.get("stage", ""))}
            return change_event(
                notice.kind, entity_type="key", entity_uid=notice.name, actor=notice.actor, before=before, after=after
            )
        case _:
            return change_event(
                notice.kind,
                entity_type="keyed hash",
                entity_uid=notice.name,
                actor=notice.actor,
                before={**facts, "key_id": notice.digest},
            )
