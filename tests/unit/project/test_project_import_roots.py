"""The top-level names `appliance`, `runtime`, `security`, `audit` and `compliance` are ours, wherever Python looks."""

import importlib
import importlib.metadata
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

IMPORT_ROOTS = ("appliance", "runtime", "security", "audit", "compliance")


@pytest.mark.parametrize("name", IMPORT_ROOTS)
def test_import_root_comes_from_this_repository(name: str, project_root: Path) -> None:
    """A distribution of the same name in site-packages would come before an editable install; it must not be there."""
    module = importlib.import_module(name)
    assert module.__file__ is not None, f"{name} is a namespace package: somebody else may add to it"
    assert Path(module.__file__) == project_root / name / "__init__.py"


def test_import_roots_are_found_from_any_folder_without_the_current_one(tmp_path: Path, project_root: Path) -> None:
    """Installed processes run with PYTHONSAFEPATH; what they import does not depend on where they were started."""
    code = f"import {', '.join(IMPORT_ROOTS)}\nfor m in ({', '.join(IMPORT_ROOTS)}): print(m.__file__)"
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    if done.returncode and not _is_installed():
        pytest.skip("casemate is not installed in this environment; `make setup` installs it")
    assert done.stdout.splitlines() == [str(project_root / name / "__init__.py") for name in IMPORT_ROOTS], done.stderr


def test_no_other_distribution_claims_an_import_root() -> None:
    """The metadata of what is installed beside us, whether it is imported or not."""
    owners = importlib.metadata.packages_distributions()
    claimed = {name: set(owners.get(name, [])) - {"casemate"} for name in IMPORT_ROOTS}
    assert not any(claimed.values()), claimed


def test_wheel_holds_these_import_roots_and_nothing_else(tmp_path: Path, project_root: Path) -> None:
    """What an installation adds to site-packages: five folders, our own metadata, no tests and no tools."""
    code = "import os, sys; from hatchling.build import build_wheel; os.chdir(sys.argv[1]); print(build_wheel(sys.argv[2]))"
    command = [sys.executable, "-c", code, str(project_root), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(tmp_path / done.stdout.split()[-1]) as wheel:
        names = {name.split("/")[0] for name in wheel.namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == set(IMPORT_ROOTS)


def test_every_list_of_import_roots_is_the_same(project_root: Path) -> None:
    """Build, type checker and import rules cover the same packages."""
    project = tomllib.loads((project_root / "pyproject.toml").read_text())["tool"]
    assert set(project["hatch"]["build"]["targets"]["wheel"]["packages"]) == set(IMPORT_ROOTS)
    assert set(project["mypy"]["files"]) == set(IMPORT_ROOTS)
    assert set(project["importlinter"]["root_packages"]) == set(IMPORT_ROOTS)


def _is_installed() -> bool:
    try:
        importlib.metadata.version("casemate")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
