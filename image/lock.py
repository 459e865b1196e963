"""Writes the lock files of the image: every wheel and every Debian package by name, version and SHA-256.

What is locked is what the product needs at run time, without extras, as `constraints/cpu.txt` pins it. Needs the package index and
a Debian mirror, and is run when the pins change; `image/fetch.py` collects by these files, and refuses whatever has another digest.

The CUDA image's wheels are several GB: their digests come from the index's own listing, by `uv`, and every wheel of a version is
listed. What an engine compiles with (flashinfer, triton) is not among them: its kernels come frozen.

Usage: python -m image.lock {wheels,debs}
       python -m image.lock wheels-cuda UV
"""

import hashlib
import re
import subprocess
import sys
import tempfile
from importlib.metadata import distribution
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
WHEELS_LOCK, DEBS_LOCK = ROOT / "image/wheels-cpu.lock", ROOT / "image/debs-cpu.lock"
CUDA_LOCK = ROOT / "image/wheels-cuda.lock"
PIP_LOCK = ROOT / "image/pip.lock"
PIP = "pip==26.0.1"
"""Installs the wheels, and is not among them: no image has a package manager."""
DEBS = (
    "python3.11-minimal",
    "libpython3.11-stdlib",
    "libgomp1",
    "libstdc++6",
    "zlib1g",
    "libgcc-s1",
    "media-types",
    "tzdata",
)
"""An interpreter and the libraries that wheels are linked with: no shell, no compiler, no package manager."""
LEFT_OUT = ("debconf", "dpkg", "tar", "libacl1", "libmd0", "libpcre2-8-0", "libselinux1", "libzstd1", "readline-common")
"""What Debian's packages want for their installation and nothing needs at run time: packages are unpacked, not installed."""


WHEELS_LEFT_OUT = ("huggingface-hub", "transformers", "triton")
"""Named by others and not needed here: a client of a download service (tokenizers), the library that judges in tests and a
compiler (xgrammar)."""
ONLY_FOR_THOSE = (
    *(
        "annotated-doc",
        "hf-xet",
        "httpcore",
        "httpx",
        "markdown-it-py",
        "mdurl",
        "pygments",
    ),
    *("regex", "rich", "shellingham", "tqdm", "typer"),
)
"""What only those need."""


def find_requirements() -> list[str]:
    """The closure of what casemate needs, as it is installed here."""
    found: dict[str, str] = {}
    pending = [requirement for text in distribution("casemate").requires or () for requirement in _applicable(text)]
    while pending:
        name = re.sub(r"[-_.]+", "-", pending.pop()).lower()
        if name not in found and name not in WHEELS_LEFT_OUT:
            installed = distribution(name)
            found[name] = installed.version
            pending += [inner for text in installed.requires or () for inner in _applicable(text)]
    return [f"{name}=={version}" for name, version in sorted(found.items())]


def _applicable(text: str) -> list[str]:
    requirement = Requirement(text)
    environment = {**default_environment(), "extra": ""}
    return [requirement.name] if requirement.marker is None or requirement.marker.evaluate(environment) else []


def lock_wheels() -> None:
    """Download every wheel once, and write its digest down."""
    lines = ["# Wheels of the CPU image, for Python 3.11 on x86-64 Linux. Written by `make image-lock`.", ""]
    pip = ["# Installs the wheels, and is in no image. Written by `make image-lock`.", ""]
    with tempfile.TemporaryDirectory() as folder:
        for requirement in [*find_requirements(), PIP]:
            for old in Path(folder).iterdir():
                old.unlink()
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
            subprocess.run([*command, "--dest", folder, requirement], check=True)
            (wheel,) = Path(folder).iterdir()
            (pip if requirement == PIP else lines).append(f"{requirement} --hash=sha256:{hash_file(wheel)}")
            sys.stderr.write(f"{requirement}\n")
    WHEELS_LOCK.write_text("\n".join(lines) + "\n")
    PIP_LOCK.write_text("\n".join(pip) + "\n")


def lock_cuda_wheels(uv: str) -> None:
    """Resolve under the pins for CUDA, and write down the digests that the index lists."""
    command = [
        uv,
        "pip",
        "compile",
        "--quiet",
        "--no-header",
        "--no-annotate",
        "--only-binary",
        ":all:",
        "--generate-hashes",
    ]
    command += ["--cache-dir", str(ROOT / ".cache" / "uv"), "--python-version", "3.11"]
    command += ["--python-platform", "x86_64-manylinux_2_28", "--constraint", "constraints/cuda.txt", "pyproject.toml"]
    resolved = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    lines = ["# Wheels of the CUDA image, for Python 3.11 on x86-64 Linux. Written by `make image-lock`.", ""]
    for block in resolved.replace("\\\n", " ").splitlines():
        requirement, *digests = block.split()
        if requirement.partition("==")[0] not in (*WHEELS_LEFT_OUT, *ONLY_FOR_THOSE):
            lines.append(" ".join([requirement, *sorted(digests)]))
    CUDA_LOCK.write_text("\n".join(lines) + "\n")


def lock_debs() -> None:
    """Let apt say which packages these need, download them, and write their digests down."""
    simulated = subprocess.run(
        ["apt-get", "install", "--simulate", "--no-install-recommends", "-o", "Dir::State::status=/dev/null", *DEBS],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    wanted = re.findall(r"^Inst (\S+) \((\S+) ", simulated, re.MULTILINE)
    lines = ["# Debian 12 packages of the CPU image. Written by `make image-lock`.", ""]
    with tempfile.TemporaryDirectory() as folder:
        for name, version in sorted(wanted):
            if name in LEFT_OUT:
                continue
            subprocess.run(
                ["apt-get", "download", "-q", f"{name}={version}"], check=True, cwd=folder, capture_output=True
            )
        lines += [f"{hash_file(path)}  {path.name}  {source_of(path)}" for path in sorted(Path(folder).iterdir())]
    DEBS_LOCK.write_text("\n".join(lines) + "\n")


def source_of(deb: Path) -> str:
    """The source package that a package was built from, as `NAME=VERSION`: advisories name that one."""
    shown = subprocess.run(
        ["dpkg-deb", "--showformat", "${source:Package}=${source:Version}", "--show", str(deb)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return shown.stdout.strip()


def hash_file(path: Path) -> str:
    """SHA-256, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    {"wheels": lock_wheels, "debs": lock_debs, "wheels-cuda": lock_cuda_wheels}[sys.argv[1]](*sys.argv[2:])
