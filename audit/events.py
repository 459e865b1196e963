"""Builders of the events that are logged: OCSF, in the restricted form, without what only the auditor may set.

One function an event kind; each takes plain values and gives a JSON object for `entry.encode_event`. What OCSF has a place
for stands there; the rest is in `unmapped.casemate`, with the event's `kind` (see `permissions`). Fractions are strings.

Here are the events of requests, tokens, processes, models, the host and the log; `changes` has those of administration. All kinds,
with their classes and who may append them, are listed in `permissions` and in docs/audit.md.

Source: OCSF 1.9.0-dev.
"""

from collections.abc import Mapping

import msgspec

from audit.entry import Json
from audit.event_form import (
    ALLOWED,
    DENIED,
    FAILURE,
    HIGH,
    INFORMATIONAL,
    LOW,
    MEDIUM,
    SUCCESS,
    SUPERVISOR,
    UNKNOWN,
    aggregate,
    application_of,
    endpoint_of,
    new_event,
    place_host_actor,
)
from audit.event_form import PRODUCT_VERSION as PRODUCT_VERSION
from audit.permissions import KINDS


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks, on whose behalf, by which token, from where."""

    client_id: str
    subject: str
    tenant: str
    role: str
    token_issuer: str
    token_key_id: str
    token_id: str
    """The token's `jti`; the token itself is never logged."""
    address: str
    port: int


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """Which request, and of which model."""

    request_uid: str
    trace_id: str
    """W3C trace id, 32 hexadecimal digits; empty where the request has none."""
    route: str
    model: str
    engine_build: str
    http_method: str = "POST"


class TokenCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of one request, as one party counted them."""

    prompt_tokens: int
    cached_tokens: int
    output_tokens: int


def intent_event(
    caller: Caller,
    call: Call,
    *,
    parameters: Mapping[str, str | int],
    prompt_hash: str,
    prompt_key_id: str,
    prompt_tokens: int,
    token_limit: int,
    reservation: int,
    decision: str = "allowed",
    body: Mapping[str, str | int] | None = None,
) -> Json:
    """A request was allowed and is about to be served; written before its first token.

    Args:
        body: where its prompt lies sealed, and the digest of the ciphertext; None where policy keeps none.
    """
    event = _api_activity("inference_intent", 1, caller, call, UNKNOWN, INFORMATIONAL, ALLOWED)
    event["message_context"] = {"ai_role_id": 1, "prompt_tokens": prompt_tokens, "service": {"name": call.model}}
    event["unmapped"]["casemate"] |= {
        "decision": decision,
        "parameters": dict(parameters),
        "prompt_hash": prompt_hash,
        "prompt_key_id": prompt_key_id,
        "reservation": reservation,
        "token_limit": token_limit,
    }
    if body is not None:
        event["unmapped"]["casemate"]["prompt_body"] = dict(body)
    return event


def denied_event(caller: Caller, call: Call, *, code: str, detail: str, http_status: int) -> Json:
    """A request was refused by policy after its token had been accepted: its client, role, model or quota."""
    event = _api_activity("inference_denied", 1, caller, call, FAILURE, LOW, DENIED)
    event["http_response"] = {"code": http_status}
    event["unmapped"]["casemate"]["decision"] = code
    return event | {"status_code": code, "status_detail": detail}


def request_event(kind: str, caller: Caller, call: Call, *, facts: Mapping[str, str | int]) -> Json:
    """A request that is no inference, and changes something; written before it does.

    Args:
        kind: response_deleted or cache_flushed.
        call: its `model` and `engine_build` are empty.
    """
    profiles = ("security_control", "trace") if call.trace_id else ("security_control",)
    event = new_event(kind, min(KINDS[kind].activity_ids), SUCCESS, INFORMATIONAL, profiles)
    _place_request(event, caller, call, ALLOWED)
    event["unmapped"]["casemate"] |= facts
    return event


def outcome_event(
    caller: Caller,
    call: Call,
    *,
    intent_index: int,
    reason: str,
    is_success: bool,
    counts: TokenCounts,
    answer_hash: str,
    answer_key_id: str,
    http_status: int,
    first_token_ms: int | None,
    total_ms: int,
    body: Mapping[str, str | int] | None = None,
    num_cut: int = 0,
) -> Json:
    """How a request ended, as the gateway saw it.

    Args:
        reason: why it ended: stop, length, disconnected, cancelled, engine_lost and the like.
        first_token_ms: from the request's arrival to the first byte of its answer; None when there was none.
        body: where its answer lies sealed; None where policy keeps none.
        num_cut: choices that the gateway ended at a stop string, of which the engine knows nothing.
    """
    status, severity = (SUCCESS, INFORMATIONAL) if is_success else (FAILURE, LOW)
    event = _api_activity("inference_outcome", 3, caller, call, status, severity, ALLOWED)
    event["status_code"] = reason
    event["message_context"] = message_context(call.model, counts)
    event["http_response"] = {"code": http_status, "latency": total_ms}
    own = event["unmapped"]["casemate"]
    own |= {
        "answer_hash": answer_hash,
        "answer_key_id": answer_key_id,
        "cached_tokens": counts.cached_tokens,
        "intent_index": intent_index,
        "total_ms": total_ms,
    }
    if first_token_ms is not None:
        own["first_token_ms"] = first_token_ms
    if num_cut:
        own["num_cut"] = num_cut
    if body is not None:
        own["answer_body"] = dict(body)
    return event


def message_context(model: str, counts: TokenCounts) -> Json:
    """Token counts in the place that OCSF has for them."""
    return {
        "ai_role_id": 2,
        "completion_tokens": counts.output_tokens,
        "prompt_tokens": counts.prompt_tokens,
        "service": {"name": model},
        "total_tokens": counts.prompt_tokens + counts.output_tokens,
    }


def token_issued_event(
    *,
    client_id: str,
    subject: str,
    tenant: str,
    address: str,
    port: int,
    issuer: str,
    token_id: str,
    token_key_id: str,
    scope: str,
    expires_at_ms: int,
    grant_type: str = "client_credentials",
    actor: str = "",
    bound_to: str = "",
) -> Json:
    """The authority gave out an access token.

    Args:
        actor: the service that acts for the subject, after a token exchange.
        bound_to: the thumbprint of the key or certificate without which the token is no good.
    """
    event = _authentication("token_issued", client_id, subject, address, port, "token endpoint", SUCCESS, INFORMATIONAL)
    event["metadata"]["tenant_uid"] = tenant
    event["session"] = {"expiration_time": expires_at_ms, "issuer": issuer, "uid": token_id}
    own = event["unmapped"]["casemate"]
    own |= {"grant_type": grant_type, "scope": scope, "token_key_id": token_key_id}
    own |= {name: value for name, value in (("acting_client", actor), ("bound_to", bound_to)) if value}
    return event


def sign_in_event(kind: str, *, login: str, user_id: str, client_id: str, address: str, port: int, detail: str) -> Json:
    """A person signed in or out, or failed to; or a refresh token came back that had been replaced.

    Args:
        kind: user_signed_in, user_sign_in_failed, user_signed_out or refresh_token_reused.
        login: as it was typed, which may be anything; empty where only the id is known.
        user_id: empty if there is no such person.
    """
    is_failure = kind in ("user_sign_in_failed", "refresh_token_reused")
    status, severity = (FAILURE, MEDIUM) if is_failure else (SUCCESS, INFORMATIONAL)
    event = _authentication(kind, client_id, user_id or login, address, port, "sign-in", status, severity)
    event |= {"activity_id": min(KINDS[kind].activity_ids)}
    event["type_uid"] = event["class_uid"] * 100 + event["activity_id"]
    event["user"] = {"type_id": 1, **({"uid": user_id} if user_id else {}), "name": login or user_id or "unknown"}
    return event | {"status_detail": detail} if detail else event


def token_refused_event(*, client_id: str, address: str, port: int, code: str, detail: str) -> Json:
    """The authority refused to give out a token. `client_id` is what was claimed, and may be anything."""
    event = _authentication("token_refused", client_id, client_id, address, port, "token endpoint", FAILURE, LOW)
    return event | {"status_code": code, "status_detail": detail}


def token_rejected_event(
    *,
    address: str,
    port: int,
    route: str,
    code: str,
    detail: str,
    service: str = "gateway",
    client_id: str = "",
    subject: str = "",
    tenant: str = "",
    token_id: str = "",
    num_times: int = 1,
    first_ms: int = 0,
    last_ms: int = 0,
) -> Json:
    """An access token was rejected, or there was none; or it was good, and did not suffice for what was asked.

    Args:
        service: which listener's, `gateway` or `admin API`.
        client_id, subject, tenant, token_id: only of a token that was good; of several requests, the last one's token.
        num_times: how many of the same kind from the same source this record stands for.
        first_ms, last_ms: when the first and the last of several came.
    """
    event = _authentication("token_rejected", client_id, subject or client_id, address, port, service, FAILURE, LOW)
    if tenant:
        event["metadata"]["tenant_uid"] = tenant
    if token_id:
        event["session"] = {"uid": token_id}
    event["unmapped"]["casemate"]["route"] = route
    aggregate(event, num_times, first_ms, last_ms)
    return event | {"status_code": code, "status_detail": detail}


def process_event(
    kind: str, *, role: str, instance: int, pid: int, detail: str = "", exit_code: int | None = None, restarts: int = 0
) -> Json:
    """A process of the appliance changed its state; `kind` is process_started, _stopped, _crashed or _restarted."""
    activity_id = min(KINDS[kind].activity_ids)
    is_failure = kind == "process_crashed"
    status, severity = (FAILURE, HIGH) if is_failure else (SUCCESS, INFORMATIONAL)
    event = new_event(kind, activity_id, status, severity, profiles=("host",))
    place_host_actor(event, SUPERVISOR)
    own = event["unmapped"]["casemate"]
    own |= {"instance": instance, "pid": pid, "restarts": restarts, "role": role}
    if exit_code is not None:
        own["exit_code"] = exit_code
    if detail:
        event["status_detail"] = detail
    event["app"] = application_of(f"casemate-{role}", f"{role}/{instance}")
    return event


def configuration_event(
    kind: str, *, name: str, digest: str, detail: str = "", facts: Mapping[str, str | int] | None = None
) -> Json:
    """Something that decides over answers was put to use; `kind` is model_loaded, model_unloaded or policy_loaded."""
    event = new_event(kind, min(KINDS[kind].activity_ids), SUCCESS, INFORMATIONAL)
    event["app"] = application_of(name, digest)
    event["unmapped"]["casemate"] |= {**(facts or {}), "digest": digest}
    if detail:
        event["status_detail"] = detail
    return event


HOST_FAILURES = (
    "model_import_refused", "model_verification_failed", "software_install_refused", "egress_open", "segments_apply_failed",
    "notices_missing", "start_refused",
)  # fmt: skip
HOST_KINDS = (
    "model_imported", "model_approved", "model_promoted", "model_retired", "model_verified", "roles_installed",
    "statement_measured", "software_installed", "software_switched", "software_rolled_back", "egress_tested",
    "segments_applied", *HOST_FAILURES,
)  # fmt: skip


def host_event(
    kind: str, *, name: str, digest: str, actor: str, at_ms: int, facts: Mapping[str, str | int], detail: str = ""
) -> Json:
    """Something happened to a model, to the software or to the host; `kind` is one of HOST_KINDS.

    Args:
        actor: who did it: the person whose key signed, by the role file's name; else `os:NAME`, the system's user; else the
            process itself.
        at_ms: when that was; the record's own time is when it reached the auditor.
    """
    is_failure = kind in HOST_FAILURES
    status, severity = (FAILURE, HIGH) if is_failure else (SUCCESS, INFORMATIONAL)
    event = new_event(kind, min(KINDS[kind].activity_ids), status, severity, profiles=("host",))
    place_host_actor(event, actor)
    event["app"] = application_of(name, digest)
    event["unmapped"]["casemate"] |= {"changed_at_ms": at_ms, "digest": digest, "facts": dict(facts)}
    if detail:
        event["status_detail"] = detail
    return event


def log_event(
    kind: str, *, log_name: str, facts: Mapping[str, str | int], detail: str = "", is_failure: bool = False
) -> Json:
    """Something happened to the log itself; `kind` is one of log_*. The auditor's own."""
    event = new_event(
        kind, min(KINDS[kind].activity_ids), FAILURE if is_failure else SUCCESS, HIGH if is_failure else INFORMATIONAL
    )
    event |= {"log_name": log_name, "log_provider": "casemate-auditor", "log_type_id": 2}
    event["unmapped"]["casemate"] |= dict(facts)
    if detail:
        event["status_detail"] = detail
    return event


