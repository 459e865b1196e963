"""Writes and checks the pins of `constraints/cpu.txt` and `constraints/cuda.txt`.

A resolve on one machine is not a pin: it sees one Python, one set of markers and the wheels that happen to lie there. So
every file is resolved for each Python that we support, for x86-64 Linux with an old C library, from wheels alone, and the
results are put together: a name whose version differs gets a marker. `check` resolves again under the file and wants the
same set back, nothing more and nothing less, so that a new release anywhere cannot change an installation.

Covered: the product, its extras, and what builds its wheel. The packages' index is whatever `uv` is told to use; an index
that has only the CPU build of torch resolves to a part of `cpu.txt`, which is pinned all the same.

Usage: python constraints/resolve.py {check,update} UV
"""

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12", "3.13")
PLATFORM = "x86_64-manylinux_2_28"
SETS = {
    "cpu": (("dev", "demo"), ("torch==2.13.0", "triton==3.7.1")),
    "cuda": (("dev", "demo", "cuda"), ("torch==2.11.0", "triton==3.6.0", "flashinfer-python==0.6.14")),
}
HEADER = """\
# Every distribution that casemate[{extras}] and the build of its wheel can need, direct or not,
# on x86-64 Linux with Python {pythons}. Written by `make update-constraints`, checked by `make check-constraints`.
"""
_PIN = re.compile(r"^(?P<name>[a-z0-9-]+)==(?P<version>[^ ;]+)(?: ; python_version == '(?P<python>[0-9.]+)')?$")


def parse_pins(text: str, python: str) -> dict[str, str]:
    """The pins of a constraint file that apply to one Python: version by normalized name.

    Raises: ValueError for a line that is neither a comment nor a pin in our form.
    """
    pins: dict[str, str] = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        pin = _PIN.match(line)
        if pin is None:
            raise ValueError(f"expected `name==version`, got {line!r}")
        if pin["python"] in (None, python):
            pins[pin["name"]] = pin["version"]
    return pins


def resolve(uv: str, name: str, python: str, held: list[Path]) -> dict[str, str]:
    """Resolve one set for one Python under the constraint files `held`.

    Raises: subprocess.CalledProcessError when there is no solution; uv has said why.
    """
    extras, chosen = SETS[name]
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    with tempfile.TemporaryDirectory() as folder:
        extra_requirements, choices = Path(folder, "build.in"), Path(folder, "chosen.txt")
        extra_requirements.write_text("\n".join(build) + "\n")
        choices.write_text("\n".join(chosen) + "\n")
        command = [uv, "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--only-binary", ":all:"]
        command += ["--cache-dir", str(ROOT / ".cache" / "uv")]
        command += ["--python-version", python, "--python-platform", PLATFORM]
        command += [word for extra in extras for word in ("--extra", extra)]
        command += [word for file in (choices, *held) for word in ("--constraint", str(file))]
        command += [str(ROOT / "pyproject.toml"), str(extra_requirements)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)  # noqa: S603
    return parse_pins(done.stdout, python)


def render(name: str, resolved: dict[str, dict[str, str]]) -> str:
    """One file for all Pythons: a name that has the same version wherever it occurs needs no marker."""
    lines = [HEADER.format(extras=",".join(SETS[name][0]), pythons=", ".join(PYTHONS)).rstrip()]
    for package in sorted({package for pins in resolved.values() for package in pins}):
        versions = {python: pins[package] for python, pins in resolved.items() if package in pins}
        if len(set(versions.values())) == 1:
            lines.append(f"{package}=={next(iter(versions.values()))}")
        else:
            lines += [f"{package}=={version} ; python_version == '{python}'" for python, version in versions.items()]
    return "\n".join(lines) + "\n"


def check(uv: str, name: str) -> list[str]:
    """What is wrong with one file, in words."""
    file = ROOT / "constraints" / f"{name}.txt"
    problems: list[str] = []
    used: set[str] = set()
    for python in PYTHONS:
        pins = parse_pins(file.read_text(), python)
        found = resolve(uv, name, python, [file])
        used |= found.keys()
        for package, version in found.items():
            if pins.get(package) != version:
                problems.append(
                    f"{file.name}: Python {python} takes {package} {version}, pinned: {pins.get(package, 'no')}"
                )
    stale = {package for python in PYTHONS for package in parse_pins(file.read_text(), python)} - used
    return problems + [f"{file.name}: {package} is pinned and nothing needs it" for package in sorted(stale)]


def main() -> int:
    """Check or write both files; 1 when something is wrong with them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("check", "update"))
    parser.add_argument("uv", help="the uv program")
    arguments = parser.parse_args()
    problems: list[str] = []
    for name in SETS:
        sys.stderr.write(f"Resolving {name} for Python {', '.join(PYTHONS)} …\n")
        try:
            if arguments.action == "update":
                resolved = {python: resolve(arguments.uv, name, python, []) for python in PYTHONS}
                (ROOT / "constraints" / f"{name}.txt").write_text(render(name, resolved))
            else:
                problems += check(arguments.uv, name)
        except subprocess.CalledProcessError:
            problems.append(f"{name}: could not be resolved; uv says why above")
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
