"""Kernels under Triton's interpreter, on a CPU."""

import os
import subprocess
import sys
from pathlib import Path


def test_interpreted_kernels_match_their_references() -> None:
    """Every check of `interpreted/` holds; the process around it is the only one that interprets."""
    folder = Path(__file__).parent / "interpreted"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:randomly",
            "-W",
            "ignore::RuntimeWarning",
            str(folder),
        ],
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[4],
    )
    assert done.returncode == 0, done.stdout + done.stderr
