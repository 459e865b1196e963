"""Who may append what: each peer only its own kinds of event. The auditor looks here before it takes anything.

A *kind* is finer than an OCSF class: it is `unmapped.casemate.kind`, fixes class and activity, and names the one message by
which it comes. So an outcome cannot come as a plain event, and the authority cannot say that a model was asked.
"""

from dataclasses import dataclass

from audit.entry import Json
from audit.errors import MalformedEntry, NotPermitted
from audit.summary import verify_summarizable

ACCOUNT_CHANGE = 3001
ENTITY_MANAGEMENT = 3004
API_ACTIVITY = 6003
APPLICATION_LIFECYCLE = 6002
AUTHENTICATION = 3002
EVENT_LOG_ACTIVITY = 1008


@dataclass(frozen=True, slots=True)
class EventKind:
    """A kind of event: its OCSF class, its activities, and the roles that may append it."""

    name: str
    class_uid: int
    activity_ids: frozenset[int]
    roles: frozenset[str]
    message: str = "event"
    """`intent`, `outcome` or `event`: how it comes. The auditor's own come by no message."""


def _kind(name: str, class_uid: int, activities: set[int], roles: set[str], message: str = "event") -> EventKind:
    return EventKind(name, class_uid, frozenset(activities), frozenset(roles), message)


AUDITOR = "auditor"
READER = "reader"

