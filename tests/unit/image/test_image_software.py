"""The software as a folder: started from wherever it lies, without what nothing needs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from image.software import LAUNCHER, trim


def test_headers_tests_and_stubs_are_left_out(tmp_path: Path) -> None:
    """And nothing else."""
    kept = ("torch/__init__.py", "torch/lib/libtorch.so", "numpy/testing/__init__.py", "casemate.dist-info/METADATA")
    gone = ("torch/include/a.h", "torch/share/cmake/b.cmake", "sympy/core/tests/test_c.py", "numpy/d.pyi", "bin/f2py")
    for name in (*kept, *gone):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    trim(tmp_path)
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()} == set(kept)


def test_launcher_finds_its_own_folder_and_nothing_of_the_hosts(tmp_path: Path) -> None:
    """Through the link of the slot that runs; the host's packages, and a module in the current folder, are not found."""
    if not Path("/usr/bin/python3.11").exists():
        pytest.skip("this machine has no /usr/bin/python3.11")
    software = tmp_path / "slots" / "a" / "software"
    (software / "bin").mkdir(parents=True)
    (software / "bin/casemate").write_text(LAUNCHER)
    (software / "bin/casemate").chmod(0o755)
    main = software / "lib" / "appliance" / "cli" / "main.py"
    main.parent.mkdir(parents=True)
    main.write_text("import sys; print(sys.path[0], [p for p in sys.path if 'packages' in p], sys.argv[1:])")
    (tmp_path / "current").symlink_to(tmp_path / "slots" / "a")
    (tmp_path / "appliance").mkdir()
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": os.path.dirname(sys.executable)}
    command = [str(tmp_path / "current/software/bin/casemate"), "a b", "c"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"{software}/lib [] ['a b', 'c']\n"
