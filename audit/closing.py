"""Events that the auditor makes from an intent that is in the log: outcomes that no gateway told, and counts that came late.

Who asked, from where and for what is copied from the intent itself, so that these records stand on their own like all others.
"""

import copy

import msgspec

from audit.entry import Json
from audit.errors import MalformedEntry
from audit.event_form import FAILURE, INFORMATIONAL, LOW, MEDIUM, SUCCESS
from audit.events import TokenCounts, message_context

_COPIED = ("action_id", "actor", "ai_model", "api", "http_request", "src_endpoint", "trace")
_COPIED_METADATA = ("correlation_uid", "product", "profiles", "tenant_uid", "version")
_COPIED_OWN = ("request_uid", "role", "token_key_id")
_encoder = msgspec.json.Encoder()


def closing_event(intent: Json, intent_index: int, reason: str, detail: str, engine: Json | None) -> Json:
    """The outcome of a request whose gateway cannot tell it any more.

    Args:
        intent: the intent's leaf, parsed.
        engine: what the engine counted (see `engine_counts`), or None where it told nothing.
    """
    event = _from_intent(intent, "inference_outcome", intent_index)
    event |= {"severity_id": MEDIUM, "status_code": reason, "status_detail": detail, "status_id": FAILURE}
    add_engine_counts(event, engine)
    return event


def late_count_event(intent: Json, intent_index: int, engine: Json, outcome: Json | None = None) -> Json:
    """What the engine counted for a request whose outcome was recorded before without it, and how that stands to the outcome.

    Args:
        outcome: its leaf, parsed; None where it is not at hand.
    """
    event = _from_intent(intent, "inference_late_count", intent_index)
    event |= {"severity_id": LOW, "status_id": SUCCESS}
    add_engine_counts(event, engine)
    told = {} if outcome is None else outcome.get("message_context")
    if outcome is not None and isinstance(told, dict) and "completion_tokens" in told:
        own = event["unmapped"]["casemate"]
        own["counts"] = _compare(told, outcome["unmapped"]["casemate"], engine)
        if own["counts"] == "differ":
            event["severity_id"] = MEDIUM
    return event


def engine_counts(counts: TokenCounts, reason: str, delivered_tokens: int | None = None) -> Json:
    """The engine's own words on a request, as they stand in an outcome.

    Args:
        counts: what counts after the gateway's cuts.
        delivered_tokens: all output tokens that left the engine; None where these are the ones that count.
    """
    return {
        "cached_tokens": counts.cached_tokens,
        "delivered_tokens": counts.output_tokens if delivered_tokens is None else delivered_tokens,
        "output_tokens": counts.output_tokens,
        "prompt_tokens": counts.prompt_tokens,
        "reason": reason,
    }


def shared_members(event: Json) -> bytes:
    """What an outcome has in common with its intent: who asked, of which tenant, by which token, from where, for what.

    Args:
        event: from `parse_canonical`, so that its members are in order, and let pass by `audit.permissions.verify_permitted`.
    Returns: bytes to compare: the outcome's equal the intent's.
    """
    metadata, own = event["metadata"], event["unmapped"]["casemate"]
    shared = [event.get(name) for name in _COPIED], metadata.get("correlation_uid"), metadata.get("tenant_uid")
    return _encoder.encode((*shared, [own.get(name) for name in _COPIED_OWN]))


def prompt_tokens_of(event: Json) -> object:
    """The length of the prompt as an intent or an outcome tells it; None where it does not."""
    context = event.get("message_context")
    return context.get("prompt_tokens") if isinstance(context, dict) else None


def verify_outcome(event: Json) -> None:
    """Check that the engine's counts can be put beside a peer's outcome.

    Raises: MalformedEntry.
    """
    for name in ("ai_model", "message_context"):
        if not isinstance(event.get(name, {}), dict):
            raise MalformedEntry(f"outcome: `{name}` is no object")
    if not isinstance(event.get("ai_model", {}).get("name", ""), str):
        raise MalformedEntry("outcome: `ai_model.name` is no text")
    if not isinstance(event.get("severity_id", INFORMATIONAL), int):
        raise MalformedEntry("outcome: `severity_id` is no integer")


def add_engine_counts(event: Json, engine: Json | None) -> None:
    """Put the engine's counts beside the gateway's and say whether they agree, in place.

    `unmapped.casemate.counts` is `agree`, `cut`, `differ`, `unreported` (the engine told nothing) or `engine_only` (the
    gateway told nothing). `cut`: the gateway counts fewer tokens than left the engine, as after a stop string; how many more is
    in `engine.delivered_tokens`, so that a gateway which takes back what it passed on shows. A difference raises the
    severity: one of the two is wrong, or lies.

    Where the gateway ended the request or one of its choices, as its client left, its quota was used up or a stop string came, the
    engine may have ended it by itself just before, and counts what the gateway had not passed on and does not count: that is `cut`
    as well. A gateway gains nothing by such an end that a cut in time would not give it. Counts that come after the outcome are
    held to the cuts that the engine knows of.

    Args:
        event: the auditor's own, or one that `verify_outcome` let pass.
    """
    own = event["unmapped"]["casemate"]
    if engine is None:
        own["counts"] = "unreported"
        return
    own["engine"] = engine
    told = event.get("message_context")
    if not isinstance(told, dict) or "completion_tokens" not in told:
        event["message_context"] = message_context(
            event.get("ai_model", {}).get("name", "unknown"),
            TokenCounts(
                prompt_tokens=engine["prompt_tokens"],
                cached_tokens=engine["cached_tokens"],
                output_tokens=engine["output_tokens"],
            ),
        )
        own["counts"] = "engine_only"
        return
    was_ended = event.get("status_id") == FAILURE or bool(own.get("num_cut"))
    own["counts"] = _compare(told, own, engine, was_ended=was_ended)
    if own["counts"] == "differ":
        event["severity_id"] = max(MEDIUM, event.get("severity_id", INFORMATIONAL))


def _compare(told: Json, own: Json, engine: Json, *, was_ended: bool = False) -> str:
    """How the gateway's counts stand to the engine's. `was_ended`: by the gateway, of which the engine may not know."""
    if (told.get("prompt_tokens"), own.get("cached_tokens")) != (engine["prompt_tokens"], engine["cached_tokens"]):
        return "differ"
    output, kept, delivered = told.get("completion_tokens"), engine["output_tokens"], engine["delivered_tokens"]
    if not isinstance(output, int) or not (0 if was_ended else kept) <= output <= delivered:
        return "differ"
    return "agree" if output == delivered else "cut"


def _from_intent(intent: Json, kind: str, intent_index: int) -> Json:
    event: Json = {name: copy.deepcopy(intent[name]) for name in _COPIED if name in intent}
    metadata = intent["metadata"]
    own = intent["unmapped"]["casemate"]
    return event | {
        "activity_id": 3,
        "category_uid": 6,
        "class_uid": 6003,
        "metadata": {name: copy.deepcopy(metadata[name]) for name in _COPIED_METADATA if name in metadata},
        "type_uid": 600303,
        "unmapped": {
            "casemate": {name: own[name] for name in _COPIED_OWN if name in own}
            | {"intent_index": intent_index, "kind": kind}
        },
    }
