"""Which tests stay together where several processes run them, and which begin first.

A file's tests share what its fixtures make. Those of several files share the appliance of `tests/e2e/conftest.py`, which takes
ten seconds of a processor to start. Files of few tests that take long are begun first, so that no process is left with one at the
end while the others have nothing to do.
"""

from pathlib import Path

import pytest
from xdist.scheduler import LoadFileScheduling

SHARED = "tests/e2e, on one appliance"
_SHARING = {
    f"tests/e2e/test_{name}.py"
    for name in (
        "bench_serve",
        "confinement",
        "evidence_pack",
        "openai_package",
        "overlong_values",
        "process_failures",
        "revocation",
        "schemathesis",
        "structured_output",
        "telemetry",
    )
}
_LONG = ("tests/e2e/", "tests/unit/runtime/kernels/test_interpreted.py")


class FileScheduling(LoadFileScheduling):
    """As `--dist loadfile`, with what this module says."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return SHARED if file in _SHARING else file


def begins_early(item: pytest.Item) -> bool:
    """Whether a test is one of those that are begun first."""
    return item.nodeid.startswith(_LONG)


def rank(items: list[pytest.Item]) -> list[pytest.Item]:
    """In the order in which files are given out: those that take long, then those of many tests."""
    sizes: dict[Path, int] = {}
    for item in items:
        sizes[item.path] = sizes.get(item.path, 0) + 1
    return sorted(items, key=lambda item: (not begins_early(item), -sizes[item.path]))
