"""`@control("AU-9(3)", "3.3.8")`: a test says which controls it shows; the run says in a file how it ended.

The file is written where `--control-results` says. `compliance/controls/*.toml` name the same tests from the other side; that
the two agree is a test of its own.
"""

from collections import defaultdict
from pathlib import Path

import pytest

from appliance.statement.measuring import measure_software
from compliance.results import MarkedTest, encode_results

control = pytest.mark.control

_PROPERTY = "controls"
"""Of a test's reports, which also come from other processes."""


class MarksPlugin:
    """Plugin of each process that runs tests: a marked test's reports say which controls it shows."""

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Of the tests that will run."""
        for item in session.items:
            ids = {id for marker in item.iter_markers("control") for id in marker.args}
            if ids:
                item.user_properties.append((_PROPERTY, sorted(ids)))


class ResultsPlugin:
    """Plugin of the process that hears of every test: how each marked one ended, whatever its parameters."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._controls: dict[str, tuple[str, ...]] = {}
        self._outcomes: dict[str, set[str]] = defaultdict(set)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Setup, call and teardown; each can fail."""
        test = plain_id(report.nodeid)
        if (ids := dict(report.user_properties).get(_PROPERTY)) is not None:
            self._controls[test] = tuple(str(id) for id in ids)
        if report.when == "call" or report.outcome != "passed":
            self._outcomes[test].add(report.outcome)

    def pytest_sessionfinish(self) -> None:
        """Write the file, whole or not at all."""
        ended = ((test, found) for test, found in self._outcomes.items() if test in self._controls)
        tests = {test: MarkedTest(self._controls[test], worst_of(found)) for test, found in ended}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_suffix(".tmp")
        temporary.write_bytes(encode_results(f"sha256:{measure_software()}", tests))
        temporary.replace(self._path)


def plain_id(nodeid: str) -> str:
    """A test's id without its parameters."""
    return nodeid.partition("[")[0]


def worst_of(outcomes: set[str]) -> str:
    """One case that failed is a failure, and one that was skipped shows nothing of what that case is about."""
    return "failed" if "failed" in outcomes else "skipped" if "skipped" in outcomes else "passed"