KINDS: dict[str, EventKind] = {
    kind.name: kind
    for kind in (
        _kind("inference_intent", API_ACTIVITY, {1}, {"gateway"}, "intent"),
        _kind("inference_outcome", API_ACTIVITY, {3}, {"gateway", AUDITOR}, "outcome"),
        _kind("inference_denied", API_ACTIVITY, {1}, {"gateway"}),
        _kind("inference_late_count", API_ACTIVITY, {3}, {AUDITOR}),
        _kind("response_deleted", API_ACTIVITY, {4}, {"gateway"}),
        _kind("cache_flushed", API_ACTIVITY, {4}, {"gateway"}),
        _kind("token_rejected", AUTHENTICATION, {1}, {"gateway", "policy"}),
        _kind("token_issued", AUTHENTICATION, {1}, {"authority"}),
        _kind("token_refused", AUTHENTICATION, {1}, {"authority"}),
        _kind("user_signed_in", AUTHENTICATION, {1}, {"authority"}),
        _kind("user_sign_in_failed", AUTHENTICATION, {1}, {"authority"}),
        _kind("user_signed_out", AUTHENTICATION, {2}, {"authority"}),
        _kind("refresh_token_reused", AUTHENTICATION, {1}, {"authority"}),
        _kind("client_created", ACCOUNT_CHANGE, {1}, {"policy"}),
        _kind("client_enabled", ACCOUNT_CHANGE, {2}, {"policy"}),
        _kind("client_disabled", ACCOUNT_CHANGE, {5}, {"policy"}),
        _kind("client_secret_rotated", ACCOUNT_CHANGE, {4}, {"policy"}),
        _kind("client_changed", ACCOUNT_CHANGE, {99}, {"policy"}),
        _kind("user_created", ACCOUNT_CHANGE, {1}, {"policy"}),
        _kind("user_enabled", ACCOUNT_CHANGE, {2}, {"policy"}),
        _kind("user_disabled", ACCOUNT_CHANGE, {5}, {"policy"}),
        _kind("user_password_changed", ACCOUNT_CHANGE, {3}, {"policy"}),
        _kind("user_passkey_added", ACCOUNT_CHANGE, {10}, {"policy"}),
        _kind("user_password_reset", ACCOUNT_CHANGE, {4}, {"policy"}),
        _kind("role_granted", ACCOUNT_CHANGE, {7}, {"policy"}),
        _kind("role_approved", ACCOUNT_CHANGE, {7}, {"policy"}),
        _kind("role_refused", ACCOUNT_CHANGE, {8}, {"policy"}),
        _kind("key_created", ENTITY_MANAGEMENT, {1}, {"policy"}),
        _kind("key_revoked", ENTITY_MANAGEMENT, {4}, {"policy"}),
        _kind("limits_changed", ENTITY_MANAGEMENT, {3}, {"policy"}),
        _kind("limits_removed", ENTITY_MANAGEMENT, {4}, {"policy"}),
        _kind("role_models_changed", ENTITY_MANAGEMENT, {3}, {"policy"}),
        _kind("grant_rule_changed", ENTITY_MANAGEMENT, {3}, {"policy"}),
        _kind("token_revoked", ENTITY_MANAGEMENT, {4}, {"policy"}),
        _kind("definitions_restored", ENTITY_MANAGEMENT, {3}, {"policy"}),
        _kind("state_backed_up", ENTITY_MANAGEMENT, {2}, {"supervisor"}),
        _kind("key_rotated", ENTITY_MANAGEMENT, {3}, {"authority", "supervisor", AUDITOR}),
        _kind("retention_changed", ENTITY_MANAGEMENT, {3}, {AUDITOR}),
        _kind("hold_placed", ENTITY_MANAGEMENT, {8}, {AUDITOR}),
        _kind("hold_lifted", ENTITY_MANAGEMENT, {9}, {AUDITOR}),
        _kind("rules_proposed", ENTITY_MANAGEMENT, {1}, {AUDITOR}),
        _kind("rules_refused", ENTITY_MANAGEMENT, {9}, {AUDITOR}),
        _kind("body_key_kept", ENTITY_MANAGEMENT, {1}, {AUDITOR}),
        _kind("body_opened", ENTITY_MANAGEMENT, {2}, {AUDITOR}),
        _kind("hash_root_kept", ENTITY_MANAGEMENT, {1}, {AUDITOR}),
        _kind("hash_looked_up", ENTITY_MANAGEMENT, {2}, {"supervisor"}),
        _kind("configuration_loaded", APPLICATION_LIFECYCLE, {8}, {"supervisor"}),
        _kind("start_refused", APPLICATION_LIFECYCLE, {3}, {"supervisor"}),
        _kind("process_started", APPLICATION_LIFECYCLE, {3}, {"supervisor"}),
        _kind("process_stopped", APPLICATION_LIFECYCLE, {4}, {"supervisor"}),
        _kind("process_crashed", APPLICATION_LIFECYCLE, {4}, {"supervisor"}),
        _kind("process_restarted", APPLICATION_LIFECYCLE, {5}, {"supervisor"}),
        _kind("model_loaded", APPLICATION_LIFECYCLE, {6}, {"engine"}),
        _kind("model_unloaded", APPLICATION_LIFECYCLE, {7}, {"engine"}),
        _kind("model_imported", APPLICATION_LIFECYCLE, {1}, {"supervisor"}),
        _kind("model_import_refused", APPLICATION_LIFECYCLE, {1}, {"supervisor"}),
        _kind("model_approved", APPLICATION_LIFECYCLE, {99}, {"supervisor"}),
        _kind("model_promoted", APPLICATION_LIFECYCLE, {6}, {"supervisor"}),
        _kind("model_retired", APPLICATION_LIFECYCLE, {2}, {"supervisor"}),
        _kind("model_verified", APPLICATION_LIFECYCLE, {99}, {"supervisor"}),
        _kind("model_verification_failed", APPLICATION_LIFECYCLE, {99}, {"supervisor"}),
        _kind("roles_installed", APPLICATION_LIFECYCLE, {8}, {"supervisor"}),
        _kind("statement_measured", APPLICATION_LIFECYCLE, {99}, {"supervisor"}),
        _kind("software_installed", APPLICATION_LIFECYCLE, {1}, {"supervisor"}),
        _kind("software_install_refused", APPLICATION_LIFECYCLE, {1}, {"supervisor"}),
        _kind("software_switched", APPLICATION_LIFECYCLE, {8}, {"supervisor"}),
        _kind("software_rolled_back", APPLICATION_LIFECYCLE, {8}, {"supervisor"}),
        _kind("egress_tested", APPLICATION_LIFECYCLE, {99}, {"supervisor"}),
        _kind("egress_open", APPLICATION_LIFECYCLE, {99}, {"supervisor"}),
        _kind("segments_applied", APPLICATION_LIFECYCLE, {8}, {"supervisor"}),
        _kind("segments_apply_failed", APPLICATION_LIFECYCLE, {8}, {"supervisor"}),
        _kind("notices_missing", APPLICATION_LIFECYCLE, {99}, {"supervisor"}),
        _kind("policy_loaded", APPLICATION_LIFECYCLE, {8}, {"policy"}),
        _kind("log_started", EVENT_LOG_ACTIVITY, {6}, {AUDITOR}),
        _kind("log_stopped", EVENT_LOG_ACTIVITY, {7}, {AUDITOR}),
        _kind("log_recovered", EVENT_LOG_ACTIVITY, {8}, {AUDITOR}),
        _kind("log_full", EVENT_LOG_ACTIVITY, {10}, {AUDITOR}),
        _kind("log_writable", EVENT_LOG_ACTIVITY, {9}, {AUDITOR}),
        _kind("log_marked", EVENT_LOG_ACTIVITY, {99}, {AUDITOR}),
        _kind("log_space_low", EVENT_LOG_ACTIVITY, {99}, {AUDITOR}),
        _kind("log_rationed", EVENT_LOG_ACTIVITY, {99}, {AUDITOR}),
        _kind("log_reconciled", EVENT_LOG_ACTIVITY, {99}, {AUDITOR}),
        _kind("log_clock_jumped", EVENT_LOG_ACTIVITY, {99}, {AUDITOR}),
        _kind("log_quorum_missed", EVENT_LOG_ACTIVITY, {99}, {AUDITOR}),
        _kind("log_history_disputed", EVENT_LOG_ACTIVITY, {99}, {AUDITOR}),
        _kind("log_rotation_agreed", EVENT_LOG_ACTIVITY, {99}, {AUDITOR}),
        _kind("log_time_unvouched", EVENT_LOG_ACTIVITY, {99}, {AUDITOR}),
        _kind("log_time_vouched", EVENT_LOG_ACTIVITY, {99}, {AUDITOR}),
        _kind("log_rotated", EVENT_LOG_ACTIVITY, {5}, {AUDITOR}),
        _kind("log_bodies_destroyed", EVENT_LOG_ACTIVITY, {2}, {AUDITOR}),
        _kind("log_exported", EVENT_LOG_ACTIVITY, {3}, {"supervisor", READER}),
        _kind("log_searched", EVENT_LOG_ACTIVITY, {99}, {AUDITOR, READER}),
    )
}


