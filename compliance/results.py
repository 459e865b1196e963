"""What the tests showed: a JSON file that `make test` writes and a release carries.

    {"format": "casemate-control-results/1", "software": "sha256:…", "tests": {ID: {"controls": [ID, …], "outcome": "passed"}}}

It names the software that was tested by the digest that the running statement has too: results of another build show nothing about
this one. A test with parameters passed if each case did; one that was skipped shows nothing. There is no time and no host in it, so
that two runs of one build give the same bytes.
"""

import json
from collections.abc import Mapping
from typing import Literal

import msgspec

from compliance.errors import ResultsRejected

FORMAT = "casemate-control-results/1"
MAX_RESULTS_BYTES = 8 << 20

Outcome = Literal["passed", "failed", "skipped", "missing"]


class MarkedTest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one test ended, and which controls it says that it shows."""

    controls: tuple[str, ...]
    outcome: Literal["passed", "failed", "skipped"]


class ControlResults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole file."""

    format: str
    software: str
    tests: dict[str, MarkedTest]

    def outcome_of(self, test: str, control: str) -> Outcome:
        """How a test ended that claims to show a control; `missing` where it did not run, or claims no such thing."""
        found = self.tests.get(test)
        return found.outcome if found is not None and control in found.controls else "missing"

    def tests_of(self, control: str) -> list[str]:
        """Every test that says it shows a control, in order."""
        return sorted(test for test, one in self.tests.items() if control in one.controls)


NO_RESULTS = ControlResults(FORMAT, "", {})
"""Where there is no file: no test ran."""


def parse_results(data: bytes) -> ControlResults:
    """Parse an untrusted file of at most MAX_RESULTS_BYTES.

    Raises: ResultsRejected.
    """
    if len(data) > MAX_RESULTS_BYTES:
        raise ResultsRejected(f"test results: longer than {MAX_RESULTS_BYTES} bytes")
    try:
        results = msgspec.json.decode(data, type=ControlResults)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ResultsRejected(f"test results: {error}") from error
    if results.format != FORMAT:
        raise ResultsRejected(f"test results: expected the format {FORMAT}, got {results.format[:80]!r}")
    return results


def encode_results(software: str, tests: Mapping[str, MarkedTest]) -> bytes:
    """The file."""
    document = ControlResults(FORMAT, software, dict(tests))
    return json.dumps(msgspec.to_builtins(document), indent=1, sort_keys=True).encode() + b"\n"
