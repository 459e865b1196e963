"""How a gateway's counts stand to the engine's where the gateway ended a request that the engine may have ended as well."""

import pytest

from audit import closing, events
from audit.entry import Json
from audit.event_form import INFORMATIONAL, LOW, MEDIUM

CALLER = events.Caller(
    client_id="demo", subject="demo", tenant="t1", role="user", token_issuer="https://issuer", token_key_id="k1",
    token_id="jti-1", address="192.0.2.1", port=4711,
)  # fmt: skip
CALL = events.Call(request_uid="req-1", trace_id="", route="/v1/completions", model="m", engine_build="b1")


def compared(told: int, *, reason: str, kept: int, delivered: int, cached: int = 4, num_cut: int = 0) -> Json:
    """The outcome of a request for which the gateway tells `told` tokens, beside the engine's counts."""
    event = events.outcome_event(
        CALLER, CALL, intent_index=3, reason=reason, is_success=reason in ("stop", "length"),
        counts=events.TokenCounts(prompt_tokens=12, cached_tokens=4, output_tokens=told), answer_hash="00",
        answer_key_id="k", http_status=200, first_token_ms=5, total_ms=80, num_cut=num_cut,
    )  # fmt: skip
    counts = events.TokenCounts(prompt_tokens=12, cached_tokens=cached, output_tokens=kept)
    closing.add_engine_counts(event, closing.engine_counts(counts, "finished", delivered))
    return event


@pytest.mark.parametrize("reason", ["client_disconnected", "quota_exhausted", "policy_unavailable"])
@pytest.mark.parametrize(("told", "kept"), [(498, 1200), (0, 1200), (1199, 1200), (498, 498), (498, 700)])
def test_an_end_that_crosses_the_engines_own_is_a_cut(reason: str, told: int, kept: int) -> None:
    """The engine has delivered all of it, and has not heard that less counts: no alarm, and both numbers stand there."""
    event = compared(told, reason=reason, kept=kept, delivered=1200)
    own = event["unmapped"]["casemate"]
    assert (own["counts"], event["severity_id"]) == ("cut", LOW)
    assert (event["message_context"]["completion_tokens"], own["engine"]["delivered_tokens"]) == (told, 1200)


@pytest.mark.parametrize("reason", ["stop", "length"])
def test_an_answer_that_came_to_its_end_counts_what_the_engine_counts(reason: str) -> None:
    """Who passes all of it on and tells of less lies."""
    assert compared(498, reason=reason, kept=1200, delivered=1200)["unmapped"]["casemate"]["counts"] == "differ"
    assert compared(1200, reason=reason, kept=1200, delivered=1200)["unmapped"]["casemate"]["counts"] == "agree"


@pytest.mark.parametrize("reason", ["stop", "length"])
def test_a_stop_string_that_is_found_behind_the_engines_end_is_a_cut(reason: str) -> None:
    """Its client read late; another choice may have come to its length."""
    event = compared(974, reason=reason, kept=980, delivered=980, num_cut=1)
    assert (event["unmapped"]["casemate"]["counts"], event["severity_id"]) == ("cut", INFORMATIONAL)


def test_an_end_by_the_gateway_excuses_nothing_else() -> None:
    """Neither tokens that the engine never gave nor other prompts."""
    made_up = compared(1201, reason="client_disconnected", kept=1200, delivered=1200)
    other = compared(498, reason="client_disconnected", kept=1200, delivered=1200, cached=0)
    for event in (made_up, other):
        assert (event["unmapped"]["casemate"]["counts"], event["severity_id"]) == ("differ", MEDIUM)


def test_counts_that_come_after_the_outcome_are_held_to_known_cuts() -> None:
    """A gateway that tells an end and lets the engine go on is found out."""
    outcome = compared(2, reason="client_disconnected", kept=2, delivered=2)
    del outcome["unmapped"]["casemate"]["engine"]
    counts = events.TokenCounts(prompt_tokens=12, cached_tokens=4, output_tokens=4_000)
    late = closing.late_count_event(outcome, 3, closing.engine_counts(counts, "finished"), outcome)
    assert late["unmapped"]["casemate"]["counts"] == "differ"
