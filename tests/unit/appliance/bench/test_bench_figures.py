"""Rates and percentiles of answers whose times are known."""

import pytest

from appliance.bench.connection import Answer
from appliance.bench.figures import summarize


def answer(started_at: float, *arrivals: float, output_tokens: int = 0) -> Answer:
    return Answer(started_at, list(arrivals), output_tokens=output_tokens or len(arrivals), prompt_tokens=10)


def test_figures_are_what_the_times_say() -> None:
    """Two answers over four seconds."""
    summary = summarize([answer(10.0, 10.5, 11.5, 12.5), answer(11.0, 12.0, 14.0)])
    assert summary["wall_s"] == 4.0
    assert summary["output_tokens_per_s"] == pytest.approx(5 / 4, abs=0.06)
    assert summary["prompt_tokens_per_s"] == 20 / 4
    assert (summary["ttft_ms"]["p50"], summary["ttft_ms"]["max"]) == (1000, 1000)
    assert summary["tpot_ms"]["mean"] == 1500
    assert summary["itl_ms"]["max"] == 2000
    assert summary["e2e_ms"]["max"] == 3000


def test_time_per_token_counts_tokens_and_not_events() -> None:
    """Two events of five tokens each: a stream that sends several at once is not taken for slow."""
    summary = summarize([answer(0.0, 1.0, 2.0, output_tokens=11)])
    assert summary["tpot_ms"]["mean"] == 100


@pytest.mark.parametrize(("goals", "good"), [((0.6, 0.0), 1), ((0.0, 1.5), 1), ((1.0, 2.0), 2), ((0.1, 0.1), 0)])
def test_goodput_counts_who_meets_both_goals(goals: tuple[float, float], good: int) -> None:
    """Zero asks for nothing."""
    answers = [answer(10.0, 10.5, 11.5, 12.5), answer(11.0, 12.0, 14.0)]
    summary = summarize(answers, ttft_goal_s=goals[0], tpot_goal_s=goals[1])
    assert summary["goodput_requests_per_s"] == good / 4


def test_nothing_but_errors_has_no_rates() -> None:
    """And says the first of them."""
    assert summarize([Answer(0.0, error="503")]) == {"requests": 0, "errors": 1, "first_error": "503"}
