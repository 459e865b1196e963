"""`casemate bench serve` from its command line to its page, against a server that is known."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from appliance.bench.connection import Answer
from appliance.bench.figures import summarize
from appliance.bench.page import Run, render_page
from appliance.bench.plots import Axis, cumulative, line_plot
from appliance.cli.main import main
from tests.support.completion_server import Server


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def test_command_prints_a_line_a_workload_and_writes_a_page(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Several processes send every request of the plan once, with the token of the file."""
    token = tmp_path / "token"
    token.write_text("secret\n")
    page = tmp_path / "page.html"
    words = [
        "bench",
        "serve",
        "--url",
        f"http://127.0.0.1:{server.port}",
        "--model",
        "m",
        "--workload",
        "tiny",
        "small",
    ]
    words += ["--requests", "9", "--concurrency", "16", "--token-file", str(token), "--html", str(page)]
    assert main(words) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["workload"], line["requests"], line["errors"]) for line in lines] == [("tiny", 9, 0), ("small", 9, 0)]
    assert len({json.dumps(body["prompt"]) for body in server.bodies}) == 18
    assert all(b"authorization: Bearer secret" in head for head in server.heads)
    text = page.read_text()
    assert "secret" not in text
    plots = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(plots) == 8
    for plot in plots:
        ElementTree.fromstring(plot)
    assert not re.search(r"<script|src=|href=|url\(", text), "the page needs something from elsewhere"


def test_nothing_but_errors_is_a_failure(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """The command says so by its exit code, and what the first error was."""
    server.script = lambda body: [b"HTTP/1.1 503 Away\r\ncontent-length: 4\r\n\r\ngone"]
    assert (
        main(["bench", "serve", "--url", f"http://127.0.0.1:{server.port}", "--model", "m", "--workload", "tiny"]) == 1
    )
    assert json.loads(capsys.readouterr().out)["first_error"] == "503 gone"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--workload", "chatt"], "no workload 'chatt'"),
        (["--workload", "prefix", "--prompt-tokens", "100"], "share 2048"),
        (["--requests", "0"], "start at 1"),
        (["--authority", "https://a"], "needs --client-id"),
    ],
)
def test_what_cannot_be_sent_is_said_before_anything_is(
    words: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, no traceback."""
    assert main(["bench", "serve", "--url", "http://127.0.0.1:1", "--model", "m", *words]) == 1
    assert reason in capsys.readouterr().err


def test_page_escapes_what_servers_and_users_say() -> None:
    """An error's text is not markup."""
    answers = [Answer(0.0, error="<script>alert(1)</script>")]
    page = render_page("<b>", "a & b", [Run("<i>", summarize(answers), answers)])
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "a &amp; b" in page


@pytest.mark.parametrize(
    ("axis", "ticks"),
    [
        (Axis("", 0, 100), [0, 20, 40, 60, 80, 100]),
        (Axis("", 0, 7), [0, 2, 4, 6]),
        (Axis("", 3, 47, is_log=True), [5, 10, 20]),
        (Axis("", 0.02, 30_000, is_log=True), [0.1, 1, 10, 100, 1000, 10_000]),
    ],
)
def test_ticks_are_round_and_on_the_axis(axis: Axis, ticks: list[float]) -> None:
    """A handful of them."""
    assert axis.ticks() == pytest.approx(ticks)


def test_distribution_rises_to_all() -> None:
    """From thousands of values a few hundred points, first and last among them."""
    points = cumulative([float(value) for value in range(5000)])
    assert len(points) <= 201
    assert points[-1] == (4999.0, 100.0)
    assert [share for _, share in points] == sorted(share for _, share in points)


def test_values_beyond_an_axis_stand_at_its_edge() -> None:
    """No line leaves its plot."""
    plot = line_plot("t", Axis("x", 0, 10), Axis("y", 0, 10), {"": [(-5, -5), (20, 20)]})
    points = re.search(r'points="([^"]*)"', plot)
    assert points is not None
    assert points[1] == "58.0,218.0 448.0,28.0"
