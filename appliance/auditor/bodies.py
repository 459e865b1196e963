"""The auditor's half of sealed bodies: keys are kept, a second share is given for a durable record, old ones are destroyed.

| message | what happens |
|---|---|
| KeepBodyKey | share B is made and durable with the escrow; that a key exists is a record; then the share |
| KeepHashRoot | the root of the keyed hashes of a tenant and day is made durable, once, and that is a record; then the root |
| OpenBody | the record that says who opens what is durable; then share B and the escrow, to that gateway |

Every hour, at the start, and when a day ends, keys and roots older than the retention that no hold covers are destroyed: first
that is a record, then it is done, so that nothing vanishes unseen; a crash between the two destroys, and records, again. Gateways
remove what nobody can open any more; one that comes later hears of it then, as at a start none is there yet.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import structlog

from appliance.auditor.ledger import Clock, Ledger
from appliance.auditor.peer import Peer, Send
from appliance.messages.audit import AppendRefused
from appliance.messages.stewardship import (
    BodiesDestroyed,
    BodyKeyKept,
    BodyShare,
    HashRootKept,
    KeepBodyKey,
    KeepHashRoot,
    OpenBody,
)
from audit.changes import body_opened_event, change_event
from audit.entry import Json, parse_canonical
from audit.errors import AuditFault, BodyRejected, EntryNotFound, KeyUnusable, LogCorrupted, NotDurable
from audit.governance import Rules
from audit.keyed_hash import day_of, root_context
from audit.sealing import KeyContext, recipients_of
from audit.shares import Destroyed, ShareStore, StoredKey

DAY_MS = 86_400_000
SWEEP_INTERVAL_S = 3600.0
RETRY_INTERVAL_S = 60.0
_BODIES = {"prompt": "prompt_body", "answer": "answer_body"}

log = structlog.get_logger(__name__)


class BodyDesk:
    """Owner of the shares.

    Args:
        rules: the retention and holds in force.
        gateways: who is told that bodies are destroyed.
    """

    def __init__(
        self,
        ledger: Ledger,
        store: ShareStore,
        send: Send,
        clock: Clock,
        *,
        rules: Callable[[], Rules],
        gateways: Callable[[], Iterable[Peer]],
        overseeing_tenant: str,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._send = send
        self._clock = clock
        self._rules = rules
        self._gateways = gateways
        self._overseeing_tenant = overseeing_tenant
        self._next_sweep_s = 0.0
        self._swept_to = ("", "")
        """Days before the first were destroyed last, those before the second are due by the clock."""
        self.alarm = ""
        """That keys are due by the clock, and not destroyed as nobody vouches for it."""
        self._told: list[BodiesDestroyed] = []
        """What was destroyed in this life."""

    def gateway_came(self, gateway: Peer) -> None:
        """Tell it what was destroyed before it was there."""
        for message in self._told:
            self._send(gateway, message)

    def keep(self, peer: Peer, message: KeepBodyKey) -> None:
        """Keep a new key. Raises: StorageFailed."""
        if message.day > day_of(self._clock.utc_ms()):
            # It would outlive the retention of what is sealed under it.
            self._send(peer, AppendRefused(message.correlation, "malformed", f"{message.day} has not come yet"))
            return
        context = KeyContext(message.tenant, message.day, message.key_id)
        share = self._keep(peer, message.correlation, context, message.escrow)
        if share is not None:
            event = _kept_event("body_key_kept", "body key", peer, context, message.escrow)
            self._add(peer, message.correlation, event, BodyKeyKept(message.correlation, share))

    def keep_hash_root(self, peer: Peer, message: KeepHashRoot) -> None:
        """Keep the root of a tenant's day, or give the one that is kept: all workers hash alike. Raises: StorageFailed."""
        now_ms = self._clock.utc_ms()
        if message.day not in (day_of(now_ms), day_of(now_ms - DAY_MS)):
            # What is over is nobody's who serves: a captured gateway learns no other day's root.
            self._send(peer, AppendRefused(message.correlation, "malformed", f"{message.day} is not today"))
            return
        context = root_context(message.tenant, message.day)
        try:
            kept = self._store.load(context.day, context.key_id)
        except EntryNotFound:
            root = self._keep(peer, message.correlation, context, message.escrow, message.root)
            if root is not None:
                event = _kept_event("hash_root_kept", "keyed hash root", peer, context, message.escrow)
                self._add(peer, message.correlation, event, HashRootKept(message.correlation, root))
        except KeyUnusable as fault:
            self._send(peer, AppendRefused(message.correlation, "damaged", str(fault)))
        else:
            self._send(peer, HashRootKept(message.correlation, kept.share))

    def open(self, peer: Peer, message: OpenBody) -> None:
        """Give a second share for a record that says so."""
        try:
            record = self._ledger.writer.read(message.index)
            event = parse_canonical(record)
            tenant = str(event.get("metadata", {}).get("tenant_uid", ""))
            if message.by.tenant not in (self._overseeing_tenant, tenant):
                # As for a record that is not there: whether another tenant has one is not told.
                raise EntryNotFound(f"no record {message.index} that may be opened")
            purpose, body = _find_body(event, message.index)
            stored = self._store.load(str(body.get("day", "")), str(body.get("key_id", "")))
            if stored.tenant != tenant or stored.key_id == root_context(stored.tenant, stored.day).key_id:
                # A gateway wrote that record: neither another tenant's share passes for this one's, nor a root of the keyed hashes.
                raise EntryNotFound(f"record {message.index} names no body key")
        except EntryNotFound as fault:
            self._send(peer, AppendRefused(message.correlation, "not_found", str(fault)))
        except AuditFault as fault:
            self._send(peer, AppendRefused(message.correlation, "damaged", str(fault)))
        else:
            self._give(peer, message, record, (purpose, body), stored)

    def sweep(self, vouched_ms: int) -> None:
        """Destroy what is due, where it is time.

        Args:
            vouched_ms: the time by which it is; what is due by the clock alone is an alarm.
        Raises: StorageFailed.
        """
        now_s, rules = self._clock.monotonic_s(), self._rules()
        first_kept, by_clock = rules.first_kept_day(vouched_ms), rules.first_kept_day(self._clock.utc_ms())
        if (now_s < self._next_sweep_s and (first_kept, by_clock) == self._swept_to) or not self._ledger.can_append:
            return
        self._next_sweep_s, self._swept_to = now_s + SWEEP_INTERVAL_S, (first_kept, by_clock)
        due = self._store.find_due(first_kept, rules.is_held)
        num_held_back = 0 if by_clock <= first_kept else len(self._store.find_due(by_clock, rules.is_held)) - len(due)
        self.alarm = _describe_held_back(num_held_back, self._clock.utc_ms() - vouched_ms) if num_held_back else ""
        for destroyed in due:
            facts: dict[str, str | int] = {
                "day": destroyed.day,
                "num_keys": len(destroyed.key_ids),
                "retention_days": rules.retention_days,
            }
            event = self._ledger.describe("log_bodies_destroyed", facts)
            self._ledger.add_own(event, partial(self._destroy, destroyed))

    def sweep_soon(self) -> None:
        """The rules have changed."""
        self._next_sweep_s = 0.0

    def _keep(
        self, peer: Peer, correlation: int, context: KeyContext, escrow: bytes, secret: bytes | None = None
    ) -> bytes | None:
        """None where the peer was told why not. Raises: StorageFailed."""
        try:
            recipients_of(escrow)
            return self._store.keep(context, escrow, secret)
        except (BodyRejected, KeyUnusable) as fault:
            self._send(peer, AppendRefused(correlation, "malformed", str(fault)))
        except NotDurable as fault:
            self._send(peer, AppendRefused(correlation, "not_durable", str(fault)))
            self._ledger.found_full(fault)
        return None

    def _destroy(self, destroyed: Destroyed, _index: int) -> None:
        self._store.destroy(destroyed)
        message = BodiesDestroyed(destroyed.day, list(destroyed.key_ids))
        self._told.append(message)
        for gateway in self._gateways():
            self._send(gateway, message)

    def _give(self, peer: Peer, message: OpenBody, record: bytes, found: tuple[str, Json], stored: StoredKey) -> None:
        purpose, body = found
        event = body_opened_event(
            message.by.auditor,
            index=message.index,
            purpose=purpose,
            tenant=stored.tenant,
            key_id=stored.key_id,
            sha256=str(body.get("sha256", "")),
        )
        share = BodyShare(message.correlation, record, purpose, stored.tenant, stored.share, stored.escrow)
        self._add(peer, message.correlation, event, share)

    def _add(self, peer: Peer, correlation: int, event: Json, answer: Any) -> None:
        """Record, and answer only when it is durable."""
        self._ledger.add_own(
            event,
            lambda _index: self._send(peer, answer),
            lambda reason: self._send(peer, AppendRefused(correlation, "not_durable", reason)),
        )


