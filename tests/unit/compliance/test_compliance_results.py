"""The file of how tests ended that show controls: written by a run, read strictly."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.statement.measuring import measure_software
from compliance.errors import ResultsRejected
from compliance.results import FORMAT, NO_RESULTS, parse_results
from tests.support.controls import MarksPlugin, ResultsPlugin


def run(path: Path, *reports: tuple[str, str, str], controls: dict[str, tuple[str, ...]]) -> None:
    """A run that had these reports: test, phase, outcome."""
    plugin = ResultsPlugin(path)
    items: Any = {
        test: SimpleNamespace(iter_markers=lambda _name, ids=ids: [SimpleNamespace(args=ids)], user_properties=[])
        for test, ids in controls.items()
    }
    MarksPlugin().pytest_collection_finish(SimpleNamespace(items=items.values()))  # type: ignore[arg-type]
    for test, phase, outcome in reports:
        properties = items[test].user_properties if test in items else []
        report: Any = SimpleNamespace(nodeid=test, when=phase, outcome=outcome, user_properties=properties)
        plugin.pytest_runtest_logreport(report)
    plugin.pytest_sessionfinish()


def test_a_run_says_how_its_marked_tests_ended(tmp_path: Path) -> None:
    """Cases together, setup and teardown too; tests without a marker, and those that did not run, are not in it."""
    run(
        tmp_path / "results.json",
        ("t.py::good[a]", "call", "passed"),
        ("t.py::good[b]", "call", "passed"),
        ("t.py::mixed[a]", "call", "passed"),
        ("t.py::mixed[b]", "call", "failed"),
        ("t.py::teardown", "call", "passed"),
        ("t.py::teardown", "teardown", "failed"),
        ("t.py::skipped", "setup", "skipped"),
        ("t.py::partly[a]", "call", "passed"),
        ("t.py::partly[b]", "setup", "skipped"),
        ("t.py::other", "call", "passed"),
        controls={
            "t.py::good[a]": ("3.3.8", "AU-9(3)"),
            "t.py::good[b]": ("3.3.8", "AU-9(3)"),
            "t.py::mixed[a]": ("3.3.1",),
            "t.py::teardown": ("3.3.1",),
            "t.py::skipped": ("3.3.1",),
            "t.py::partly[a]": ("3.3.1",),
            "t.py::deselected": ("3.3.1",),
            "t.py::other": (),
        },
    )
    results = parse_results((tmp_path / "results.json").read_bytes())
    assert results.software == f"sha256:{measure_software()}"
    assert {test: one.outcome for test, one in results.tests.items()} == {
        "t.py::good": "passed",
        "t.py::mixed": "failed",
        "t.py::teardown": "failed",
        "t.py::skipped": "skipped",
        "t.py::partly": "skipped",
    }
    assert results.outcome_of("t.py::good", "AU-9(3)") == "passed"
    assert results.outcome_of("t.py::good", "AU-10") == "missing"
    assert results.outcome_of("t.py::deselected", "3.3.1") == "missing"


def test_two_runs_give_the_same_bytes(tmp_path: Path) -> None:
    """In whatever order the tests ran."""
    reports = [("t.py::a", "call", "passed"), ("t.py::b", "call", "passed")]
    controls = {"t.py::a": ("3.3.8",), "t.py::b": ("3.3.1",)}
    run(tmp_path / "one.json", *reports, controls=controls)
    run(tmp_path / "two.json", *reversed(reports), controls=dict(reversed(controls.items())))
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()


def test_without_results_every_test_is_missing() -> None:
    """Never passed."""
    assert NO_RESULTS.outcome_of("t.py::good", "AU-9(3)") == "missing"


@pytest.mark.parametrize(
    "document",
    [
        {"format": "other/1", "software": "", "tests": {}},
        {"format": FORMAT, "software": ""},
        {"format": FORMAT, "software": "", "tests": {}, "more": 1},
        {"format": FORMAT, "software": "", "tests": {"a": {"controls": [], "outcome": "fine"}}},
        {"format": FORMAT, "software": "", "tests": {"a": {"controls": "x", "outcome": "passed"}}},
    ],
)
def test_other_forms_are_refused(document: dict[str, object]) -> None:
    """A file that is half understood would be taken for evidence."""
    with pytest.raises(ResultsRejected):
        parse_results(json.dumps(document).encode())


@given(st.binary(max_size=300))
def test_nothing_but_the_family_escapes(data: bytes) -> None:
    """Whatever the bytes."""
    with pytest.raises(ResultsRejected):
        parse_results(data)