def verify_permitted(role: str, message: str, event: Json) -> EventKind:
    """Check that a peer of this role may append this event by this message, and that the event is what it says it is.

    What it holds of the members that a start reads back is of the right types.

    Raises: MalformedEntry, NotPermitted.
    """
    kind = KINDS.get(kind_of(event))
    if kind is None:
        raise NotPermitted(f"event kind {kind_of(event)!r}: is not in the table of events")
    if role not in kind.roles or message != kind.message:
        raise NotPermitted(f"event kind {kind.name!r}: a process of role {role} may not append it as {message}")
    activity_id = event.get("activity_id")
    if not isinstance(activity_id, int) or activity_id not in kind.activity_ids:
        raise MalformedEntry(f"event kind {kind.name!r}: `activity_id` is {activity_id!r}, which it cannot be")
    expected = (kind.class_uid // 1000, kind.class_uid, kind.class_uid * 100 + activity_id)
    found = (event.get("category_uid"), event.get("class_uid"), event.get("type_uid"))
    if found != expected:
        raise MalformedEntry(
            f"event kind {kind.name!r}: `category_uid`, `class_uid`, `type_uid` are {found}, expected {expected}"
        )
    verify_summarizable(event)
    return kind


def kind_of(event: Json) -> str:
    """The kind that an event says it is.

    Raises: MalformedEntry.
    """
    unmapped = event.get("unmapped")
    own = unmapped.get("casemate") if isinstance(unmapped, dict) else None
    kind = own.get("kind") if isinstance(own, dict) else None
    if not isinstance(kind, str):
        raise MalformedEntry("event: `unmapped.casemate.kind` is missing or no text")
    return kind[:64]
