"""Kernels under Triton's interpreter, on a CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def run_interpreted(which: str) -> subprocess.CompletedProcess[str]:
    """The checks of `interpreted/` with these marks; the process around them is the only one that interprets."""
    words = ["-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-W", "ignore::RuntimeWarning", "-m", which]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *words, str(Path(__file__).parent / "interpreted")],
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[4],
    )  # fmt: skip


@pytest.mark.timeout(1800)
def test_interpreted_kernels_match_their_references() -> None:
    """Every kernel, and of its shapes those that differ in kind: a minute of a processor, whoever else wants it."""
    done = run_interpreted("not long")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
def test_interpreted_kernels_match_their_references_at_every_shape() -> None:
    """The shapes between."""
    done = run_interpreted("long")
    assert done.returncode == 0, done.stdout + done.stderr
