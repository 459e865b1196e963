"""Percentiles and rates of what a fleet saw."""

from collections.abc import Iterable, Sequence
from typing import Any

from appliance.bench.connection import Answer

PERCENTILES = (50, 90, 95, 99)


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Of values in order: the smallest one that so many percent are not above."""
    return ordered[min(len(ordered) - 1, int(percent / 100 * len(ordered)))]


def spread_ms(seconds: Iterable[float], digits: int = 2) -> dict[str, float]:
    """Mean and percentiles in milliseconds; empty for no values."""
    ordered = sorted(seconds)
    if not ordered:
        return {}
    values = {f"p{percent}": percentile(ordered, percent) for percent in PERCENTILES}
    values = {"mean": sum(ordered) / len(ordered), **values, "max": ordered[-1]}
    return {name: round(1000 * value, digits) for name, value in values.items()}


def first_token_s(answer: Answer) -> float:
    """Time to the first token (TTFT)."""
    return answer.arrivals[0] - answer.started_at


def per_token_s(answer: Answer) -> float:
    """Mean time of the output tokens after the first (TPOT)."""
    return (answer.arrivals[-1] - answer.arrivals[0]) / max(1, answer.output_tokens - 1)


def gaps_s(answers: Iterable[Answer]) -> list[float]:
    """Between two events of one stream (ITL)."""
    return [
        later - earlier
        for answer in answers
        for earlier, later in zip(answer.arrivals, answer.arrivals[1:], strict=False)
    ]


def summarize(answers: Sequence[Answer], *, ttft_goal_s: float = 0.0, tpot_goal_s: float = 0.0) -> dict[str, Any]:
    """Everything that one run says, rates over the time from the first request to the last token.

    Args:
        ttft_goal_s, tpot_goal_s: goodput counts the requests that meet both; 0 asks for nothing.
    """
    good = [answer for answer in answers if not answer.error]
    errors = [answer.error for answer in answers if answer.error]
    summary: dict[str, Any] = {"requests": len(good), "errors": len(errors)}
    if errors:
        summary["first_error"] = errors[0]
    if not good:
        return summary
    wall_s = max(answer.arrivals[-1] for answer in good) - min(answer.started_at for answer in good)
    prompt_tokens = sum(answer.prompt_tokens for answer in good)
    met = [
        answer
        for answer in good
        if (not ttft_goal_s or first_token_s(answer) <= ttft_goal_s)
        and (not tpot_goal_s or per_token_s(answer) <= tpot_goal_s)
    ]
    return summary | {
        "wall_s": round(wall_s, 3),
        "requests_per_s": round(len(good) / wall_s, 2),
        "goodput_requests_per_s": round(len(met) / wall_s, 2),
        "output_tokens_per_s": round(sum(answer.output_tokens for answer in good) / wall_s, 1),
        "prompt_tokens_per_s": round(prompt_tokens / wall_s, 1),
        "cached_share": round(sum(answer.cached_tokens for answer in good) / max(1, prompt_tokens), 4),
        "ttft_ms": spread_ms(first_token_s(answer) for answer in good),
        "tpot_ms": spread_ms((per_token_s(answer) for answer in good if answer.output_tokens > 1), 3),
        "itl_ms": spread_ms(gaps_s(good)),
        "e2e_ms": spread_ms(answer.arrivals[-1] - answer.started_at for answer in good),
    }
