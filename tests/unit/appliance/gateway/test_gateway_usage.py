"""`usage` over several prompts: what is counted, and which details there are."""

from types import SimpleNamespace

import msgspec

from appliance.gateway.api.streaming import usage
from runtime.request import RequestSummary


def generation(*, accepted: int = 0, proposed: int = 0, is_over: bool = True) -> SimpleNamespace:
    """A generation of 10 prompt tokens, 4 of them cached, and 5 of output."""
    summary = RequestSummary(1, 10, 4, 5, 0, 5, num_verified=2, num_proposed=proposed, num_accepted=accepted)
    return SimpleNamespace(
        num_prompt_tokens=10, num_cached_tokens=4, num_output_tokens=5, summary=summary if is_over else None
    )


def counted(*generations: SimpleNamespace, reasoning: int | None = None) -> dict[str, object]:
    """As a client reads it."""
    found: dict[str, object] = msgspec.to_builtins(usage(generations, reasoning))  # type: ignore[arg-type]
    return found


def test_tokens_are_summed_and_details_are_left_out_where_there_are_none() -> None:
    """Two prompts of an engine that does not speculate."""
    assert counted(generation(), generation()) == {
        "prompt_tokens": 20,
        "completion_tokens": 10,
        "total_tokens": 30,
        "prompt_tokens_details": {"cached_tokens": 8},
    }


def test_drafts_are_told_as_predictions() -> None:
    """Accepted and rejected ones of all prompts; none while the summary is not there."""
    details = counted(generation(accepted=3, proposed=10), generation(accepted=1, proposed=2))[
        "completion_tokens_details"
    ]
    assert details == {"accepted_prediction_tokens": 4, "rejected_prediction_tokens": 8, "spec_verify_ct": 4}
    assert "completion_tokens_details" not in counted(generation(accepted=3, proposed=10, is_over=False))


def test_reasoning_is_told_beside_drafts() -> None:
    """Each by its name, and alone where there is no other."""
    assert counted(generation(), reasoning=0)["completion_tokens_details"] == {"reasoning_tokens": 0}
    assert counted(generation(accepted=1, proposed=2), reasoning=3)["completion_tokens_details"] == {
        "reasoning_tokens": 3,
        "accepted_prediction_tokens": 1,
        "rejected_prediction_tokens": 1,
        "spec_verify_ct": 2,
    }
