"""The results of `casemate bench serve` as one HTML page that needs nothing but itself."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from appliance.bench.connection import Answer
from appliance.bench.figures import first_token_s, gaps_s, per_token_s
from appliance.bench.plots import Axis, cumulative, line_plot

_STYLE = """
body { font: 15px/1.45 sans-serif; margin: 2em auto; max-width: 62em; color: #222; padding: 0 1em }
table { border-collapse: collapse; margin: 0.6em 0 1em } td, th { padding: 0.2em 0.8em; border-bottom: 1px solid #ddd }
td { text-align: right; font-variant-numeric: tabular-nums } th { text-align: left; font-weight: 600 }
svg { margin: 0.4em 0.6em 0.4em 0 } code { background: #f3f3f3; padding: 0.1em 0.3em }
"""
_RATES = (
    ("requests", "requests"),
    ("errors", "errors"),
    ("wall_s", "wall time, s"),
    ("output_tokens_per_s", "output tokens/s"),
    ("prompt_tokens_per_s", "prompt tokens/s"),
    ("requests_per_s", "requests/s"),
    ("goodput_requests_per_s", "goodput, requests/s"),
    ("cached_share", "share of prompt tokens from the cache"),
    ("load_cores", "cores that the load took"),
)
_SPREADS = (("ttft_ms", "TTFT, ms"), ("tpot_ms", "TPOT, ms"), ("itl_ms", "ITL, ms"), ("e2e_ms", "E2E, ms"))


@dataclass(frozen=True)
class Run:
    """One workload's result, and the answers that it sums up."""

    name: str
    summary: dict[str, Any]
    answers: Sequence[Answer]


def render_page(title: str, command: str, runs: Sequence[Run]) -> str:
    """The page: every run's figures and plots."""
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style></head><body>',
        f"<h1>{escape(title)}</h1>",
        f"<p><code>{escape(command)}</code></p>",
        "<p>TTFT: time to the first token. TPOT: mean time of the tokens after it. ITL: between two events of a stream. "
        "E2E: to the last token.</p>",
        *(_section(run) for run in runs),
        "</body></html>",
    ]
    return "\n".join(parts)


def _section(run: Run) -> str:
    good = [answer for answer in run.answers if not answer.error]
    parts = [f"<h2>{escape(run.name)}</h2>", _rates(run.summary)]
    if "first_error" in run.summary:
        parts.append(f"<p>First error: <code>{escape(str(run.summary['first_error']))}</code></p>")
    if good:
        parts += [_spreads(run.summary), *_plots(good)]
    return "\n".join(parts)


def _rates(summary: dict[str, Any]) -> str:
    rows = [f"<tr><th>{label}</th><td>{summary[key]:g}</td></tr>" for key, label in _RATES if key in summary]
    return f"<table>{''.join(rows)}</table>"


def _spreads(summary: dict[str, Any]) -> str:
    columns = next((list(summary[key]) for key, _ in _SPREADS if summary.get(key)), [])
    head = "".join(f"<th>{column}</th>" for column in columns)
    rows = [
        f"<tr><th>{label}</th>{''.join(f'<td>{summary[key][column]:g}</td>' for column in columns)}</tr>"
        for key, label in _SPREADS
        if summary.get(key)
    ]
    return f"<table><tr><th></th>{head}</tr>{''.join(rows)}</table>"


def _plots(answers: Sequence[Answer]) -> list[str]:
    several = [answer for answer in answers if answer.output_tokens > 1]
    plots = [_distribution("Time to first token", [1000 * first_token_s(answer) for answer in answers])]
    if several:
        plots.append(_distribution("Time per output token", [1000 * per_token_s(answer) for answer in several]))
        plots.append(_distribution("Between two events", [1000 * max(gap, 1e-6) for gap in gaps_s(several)]))
    return [*plots, _throughput(answers)]


def _distribution(title: str, values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    x = Axis("ms", max(low * 0.9, 1e-3), max(high * 1.1, low * 1.2, 2e-3), is_log=high > 20 * max(low, 1e-3))
    return line_plot(title, x, Axis("% of all", 0, 100), {"": cumulative(values)})


def _throughput(answers: Sequence[Answer]) -> str:
    """Events in each short part of the run."""
    began = min(answer.started_at for answer in answers)
    ended = max(answer.arrivals[-1] for answer in answers)
    width = max((ended - began) / 120, 0.05)
    counts = Counter(int((at - began) / width) for answer in answers for at in answer.arrivals)
    points = [((place + 0.5) * width, counts[place] / width) for place in range(max(counts) + 1)]
    x, y = Axis("s", 0, max(ended - began, width)), Axis("events/s", 0, 1.05 * max(counts.values()) / width)
    return line_plot("Events over time", x, y, {"": points})
