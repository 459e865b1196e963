"""What the packages import is what pyproject.toml says that they need."""

import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

from tests.support.sources import read_source

IMPORT_ROOTS = ("appliance", "runtime", "security", "audit", "compliance")
NOT_INSTALLED_HERE = {"flashinfer": ["flashinfer-python"]}
"""Modules of the extra `cuda`, whose distribution cannot be asked on a machine without it."""
_NAME = re.compile(r"^[A-Za-z0-9._-]+")


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported_modules(root: Path) -> dict[str, set[str]]:
    """Top-level modules of others, with the files that import them."""
    found: dict[str, set[str]] = {}
    for package in IMPORT_ROOTS:
        for path in (root / package).rglob("*.py"):
            for name in {name.split(".")[0] for name in read_source(path).modules()}:
                if name not in sys.stdlib_module_names and name not in (*IMPORT_ROOTS, "tests"):
                    found.setdefault(name, set()).add(str(path.relative_to(root)))
    return found


def test_every_import_is_a_declared_dependency(project_root: Path) -> None:
    """Not one that happens to come with another: such a package leaves when the other no longer needs it."""
    project = tomllib.loads((project_root / "pyproject.toml").read_text())["project"]
    requirements = [
        *project["dependencies"],
        *(line for lines in project["optional-dependencies"].values() for line in lines),
    ]
    declared = {normal(match[0]) for line in requirements if (match := _NAME.match(line))}
    distributions = packages_distributions()
    undeclared = {
        module: sorted(files)[:3]
        for module, files in imported_modules(project_root).items()
        if not declared & {normal(name) for name in distributions.get(module, NOT_INSTALLED_HERE.get(module, [module]))}
    }
    assert undeclared == {}
