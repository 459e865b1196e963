"""Carries what commands left in the outbox into the log.

Each notice is a file; it is removed when its record is durable, so that one is recorded at least once, whatever dies in between,
and that one which was taken away shows.
"""

import asyncio
import time
from pathlib import Path

import structlog

from appliance.supervisor.lifecycle import LifecycleRecorder
from audit.changes import change_event
from audit.entry import Json, encode_event
from audit.errors import AuditFault
from audit.event_form import PERSON, SUPERVISOR
from audit.events import HOST_KINDS, host_event, log_event
from security.errors import KeyUnusable
from security.stewards.outbox import Notice, Outbox

log = structlog.get_logger(__name__)

_INTERVAL_S = 1.0
_AUDIT_KINDS = ("log_exported", "key_rotated", "hash_looked_up", "state_backed_up")
_OWN_KINDS = (
    "model_verified",
    "model_verification_failed",
    "statement_measured",
    "egress_tested",
    "egress_open",
    "notices_missing",
)
"""What the supervisor says by itself, and no command can."""
_CARRIED_KINDS = frozenset((*HOST_KINDS, *_AUDIT_KINDS)) - frozenset(_OWN_KINDS)


class NoticeCarrier:
    """Owner of the way from the outbox to the recorder.

    Notices are numbered. A number below the last one that was left, whose notice is neither there nor was carried, or is none that
    the log takes, is told as missing. What is told or sent becomes durable in any order; a notice is removed when all before it
    are, so that one that is gone was carried.
    """

    def __init__(self, outbox: Outbox, recorder: LifecycleRecorder) -> None:
        self._outbox = outbox
        self._recorder = recorder
        self._sent: set[Path] = set()
        self._carried = self._seen = outbox.carried
        """All up to the first are durable, all up to the second sent or told in this life."""
        self._open: set[int] = set()
        """Of those between, what is not durable yet; of several that are missing the first one's number."""
        self._durable: dict[Path, int] = {}
        """To be removed once all before them are."""

    async def run(self) -> None:
        """Carry for ever; to be cancelled."""
        while True:
            self.carry()
            await asyncio.sleep(_INTERVAL_S)

    def carry(self) -> None:
        """Hand over what is new, and tell what is missing."""
        last = self._outbox.last  # Before the folder is read: up to this one all must be in it.
        found = sorted(self._outbox.waiting(), key=lambda one: one[1].number)
        for path, notice in found:
            if path in self._sent:
                continue
            if notice.number > self._seen + 1:
                if notice.number - 1 > last:
                    break  # Read while notices were left: the next look has all of them.
                self._tell_missing(self._seen + 1, notice.number - 1)
            self._send(path, notice)
        if last > self._seen:
            self._tell_missing(self._seen + 1, last)

    def _send(self, path: Path, notice: Notice) -> None:
        self._sent.add(path)
        event = encode_notice(notice)
        if event is None:
            log.error("notice_refused", file=path.name, kind=notice.kind[:64])
            if notice.number > self._seen:
                self._tell_missing(notice.number, notice.number)
            return
        if notice.number > self._seen:
            self._seen = notice.number
            self._open.add(notice.number)
        self._recorder.record(event, on_recorded=lambda: self._recorded(notice.number, path))

    def _tell_missing(self, first: int, last: int) -> None:
        log.error("notices_missing", first=first, last=last)
        self._seen = last
        self._open.add(first)
        event = host_event(
            "notices_missing",
            name="outbox",
            digest="none",
            actor=SUPERVISOR,
            at_ms=time.time_ns() // 1_000_000,
            facts={"first": first, "last": last},
        )
        self._recorder.record(encode_event(event), on_recorded=lambda: self._recorded(first))

    def _recorded(self, number: int, path: Path | None = None) -> None:
        self._open.discard(number)
        if path is not None:
            self._durable[path] = number
        carried = min(self._open, default=self._seen + 1) - 1
        try:
            if carried > self._carried:
                self._outbox.note_carried(carried)
                self._carried = carried
        except KeyUnusable as fault:  # Whatever is not noted is carried once more after the next start.
            log.error("notices_not_noted", reason=str(fault))
        for durable in [path for path, number in self._durable.items() if number <= self._carried]:
            del self._durable[durable]
            durable.unlink(missing_ok=True)
            self._sent.discard(durable)


def encode_notice(notice: Notice) -> bytes | None:
    """The event of a notice; None for one that the log would not take."""
    if notice.kind not in _CARRIED_KINDS:
        return None
    try:
        event = _build_audit_event(notice) if notice.kind in _AUDIT_KINDS else _build_host_event(notice)
        if notice.number:
            event["unmapped"]["casemate"]["notice"] = notice.number
        return encode_event(event)
    except AuditFault:
        return None


def _build_host_event(notice: Notice) -> Json:
    return host_event(
        notice.kind,
        name=notice.name,
        digest=notice.digest,
        actor=notice.actor,
        at_ms=notice.at_ms,
        facts=notice.facts,
    )


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
        case "state_backed_up":
            state = {**facts, "digest": notice.digest}
            return change_event(
                notice.kind, entity_type="backup", entity_uid=notice.name, actor=notice.actor, before=state
            )
        case _:
            return change_event(
                notice.kind,
                entity_type="keyed hash",
                entity_uid=notice.name,
                actor=notice.actor,
                before={**facts, "key_id": notice.digest},
            )
