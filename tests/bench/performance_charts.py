"""The tables of end-to-end figures in docs/performance.md and the charts beside them: `python -m tests.bench.performance_charts`.

Both are made from docs/performance.toml, so that they cannot differ: a new measurement goes into that file, and this is run. A
chart has what is measured in the table's first column, as a multiple of the best peer, so that every unit fits on one axis.
"""

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compliance.report.drawing import Box, Drawing, Label, Stroke, render_svg

DOCS = Path(__file__).parents[2] / "docs"
Cell = float | list[float] | None

_WIDTH, _LEFT, _RIGHT, _TOP, _ROW = 760, 152, 566, 70, 32
_COLUMNS = (634, 690, 744)
"""Right edges of the numbers: measured, peer, aim."""
_OURS, _PEER, _AIM, _INK, _FAINT, _PAPER = "#2f6fb0", "#5f6b76", "#d9731a", "#263238", "#d5dade", "#ffffff"


@dataclass(frozen=True)
class Row:
    """One figure of one workload."""

    figure: str
    seen: list[Cell]
    """One of each measured column."""
    workload: str = ""
    """Empty: that of the row above."""
    shape: str = ""
    peer: Cell = None
    aim: Cell = None
    chart: bool = False
    less_is_better: bool = False

    def speed(self, cell: Cell) -> float:
        """A cell as a multiple of the peer's speed."""
        assert isinstance(cell, int | float), f"{self.workload}: a chart shows single numbers"
        assert isinstance(self.peer, int | float), f"{self.workload}: a chart compares with a peer"
        return self.peer / cell if self.less_is_better else cell / self.peer


@dataclass(frozen=True)
class Table:
    """One table and its chart."""

    name: str
    title: str
    first_column: str
    measured: list[str]
    footnote: str
    rows: list[Row] = field(default_factory=list)


def load_tables(path: Path = DOCS / "performance.toml") -> list[Table]:
    """What the file holds; an unknown key is an error."""
    document: dict[str, list[dict[str, Any]]] = tomllib.loads(path.read_text())
    return [Table(**table | {"rows": [Row(**row) for row in table["rows"]]}) for table in document["tables"]]


def render_table(table: Table) -> str:
    """In Markdown."""
    numbers = [*table.measured, "best peer", "aimed at"]
    lines = [
        f"| {table.first_column} | figure | {' | '.join(numbers)} |",
        f"|---|---|{'---:|' * len(numbers)}",
    ]
    for row in table.rows:
        name = f"`{row.workload}`" if row.chart else row.workload
        cells = [f"{name} {row.shape}".strip(), row.figure, *map(_words, [*row.seen, row.peer, row.aim])]
        lines.append("".join(f"| {cell} " if cell else "| " for cell in cells) + "|")
    return "\n".join(lines)


def draw_chart(table: Table) -> Drawing:
    """A bar a workload; the peer is a line through all of them, the aim a mark."""
    rows = [row for row in table.rows if row.chart]
    longest = 1.04 * max(max(row.speed(row.seen[0]), row.speed(row.aim)) for row in rows)
    scale = (_RIGHT - _LEFT) / longest
    bottom = _TOP + _ROW * len(rows)
    drawing = Drawing(_WIDTH, bottom + 44, f"{table.title}: Casemate beside the best peer and the aim, by workload")
    drawing.shapes += [
        Box(0, 0, drawing.width, drawing.height, _PAPER),
        Label(16, 24, table.title, 15, _INK, is_bold=True),
        *_legend(),
    ]
    for step in range(int(longest / 0.25) + 1):
        at = _LEFT + 0.25 * step * scale
        drawing.shapes.append(Stroke(at, _TOP - 6, at, bottom, _FAINT, 1))
        drawing.shapes.append(Label(at, bottom + 14, f"{0.25 * step:g}", 11, _INK, "middle", is_bold=step == 4))
    for place, row in enumerate(rows):
        drawing.shapes += _bar(row, _TOP + _ROW * place, scale)
    drawing.shapes.append(Stroke(_LEFT + scale, _TOP - 6, _LEFT + scale, bottom, _PEER, 2))
    drawing.shapes.append(Label(16, drawing.height - 9, table.footnote, 10.5, _PEER))
    return drawing


def _legend() -> list[Box | Stroke | Label]:
    return [
        Box(16, 40, 22, 12, _OURS),
        Label(44, 50, "Casemate", 12, _INK),
        Stroke(126, 38, 126, 54, _PEER, 2),
        Label(134, 50, "the faster of vLLM and SGLang = 1", 12, _INK),
        Box(352, 38, 4, 16, _AIM),
        Label(362, 50, "aim", 12, _INK),
        *(Label(x, 50, name, 12, _INK, "end") for x, name in zip(_COLUMNS, ("measured", "peer", "aim"), strict=True)),
    ]


def _bar(row: Row, top: float, scale: float) -> list[Box | Stroke | Label]:
    """Its name and unit, the bar, the mark of the aim, and the three numbers."""
    seen, peer, aim = _words(row.seen[0]), _words(row.peer), _words(row.aim)
    said = f"{row.workload}: {seen} {row.figure}, peer {peer}, aim {aim}"
    unit = f"{row.figure}: less is better" if row.less_is_better else row.figure
    return [
        Label(16, top + 13, row.workload, 13, _INK, is_bold=True),
        Label(16, top + 25, unit, 10, _PEER),
        Box(_LEFT, top + 5, row.speed(row.seen[0]) * scale, 17, _OURS, said),
        Box(_LEFT + row.speed(row.aim) * scale - 2, top + 1, 4, 25, _AIM, f"aim {aim}"),
        Label(_COLUMNS[0], top + 18, seen, 12.5, _INK, "end", is_bold=True),
        Label(_COLUMNS[1], top + 18, peer, 12.5, _INK, "end"),
        Label(_COLUMNS[2], top + 18, aim, 12.5, _INK, "end"),
    ]


def _words(cell: Cell) -> str:
    if cell is None:
        return ""
    return " / ".join(f"{value:,}" for value in cell) if isinstance(cell, list) else f"{cell:,}"


def replace_table(document: str, table: Table) -> str:
    """The document with that table's lines anew: those between two comments that name it."""
    pattern = rf"(<!-- table {table.name} -->\n).*?(\n<!-- end of {table.name} -->)"
    replaced, count = re.subn(
        pattern, lambda found: found[1] + render_table(table) + found[2], document, flags=re.DOTALL
    )
    assert count == 1, f"expected one table {table.name}, found {count}"
    return replaced


def main() -> None:
    """Write all."""
    document = DOCS / "performance.md"
    for table in load_tables():
        document.write_text(replace_table(document.read_text(), table))
        (DOCS / f"performance-{table.name}.svg").write_text(render_svg(draw_chart(table)) + "\n")


if __name__ == "__main__":
    main()
