"""Which drafts pay: a search over (steps, top-k, draft tokens) and batch sizes, with one model and head in memory.

Reading order: `Shape` and `find_shapes` (what the engine's own configuration accepts), `search`, `merge_plain`, `best_rows` and
`choose_shape` (what to write into the configuration), `format_table`. Imports no torch: who measures is passed in.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import msgspec

from appliance.errors import CommandFailed
from runtime.errors import EngineMisconfigured
from runtime.settings import EngineSettings
from runtime.speculative.options import speculation_options

NOISE = 0.03
"""Shapes are better than plain decoding from here on: measurements of the same differ by about as much."""
_TREE_TOKENS = (8, 16)
"""Verified at once with top-k above 1, where nothing is said."""


@dataclass(frozen=True, slots=True, order=True)
class Shape:
    """How much is drafted; the three options of the configuration."""

    num_steps: int
    topk: int
    num_draft_tokens: int

    def applied(self, settings: EngineSettings) -> EngineSettings:
        """The settings with these options."""
        return msgspec.structs.replace(
            settings,
            speculative_num_steps=self.num_steps,
            speculative_eagle_topk=self.topk,
            speculative_num_draft_tokens=self.num_draft_tokens,
        )

    @property
    def name(self) -> str:
        """In words."""
        if self == PLAIN:
            return "plain"
        steps = "1 step" if self.num_steps == 1 else f"{self.num_steps} steps"
        return f"{steps}, top-k {self.topk}, {self.num_draft_tokens} tokens"


PLAIN = Shape(0, 0, 0)
"""No drafts."""


class Speed(Protocol):
    """What is measured of a shape at a batch size; see `runtime.bench.speculation.DecodeSpeed`."""

    @property
    def tokens_per_s(self) -> float:
        """Of all answers together."""
        ...

    @property
    def round_s(self) -> float:
        """Of one step: verification of the drafts, and the next ones."""
        ...

    @property
    def acceptance_length(self) -> float:
        """Tokens that a pass over drafts gives, the model's own included."""
        ...


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    batch_size: int
    shape: Shape
    tokens_per_s: float
    acceptance_length: float
    round_ms: float
    speedup: float
    """Of plain decoding at the same batch size."""


@dataclass(frozen=True, slots=True)
class Shapes:
    """What will be tried, and what was refused with which words."""

    accepted: list[Shape]
    refused: dict[Shape, str]


def find_shapes(
    settings: EngineSettings,
    steps: Iterable[int],
    topks: Iterable[int],
    draft_tokens: Sequence[int],
    verify: Callable[[EngineSettings], object] = speculation_options,
) -> Shapes:
    """All combinations that the engine accepts.

    Args:
        settings: with speculation.
        draft_tokens: empty: a chain's steps and 1, and for trees `_TREE_TOKENS`.
        verify: raises EngineMisconfigured for what the engine refuses.
    """
    accepted: list[Shape] = []
    refused: dict[Shape, str] = {}
    for num_steps in steps:
        for topk in topks:
            for num_tokens in draft_tokens or ((num_steps + 1,) if topk == 1 else _TREE_TOKENS):
                shape = Shape(num_steps, topk, num_tokens)
                try:
                    verify(shape.applied(settings))
                except EngineMisconfigured as error:
                    refused[shape] = str(error)
                else:
                    accepted.append(shape)
    return Shapes(sorted(set(accepted)), refused)


def search(
    shapes: Sequence[Shape],
    batch_sizes: Sequence[int],
    measure: Callable[[Shape, int], Speed],
    on_row: Callable[[Row], None] = lambda row: None,
) -> list[Row]:
    """Measure plain decoding and every shape at every batch size, in this order.

    Raises: CommandFailed where plain decoding gave nothing to compare with.
    """
    rows = []
    for batch_size in batch_sizes:
        plain = 0.0
        for shape in (PLAIN, *shapes):
            speed = measure(shape, batch_size)
            if shape == PLAIN:
                plain = speed.tokens_per_s
                if not plain:
                    raise CommandFailed(
                        f"batch size {batch_size}: no step decoded so many answers: are they too short?"
                    )
            row = Row(
                batch_size,
                shape,
                speed.tokens_per_s,
                speed.acceptance_length,
                1000 * speed.round_s,
                speed.tokens_per_s / plain,
            )
            rows.append(row)
            on_row(row)
    return rows


