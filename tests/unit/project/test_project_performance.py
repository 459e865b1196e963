"""The end-to-end figures of docs/performance.md: tables and charts are those of one data file."""

from pathlib import Path

import pytest

from compliance.report.drawing import render_svg
from tests.bench.performance_charts import Row, Table, draw_chart, load_tables, render_table, replace_table

TABLES = load_tables()


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_tables_and_charts_are_made_from_the_data(table: Table, project_root: Path) -> None:
    """After a change of the data: `python -m tests.bench.performance_charts`."""
    document = (project_root / "docs/performance.md").read_text()
    assert replace_table(document, table) == document
    assert f"](performance-{table.name}.svg)" in document
    assert (project_root / f"docs/performance-{table.name}.svg").read_text() == render_svg(draw_chart(table)) + "\n"


def test_every_workload_with_a_peer_and_an_aim_is_in_a_chart() -> None:
    """All of both tables, once each."""
    charted = [[row.workload for row in table.rows if row.chart] for table in TABLES]
    eight = ["bs1", "bs8", "chat", "heavy", "decode", "prefix", "long", "summ"]
    assert charted == [eight, ["bs1", "bs8", "chat", "heavy", "decode", "long"]]


def test_speed_is_a_multiple_of_the_peers() -> None:
    """For rates and for times."""
    assert Row("tokens/s", [150], peer=100).speed(150) == 1.5
    assert Row("ms", [50], peer=100, less_is_better=True).speed(50) == 2.0


def test_a_table_in_markdown() -> None:
    """Thousands with commas, p50 and p99 in one cell, cells without a figure empty."""
    rows = [
        Row("output tokens/s", [1522, 1515], "bs8", "32 × (512/256), 8", peer=1467, aim=1700, chart=True),
        Row("TTFT p50 / p99, ms", [[68, 1938], [71, 1902]], peer=[550, 1418], aim=450),
        Row("TTFT p50, ms", [9.7, 10.0], peer=13.5),
    ]
    lines = render_table(Table("bf16", "title", "workload", ["now", "before"], "", rows)).splitlines()
    assert lines[0].endswith("| now | before | best peer | aimed at |")
    assert "| `bs8` 32 × (512/256), 8 | output tokens/s | 1,522 | 1,515 | 1,467 | 1,700 |" in lines
    assert "| | TTFT p50 / p99, ms | 68 / 1,938 | 71 / 1,902 | 550 / 1,418 | 450 |" in lines
    assert "| | TTFT p50, ms | 9.7 | 10.0 | 13.5 | |" in lines