def _describe_held_back(num_days: int, unvouched_ms: int) -> str:
    return (
        f"bodies of {num_days} days are due by the clock and not destroyed: nobody vouches for {unvouched_ms // DAY_MS} days "
        "of its time, until witnesses cosign, or auditor and administrator say that it is right (casemate audit vouch-time)"
    )


def _kept_event(kind: str, entity_type: str, peer: Peer, context: KeyContext, escrow: bytes) -> Json:
    """That a key or root exists, and for whom it is escrowed: who may open what follows from it."""
    return change_event(
        kind,
        entity_type=entity_type,
        entity_uid=context.key_id,
        actor=f"{peer.peer_role}/{peer.peer_instance}",
        after={"day": context.day, "recipients": " ".join(recipients_of(escrow)), "tenant": context.tenant},
    )


def _find_body(event: Json, index: int) -> tuple[str, Json]:
    """Which body a record speaks of.

    Raises: EntryNotFound, LogCorrupted.
    """
    own = event.get("unmapped", {}).get("casemate", {})
    for purpose, member in _BODIES.items():
        if (body := own.get(member)) is not None:
            if isinstance(body, dict) and "missing" in body:
                raise EntryNotFound(f"record {index}: the body could not be kept: {body['missing']}")
            if not isinstance(body, dict):
                raise LogCorrupted(f"record {index}: its {member} is no object")
            return purpose, body
    raise EntryNotFound(f"record {index} has no body that is kept")
