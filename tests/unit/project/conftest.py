"""What the tests of the repository itself look at: the files that git tracks, or would."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def list_files(root: Path) -> list[Path]:
    """Files that are tracked, or that are new and not ignored; without git, everything but environments and caches."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, cwd=root, capture_output=True, check=True).stdout.decode()
        names = [name for name in listed.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        # An unpacked archive, or a folder of another user, which git refuses to read.
        skipped = {
            ".venv",
            ".git",
            ".cache",
            ".mypy_cache",
            ".ruff_cache",
            ".pytest_cache",
            "__pycache__",
            ".hypothesis",
        }
        names = [
            str(path.relative_to(root))
            for path in root.rglob("*")
            if not skipped & set(path.relative_to(root).parts)
            and path.relative_to(root).parts[0] not in ("state", "dist")
        ]
    return sorted(root / name for name in names if (root / name).is_file())


@pytest.fixture(scope="session")
def project_root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def project_files() -> list[Path]:
    """Every file of the project."""
    return list_files(ROOT)


@pytest.fixture(scope="session")
def product_modules(project_files: list[Path]) -> list[Path]:
    """Every Python module of the product: what is installed on a host."""
    roots = ("appliance", "runtime", "security", "audit", "compliance")
    return [path for path in project_files if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in roots]
