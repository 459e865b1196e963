"""Builders of the events of administration: what was changed, from what to what, by whom; keys, bodies, the configuration.

A change says the state before and after in OCSF's places for it (`entity.data`, `updated_entity.data`), as texts, and never a
secret: of a key the id, of a file the digest.

Source: OCSF 1.9.0-dev, Entity Management 3004, Application Lifecycle 6002.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from audit.entry import Json
from audit.event_form import (
    INFORMATIONAL,
    LOW,
    MEDIUM,
    SUCCESS,
    SUPERVISOR,
    application_of,
    endpoint_of,
    new_event,
    place_host_actor,
)
from audit.events import log_event
from audit.permissions import ENTITY_MANAGEMENT, KINDS

State = Mapping[str, str | int]
"""What a thing was or is: names and texts."""
MAX_DEFINITION_CHARS = 16_000
MAX_CHANGES, MAX_SETTING_CHARS = 40, 160
"""Of a configuration, in one record: all of them, with every character escaped, fit an event."""


def change_event(
    kind: str,
    *,
    entity_type: str,
    entity_uid: str,
    actor: str,
    before: State | None = None,
    after: State | None = None,
    approvers: tuple[str, ...] = (),
    reason: str = "",
) -> Json:
    """Something that is administered was changed, or looked at; `kind` is one of class 3004 that policy does not make.

    Args:
        entity_type: what it is: `key`, `retention`, `hold`, `body`.
        before, after: its state; None where there was none, or where nothing was changed.
        approvers: who else signed, where one person does not suffice.
    """
    event = new_event(kind, min(KINDS[kind].activity_ids), SUCCESS, LOW)
    event["actor"] = {"user": {"name": actor, "type_id": 1}}
    event["entity"] = _entity(entity_type, entity_uid, before)
    if after is not None:
        event["updated_entity"] = _entity(entity_type, entity_uid, after)
    own = event["unmapped"]["casemate"]
    if approvers:
        own["approvers"] = list(approvers)
    if reason:
        own["reason"] = reason
    return event


def definition_changed_event(
    kind: str,
    *,
    target: str,
    actor: str,
    changed_at_ms: int,
    before: str,
    after: str,
    address: str = "",
    port: int = 0,
    client_id: str = "",
    token_id: str = "",
) -> Json:
    """A definition was changed: a client, a person, a role, a key, a limit, a token's validity.

    Args:
        actor: who did it: `os:NAME` by a command on the host, `user:ID` or `client:ID` by the admin API.
        changed_at_ms: when that was; the record's own time is when policy told it.
        before, after: the definition in JSON, without secrets; what is longer than MAX_DEFINITION_CHARS is cut.
        address, port: from where it was asked for, over a network; empty for what was done on the host.
        client_id, token_id: by whose token, there.
    """
    event = new_event(kind, min(KINDS[kind].activity_ids), SUCCESS, INFORMATIONAL)
    event["actor"] = {"user": {"name": actor, "type_id": 1}}
    if address:
        event["src_endpoint"] = endpoint_of(address, port)
    if client_id:
        event["actor"] |= {"app_uid": client_id, "session": {"uid": token_id}}
    if KINDS[kind].class_uid == ENTITY_MANAGEMENT:
        event["entity"] = {"name": target, "type": kind.rpartition("_")[0]}
    else:
        event["user"] = {"type_id": 1 if target.startswith("user-") else 4, "uid": target}
    event["unmapped"]["casemate"] |= {
        "after": after[:MAX_DEFINITION_CHARS],
        "before": before[:MAX_DEFINITION_CHARS],
        "changed_at_ms": changed_at_ms,
    }
    return event


@dataclass(frozen=True, slots=True, kw_only=True)
class Auditor:
    """Whoever reads the log or decides about it by the API, by whose token, from where."""

    client_id: str
    subject: str
    tenant: str
    token_id: str
    address: str
    port: int

    @property
    def actor(self) -> Json:
        """In OCSF's place for it."""
        user: Json = {"type_id": 4 if self.subject == self.client_id else 1, "uid": self.subject}
        return {"app_uid": self.client_id, "session": {"uid": self.token_id}, "user": user}


def body_opened_event(auditor: Auditor, *, index: int, purpose: str, tenant: str, key_id: str, sha256: str) -> Json:
    """An auditor is about to be given the second share of a body; written, durably, before it is."""
    state = {"key_id": key_id, "purpose": purpose, "sha256": sha256}
    event = change_event("body_opened", entity_type="body", entity_uid=str(index), actor=auditor.subject, before=state)
    event["metadata"]["tenant_uid"] = tenant
    place_reader(event, auditor)
    return event


def place_reader(event: Json, auditor: Auditor) -> None:
    """Say in an event who asked for it by the API, and from where; in place of its actor."""
    event["actor"] = auditor.actor
    event["src_endpoint"] = endpoint_of(auditor.address, auditor.port)


def reading_event(auditor: Auditor, *, log_name: str, what: str, facts: State) -> Json:
    """Somebody searches or reads records by the API; written before the answer.

    Args:
        what: `search`, `record`, `tail` or `tiles`.
        facts: what was asked for.
    """
    event = log_event("log_searched", log_name=log_name, facts={"what": what})
    # Apart: what somebody asks for must not pass for what the event is.
    event["unmapped"]["casemate"]["asked"] = dict(facts)
    event["metadata"]["tenant_uid"] = auditor.tenant
    place_reader(event, auditor)
    return event


def configuration_loaded_event(
    *,
    digest: str,
    previous_digest: str,
    mode: str,
    lacks: tuple[str, ...],
    actor: str = SUPERVISOR,
    changes: Mapping[str, tuple[str, str]] | None = None,
) -> Json:
    """The configuration that the appliance was started with.

    Args:
        actor: who started it, `os:NAME`.
        changes: by key, what it was at the start before and is now; None where that one is not known.
    """
    event = new_event("configuration_loaded", 8, SUCCESS, MEDIUM if lacks else INFORMATIONAL, profiles=("host",))
    place_host_actor(event, actor)
    event["app"] = application_of("Casemate", digest)
    own = event["unmapped"]["casemate"]
    own |= {"digest": digest, "lacks": list(lacks), "mode": mode}
    if previous_digest:
        own["previous_digest"] = previous_digest
    if changes is not None:
        own["num_changes"] = len(changes)
        own["changes"] = [
            {"after": after[:MAX_SETTING_CHARS], "before": before[:MAX_SETTING_CHARS], "key": key[:MAX_SETTING_CHARS]}
            for key, (before, after) in list(changes.items())[:MAX_CHANGES]
        ]
    return event


def _entity(entity_type: str, uid: str, state: State | None) -> Json:
    entity: Json = {"type": entity_type, "uid": uid}
    return entity if state is None else entity | {"data": dict(state)}
