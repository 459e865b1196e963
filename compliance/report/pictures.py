"""What is drawn of a period: use, refusals and changes over time, and who used what.

What there was none of is not drawn, as an empty frame tells less than a word; the words are in `Pictures.absent`. A column
stands for a stretch of time that fits what there is: minutes for an hour of use, weeks for years.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from compliance.activity import DAY_MS, HOUR_MS, Activity, Bucket
from compliance.period import Period, format_time
from compliance.report.charts import Series, draw_bars, draw_columns
from compliance.report.drawing import Drawing

GOOD, BAD, NOTE, PLAIN = "#2e7d32", "#c62828", "#b26a00", "#1565c0"
MINUTE_MS = 60_000
_STRETCHES = {
    MINUTE_MS: "minute",
    10 * MINUTE_MS: "10 minutes",
    HOUR_MS: "hour",
    DAY_MS: "day",
    7 * DAY_MS: "week",
}
_MOST, _LEAST = 62, 24
"""Columns: more are too thin to tell apart, fewer are filled up with the quiet time around, as far as the period has some."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """The drawings, and in words what there was none of."""

    drawings: list[Drawing]
    absent: list[str]
    span: str
    """From when to when the columns go; empty where there are none."""


def choose_bucket(first_ms: int, last_ms: int) -> int:
    """The shortest stretch of time of which so many columns reach from the first record to the last."""
    for bucket_ms in _STRETCHES:
        if abs(last_ms - first_ms) <= _MOST * bucket_ms:
            return bucket_ms
    return max(_STRETCHES)


def draw_pictures(activity: Activity, period: Period, made_at_ms: int, width: float) -> Pictures:
    """Everything that there is to be drawn, each so wide."""
    until_ms = min(period.end_ms, made_at_ms)
    activity = _coarsen(activity)
    times, buckets = _fill_up(activity, period.start_ms, until_ms)
    labels, per = _label(times, activity.bucket_ms), _STRETCHES[activity.bucket_ms]
    charts = [
        (
            "requests",
            f"Requests per {per}",
            [
                Series("answered", PLAIN, tuple(bucket.requests - bucket.failed for bucket in buckets)),
                Series("failed", BAD, tuple(bucket.failed for bucket in buckets)),
            ],
        ),
        ("", f"Tokens per {per}", [Series("tokens", PLAIN, tuple(bucket.tokens for bucket in buckets))]),
        (
            "refusals",
            f"Refused sign-ins, tokens, requests per {per}",
            [Series("refusals", NOTE, tuple(bucket.refused for bucket in buckets))],
        ),
        (
            "changes",
            f"Changes of accounts, models, software per {per}",
            [Series("changes", GOOD, tuple(bucket.changes for bucket in buckets))],
        ),
    ]
    tables = [
        ("", "Requests by model", activity.models, PLAIN),
        ("", "Requests by program", activity.clients, PLAIN),
        ("requests in the name of people", "Requests by person", activity.people, PLAIN),
        ("", "How requests ended", activity.outcomes, PLAIN),
        ("", "Refusals by reason", activity.refusals, NOTE),
    ]
    drawings = [draw_columns(title, labels, series, width) for _, title, series in charts if _has_any(series)]
    drawings += [draw_bars(title, rank(counted), color, width) for _, title, counted, color in tables if counted]
    absent = [name for name, _, series in charts if name and not _has_any(series)]
    absent += [name for name, _, counted, _ in tables if name and activity.models and not counted]
    is_over_time = any(_has_any(series) for _, _, series in charts)
    span = f"Columns from {format_time(times[0])} to {format_time(times[-1] + activity.bucket_ms)}; times are in UTC."
    return Pictures(drawings, absent, span if is_over_time else "")


def rank(counted: Counter[str]) -> list[tuple[str, int]]:
    """The most first; equal ones by name, so that no order is left to chance."""
    return sorted(counted.items(), key=lambda item: (-item[1], item[0]))


def _coarsen(activity: Activity) -> Activity:
    """Longer stretches where there would be too many: a record that a clock gone astray dated may lie years from the others."""
    if not activity.buckets:
        return replace(activity, bucket_ms=max(activity.bucket_ms, MINUTE_MS))
    bucket_ms = max(activity.bucket_ms, choose_bucket(min(activity.buckets), max(activity.buckets)))
    gathered: dict[int, Bucket] = {}
    for start, bucket in activity.buckets.items():
        gathered.setdefault(start - start % bucket_ms, Bucket()).add(bucket)
    return replace(activity, bucket_ms=bucket_ms, buckets=gathered)


def _has_any(series: Sequence[Series]) -> bool:
    return any(any(one.values) for one in series)


def _fill_up(activity: Activity, start_ms: int, until_ms: int) -> tuple[list[int], list[Bucket]]:
    """Every stretch from the first record's to the last's, and quiet ones behind and before, within the period only."""
    timeline, bucket_ms = activity.timeline(), activity.bucket_ms
    while timeline and len(timeline) < _LEAST and timeline[-1][0] + bucket_ms < until_ms:
        timeline.append((timeline[-1][0] + bucket_ms, Bucket()))
    while timeline and len(timeline) < _LEAST and timeline[0][0] > start_ms:
        timeline.insert(0, (timeline[0][0] - bucket_ms, Bucket()))
    return [start for start, _ in timeline], [bucket for _, bucket in timeline]


def _label(times: Sequence[int], bucket_ms: int) -> list[str]:
    """`08:10` within a day, `11-26 08h` over several, `11-26` for days and weeks, `2026-11-26` for those of several years."""
    words = [format_time(time) for time in times]
    if bucket_ms >= DAY_MS:
        is_one_year = len({word[:4] for word in words}) == 1
        return [word[5:10] if is_one_year else word[:10] for word in words]
    if len({word[:10] for word in words}) == 1:
        return [word[11:16] for word in words]
    return [f"{word[5:10]} {word[11:13]}h" if bucket_ms == HOUR_MS else word[11:16] for word in words]
