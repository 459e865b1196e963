"""Lays out the software as a folder for hosts without containers: the part `software` of a bundle.

    bin/casemate    starts our command with the host's python3.11 and nothing of the host's packages
    lib/            the locked wheels and our own, installed without an index

What nothing needs at run time is left out: what compilers and type checkers read, and the tests of others: half of all
files.

Usage: python -m image.software OUTPUT
"""

import shutil
import subprocess
import sys
from pathlib import Path

from image.build import build_own_wheel
from image.fetch import CACHE, ROOT, WHEELS
from image.lock import WHEELS_LOCK

LAUNCHER = """\
#!/bin/sh
# Starts Casemate from the folder that this file lies in, wherever that was installed.
lib="$(dirname "$(dirname "$(readlink -f "$0")")")/lib"
exec env PYTHONPATH="$lib" PYTHONSAFEPATH=1 PYTHONNOUSERSITE=1 PYTHONDONTWRITEBYTECODE=1 \\
    python3.11 -S -m appliance.cli.main "$@"
"""
"""Without `site` nothing of the host's own Python packages is found; there is nothing in `lib` that needs it."""


def lay_out(output: Path) -> None:
    """Everything, in a folder that is not there yet."""
    (output / "bin").mkdir(parents=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--root-user-action", "ignore"]
    command += ["--target", str(output / "lib")]
    subprocess.run(
        [*command, "-f", str(WHEELS), "--require-hashes", "--requirement", str(WHEELS_LOCK)], check=True, cwd=ROOT
    )
    trim(output / "lib")
    build_own_wheel()
    subprocess.run([*command, "-f", str(CACHE / "own"), "casemate"], check=True, cwd=ROOT)
    shutil.rmtree(output / "lib/bin")
    launcher = output / "bin" / "casemate"
    launcher.write_text(LAUNCHER)
    launcher.chmod(0o755)


def trim(lib: Path) -> None:
    """Remove what nothing needs at run time."""
    for folder in (lib / "bin", lib / "torch/include", lib / "torch/share", *sorted(lib.rglob("tests"))):
        shutil.rmtree(folder, ignore_errors=True)
    for stub in lib.rglob("*.pyi"):
        stub.unlink()


if __name__ == "__main__":
    lay_out(Path(sys.argv[1]))