def merge_plain(rows: Sequence[Row]) -> list[Row]:
    """One line of plain decoding a batch size, the median of those that were measured, and every gain over that one.

    What it takes differs between measurements of the same, on a small model by a quarter: a combination compared with an unlucky
    one alone would look good.
    """
    merged: list[Row] = []
    for batch_size in dict.fromkeys(row.batch_size for row in rows):
        own = [row for row in rows if row.batch_size == batch_size]
        plain = [row for row in own if row.shape == PLAIN]
        rate = statistics.median(row.tokens_per_s for row in plain)
        middle = replace(plain[0], tokens_per_s=rate, round_ms=statistics.median(row.round_ms for row in plain))
        drafts = [replace(row, speedup=row.tokens_per_s / rate) for row in own if row.shape != PLAIN]
        merged += [middle, *drafts]
    return merged


def best_rows(rows: Iterable[Row]) -> dict[int, Row]:
    """For each batch size the fastest; plain decoding where nothing is faster by more than `NOISE`."""
    best: dict[int, Row] = {}
    for row in rows:
        known = best.get(row.batch_size)
        if known is None or row.tokens_per_s > known.tokens_per_s * (1 + NOISE * (known.shape == PLAIN)):
            best[row.batch_size] = row
    return best


def choose_shape(rows: Sequence[Row]) -> Shape:
    """The one to configure: best over all batch sizes by geometric mean, if each engine step may draft less or nothing.

    An adaptive engine decodes plainly where drafts lose, so a loss at one size counts as nothing.
    """
    worth = {PLAIN: 0.0}
    for row in rows:
        if row.shape != PLAIN:
            gain = row.speedup if row.speedup > 1 + NOISE else 1.0
            worth[row.shape] = worth.get(row.shape, 0.0) + math.log(gain)
    return max(worth, key=lambda shape: worth[shape])


def configuration_lines(shape: Shape, head: str) -> list[str]:
    """What to write into the engine's entry; nothing for plain decoding."""
    if shape == PLAIN:
        return []
    return [
        'speculative_algorithm = "EAGLE3"',
        f'speculative_draft_model_path = "{head}"',
        f"speculative_num_steps = {shape.num_steps}",
        f"speculative_eagle_topk = {shape.topk}",
        f"speculative_num_draft_tokens = {shape.num_draft_tokens}",
    ]


def describe(row: Row) -> dict[str, float]:
    """A JSON line."""
    return {
        "batch_size": row.batch_size,
        "speculative_num_steps": row.shape.num_steps,
        "speculative_eagle_topk": row.shape.topk,
        "speculative_num_draft_tokens": row.shape.num_draft_tokens,
        "tokens_per_s": round(row.tokens_per_s, 2),
        "acceptance_length": round(row.acceptance_length, 3),
        "round_ms": round(row.round_ms, 3),
        "speedup": round(row.speedup, 3),
    }


def format_table(rows: Sequence[Row]) -> str:
    """All rows as a Markdown table, the best of each batch size marked."""
    best = best_rows(rows)
    lines = [
        "| batch | steps | top-k | draft tokens | tokens/s | acceptance length | round, ms | of plain | |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        shape = row.shape
        options = (
            "| plain | | |" if shape == PLAIN else f"| {shape.num_steps} | {shape.topk} | {shape.num_draft_tokens} |"
        )
        lines.append(
            f"| {row.batch_size} {options} {row.tokens_per_s:,.1f} | {row.acceptance_length:.2f} | {row.round_ms:.2f} "
            f"| {row.speedup:.2f} | {'best' if best[row.batch_size] is row else ''} |"
        )
    return "\n".join(lines)
