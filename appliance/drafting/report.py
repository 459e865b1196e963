"""What a training of a head reports: a table for the terminal, and `report.json` beside the head."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runtime.training.draft.course import HeadReport
from runtime.training.draft.measuring import KindFigures

REPORT_FILE = "report.json"


def format_table(kinds: Sequence[KindFigures]) -> str:
    """Acceptance by kind and position, beside the two-gram's, as a Markdown table."""
    num_drafts = kinds[0].head.num_drafts if kinds else 0
    positions = [f"{place + 1}" for place in range(num_drafts)]
    lines = [
        f"| kind | answers | acceptance length | {' | '.join(positions)} | two-gram | ratio |",
        f"|---|---:|---:|{'---:|' * (num_drafts + 2)}",
    ]
    for figures in kinds:
        rates = " | ".join(f"{100 * rate:.1f} %" for rate in figures.head.rates)
        ratio = figures.head.length / figures.two_gram.length if figures.two_gram.length else 0.0
        lines.append(
            f"| {figures.kind} | {figures.num_answers} | {figures.head.length:.2f} | {rates} "
            f"| {figures.two_gram.length:.2f} | {ratio:.2f} |"
        )
    return "\n".join(lines)


def describe(report: HeadReport) -> dict[str, Any]:
    """`report.json`."""
    return {
        "weights_bytes": report.size_bytes,
        "training_answers": report.num_answers,
        "training_answer_tokens": report.num_answer_tokens,
        "draft_vocab_size": report.draft_vocab_size,
        "draft_vocab_coverage": round(report.coverage, 5),
        "steps": report.num_steps,
        "training_s": round(report.elapsed_s, 1),
        "held_out": [figures.describe() for figures in report.kinds],
    }


def write_report(report: HeadReport, folder: Path) -> None:
    """Write `report.json`."""
    (folder / REPORT_FILE).write_text(json.dumps(describe(report), indent=2) + "\n", encoding="utf-8")
