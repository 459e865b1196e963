"""atheris finds nothing in the parsers: briefly here, for minutes in the long tier, for hours with `python -m tests.fuzz`."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import parsers

needs_atheris = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris exists for Linux on x86-64 only"
)


def fuzz(folder: Path, *options: str) -> None:
    """Run the fuzzer; what it finds is in the failure's text."""
    root = Path(__file__).parents[2]
    ended = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", *options],
        cwd=folder, env={"PYTHONPATH": str(root), "PYTHONHASHSEED": "0"}, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-6000:]


@needs_atheris
def test_no_parser_fails_on_inputs_that_reach_new_code(tmp_path: Path) -> None:
    """Fifty thousand inputs over all of them, from a seed that is fixed: the same ones on every machine."""
    fuzz(tmp_path, "--runs", "50000")


@needs_atheris
@pytest.mark.long
@pytest.mark.parametrize("seed", [2, 3])
def test_no_parser_fails_in_minutes(tmp_path: Path, seed: int) -> None:
    """Two other seeds, without a number of inputs."""
    fuzz(tmp_path, "--seconds", "120", "--seed", str(seed))


def test_what_is_no_error_of_the_family_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness itself: a KeyError in a parser is not swallowed."""
    monkeypatch.setitem(parsers.PARSERS, "broken", (lambda data: {}[data], b""))
    with pytest.raises(KeyError):
        parsers.attack("broken", b"x")
