"""Carries what commands left in the outbox into the log.

Each notice is a file; it is removed when its record is durable, so that one is recorded at least once, whatever dies in between.
"""

import asyncio
from functools import partial
from pathlib import Path

import structlog

from appliance.supervisor.lifecycle import LifecycleRecorder
from audit.changes import change_event
from audit.entry import encode_event
from audit.errors import AuditFault
from audit.events import HOST_KINDS, host_event, log_event
from security.stewards.outbox import Notice, Outbox

log = structlog.get_logger(__name__)

_INTERVAL_S = 1.0


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
    if notice.kind not in (*HOST_KINDS, "log_exported", "key_rotated"):
        return None
    try:
        if notice.kind == "log_exported":
            facts = {**notice.facts, "actor": notice.actor, "changed_at_ms": notice.at_ms, "digest": notice.digest}
            return encode_event(log_event(notice.kind, log_name=notice.name, facts=facts))
        if notice.kind == "key_rotated":
            previous, stage = str(notice.facts.get("previous", "")), str(notice.facts.get("stage", ""))
            return encode_event(
                change_event(
                    notice.kind,
                    entity_type="key",
                    entity_uid=notice.name,
                    actor=notice.actor,
                    before={"key_id": previous},
                    after={"key_id": notice.digest, "stage": stage},
                )
            )
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