def _api_activity(
    kind: str, activity_id: int, caller: Caller, call: Call, status_id: int, severity_id: int, action_id: int
) -> Json:
    profiles = ("ai_operation", "security_control", "trace") if call.trace_id else ("ai_operation", "security_control")
    event = new_event(kind, activity_id, status_id, severity_id, profiles)
    event["metadata"]["correlation_uid"] = call.request_uid
    _place_request(event, caller, call, action_id)
    return event | {"ai_model": {"ai_provider": "Casemate", "name": call.model, "version": call.engine_build}}


def _place_request(event: Json, caller: Caller, call: Call, action_id: int) -> None:
    """Who asks for what, from where, in which trace."""
    own, uid = event["unmapped"]["casemate"], call.request_uid
    event["metadata"]["tenant_uid"] = caller.tenant
    own["request_uid"], own["role"], own["token_key_id"] = uid, caller.role, caller.token_key_id
    event |= {
        "action_id": action_id,
        "actor": {
            "app_uid": caller.client_id,
            "session": {"issuer": caller.token_issuer, "uid": caller.token_id},
            "user": {"type_id": 4 if caller.subject == caller.client_id else 1, "uid": caller.subject},
        },
        "api": {
            "operation": f"{call.http_method} {call.route}",
            "request": {"uid": uid},
            "service": {"name": "casemate"},
        },
        "http_request": {"http_method": call.http_method, "url": {"path": call.route}},
        "src_endpoint": endpoint_of(caller.address, caller.port),
    }
    if call.trace_id:
        event["trace"] = {"uid": call.trace_id}


def _authentication(
    kind: str, client_id: str, subject: str, address: str, port: int, service: str, status_id: int, severity_id: int
) -> Json:
    event = new_event(kind, 1, status_id, severity_id)
    is_service = subject == client_id
    user: Json = {"name": "unknown"} if not subject else {"type_id": 4 if is_service else 1, "uid": subject}
    event |= {
        "auth_protocol_id": 6,
        "service": {"name": f"casemate {service}"},
        "src_endpoint": endpoint_of(address, port),
        "user": user,
    }
    if client_id:
        event["actor"] = {"app_uid": client_id}
    return event
