"""Pins: every distribution that is installed is one that a constraint file names, in that version."""

import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

PYTHONS = ("3.11", "3.12", "3.13")
_PIN = re.compile(r"^(?P<name>[a-z0-9-]+)==(?P<version>[^ ;]+)(?: ; python_version == '(?P<python>[0-9.]+)')?$")


def read_pins(root: Path, name: str, python: str) -> dict[str, str]:
    """The pins of one file that apply to one Python."""
    lines = [
        line for line in (root / "constraints" / name).read_text().splitlines() if line and not line.startswith("#")
    ]
    pins = [_PIN.match(line) for line in lines]
    assert all(pins), "a line that is no pin"
    return {pin["name"]: pin["version"] for pin in pins if pin and pin["python"] in (None, python)}


def normalize(name: str) -> str:
    """PEP 503: how names of distributions are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def reachable(requirements: list[str], extras: frozenset[str]) -> set[str]:
    """Installed distributions that these requirements draw in on this machine, by name."""
    found: set[str] = set()
    waiting = [(Requirement(text), extras) for text in requirements]
    while waiting:
        requirement, active = waiting.pop()
        marker = requirement.marker
        if marker and not any(marker.evaluate({"extra": extra}) for extra in active | {""}):
            continue
        name = normalize(requirement.name)
        try:
            inner = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        if name not in found or requirement.extras:
            found.add(name)
            waiting += [(Requirement(text), frozenset(requirement.extras)) for text in inner if name != "casemate"]
    return found - {"casemate"}


@pytest.mark.parametrize(
    ("file", "versions"),
    [
        ("cpu.txt", {"torch": "2.13.0", "triton": "3.7.1", "transformers": "5.17.0"}),
        ("cuda.txt", {"torch": "2.11.0", "triton": "3.6.0", "flashinfer-python": "0.6.14", "transformers": "5.17.0"}),
    ],
)
@pytest.mark.parametrize("python", PYTHONS)
def test_named_versions_are_pinned_for_every_python(
    file: str, versions: dict[str, str], python: str, project_root: Path
) -> None:
    """What was measured with is what is installed."""
    assert read_pins(project_root, file, python).items() >= versions.items()


@pytest.mark.parametrize("file", ["cpu.txt", "cuda.txt"])
@pytest.mark.parametrize("python", PYTHONS)
def test_direct_and_build_requirements_are_pinned_within_their_ranges(
    file: str, python: str, project_root: Path
) -> None:
    """pyproject.toml says what would work, the constraint file what is taken; the second is a case of the first."""
    project = tomllib.loads((project_root / "pyproject.toml").read_text())
    extras = ("dev", "demo", "cuda") if file == "cuda.txt" else ("dev", "demo")
    texts = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    texts += [text for extra in extras for text in project["project"]["optional-dependencies"][extra]]
    pins = read_pins(project_root, file, python)
    for requirement in map(Requirement, texts):
        if requirement.name != "casemate":
            assert requirement.specifier.contains(pins[normalize(requirement.name)]), str(requirement)


@pytest.mark.parametrize("file", ["cpu.txt", "cuda.txt"])
def test_file_is_sorted_and_names_each_distribution_once_a_python(file: str, project_root: Path) -> None:
    """A line that is there twice is a conflict that waits."""
    lines = [
        line for line in (project_root / "constraints" / file).read_text().splitlines() if not line.startswith("#")
    ]
    assert lines == sorted(lines, key=lambda line: line.split("==")[0])
    for python in PYTHONS:
        applying = [line for line in lines if "python_version" not in line or f"'{python}'" in line]
        assert len(applying) == len({line.split("==")[0] for line in applying})


def test_everything_the_project_draws_in_here_is_installed_as_pinned(project_root: Path) -> None:
    """Direct or not: the closure of the requirements on this machine."""
    project = tomllib.loads((project_root / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    found = reachable([*project["dependencies"], *optional["dev"], *optional["demo"]], frozenset())
    assert_pinned(found, project_root)


def test_environment_made_by_make_holds_nothing_unpinned(project_root: Path) -> None:
    """In `.venv` as `make setup` leaves it there is no distribution that the file does not name, pip excepted."""
    if not list(Path(sys.prefix).glob(".casemate-dev-*")):
        pytest.skip("this environment was not made by `make setup`")
    everything = {normalize(found.metadata["Name"]) for found in importlib.metadata.distributions()}
    assert_pinned(everything - {"casemate", "pip"}, project_root)


def assert_pinned(names: set[str], root: Path) -> None:
    """Each of these is pinned to the version that is installed; torch's build (`+cpu`) is the index's choice."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    installed = {name: importlib.metadata.version(name) for name in names}
    torch = installed.get("torch", "").split("+")[0]
    pins = read_pins(root, "cuda.txt" if torch.startswith("2.11.") else "cpu.txt", python)
    wrong = {name: version for name, version in installed.items() if pins.get(name) != version.split("+")[0]}
    assert not wrong, f"installed otherwise than pinned: {wrong}"
