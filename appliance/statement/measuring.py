"""Digests of what will run: our own packages, what they import, the interpreter, kernels, the GPU and its driver.

Files are hashed from descriptors that are opened once, without following a link in the last component. Our own packages and the
interpreter are hashed byte for byte. A distribution that others made is measured by its installer's record, which lists the
SHA-256 of each of its files: hashing a gigabyte of torch at every start would cost seconds, and a release's slot is verified
file by file when it is installed. The statement says which of the two each digest is.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Iterator
from email import message_from_string
from pathlib import Path

PACKAGES = ("appliance", "audit", "compliance", "runtime", "security")
_GPU_FOLDER = Path("/proc/driver/nvidia/gpus")
_DRIVER_FILE = Path("/proc/driver/nvidia/version")
_KERNEL_SUFFIXES = (".cubin", ".fatbin", ".ptx", ".so")
_CHUNK_BYTES = 1 << 18
NONE = "none"


def measure_software() -> str:
    """SHA-256 over the files of our packages: lines `DIGEST  PACKAGE/PATH`, in order. Byte-code caches are not part of it."""
    return _digest_of_lines(
        f"{measure_file(path)}  {package}/{path.relative_to(folder).as_posix()}"
        for package in PACKAGES
        for folder in (_folder_of(package),)
        for path in _files_below(folder)
    )


def measure_dependencies() -> str:
    """SHA-256 over the installers' records of all distributions: lines `NAME VERSION DIGEST`, in order."""
    found = []
    for distribution in importlib.metadata.distributions():
        record = distribution.read_text("RECORD") or ""
        digest = hashlib.sha256(record.encode()).hexdigest()
        found.append(f"{_name_and_version(distribution)} {digest}")
    return _digest_of_lines(sorted(set(found)))


def measure_interpreter() -> str:
    """SHA-256 of the interpreter's own file."""
    return measure_file(Path(os.path.realpath(sys.executable)))


def measure_kernels(folder: Path) -> str:
    """SHA-256 over compiled kernels below a folder; `none` where there are none, and kernels are compiled when needed."""
    files = [path for path in _files_below(folder) if path.suffix in _KERNEL_SUFFIXES] if folder.is_dir() else []
    if not files:
        return NONE
    return _digest_of_lines(f"{measure_file(path)}  {path.relative_to(folder).as_posix()}" for path in files)


def describe_gpus(folder: Path = _GPU_FOLDER, driver: Path = _DRIVER_FILE) -> tuple[str, str]:
    """The GPUs by model and firmware, and the driver's version, as the kernel tells them; `none` without."""
    models = []
    for path in sorted(folder.glob("*/information")) if folder.is_dir() else ():
        facts = dict(line.split(":", 1) for line in path.read_text(errors="replace").splitlines() if ":" in line)
        models.append(f"{facts.get('Model', '?').strip()} ({facts.get('Video BIOS', '?').strip()})")
    version = driver.read_text(errors="replace").splitlines()[0].strip() if driver.is_file() else NONE
    return ", ".join(models) or NONE, version


def _name_and_version(distribution: importlib.metadata.Distribution) -> str:
    """As `distribution.metadata` has them, of its head alone: what follows is a page of prose, parsed twice for both."""
    text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    head = message_from_string(text.partition("\n\n")[0])
    return f"{head['Name']} {head['Version']}"


def _folder_of(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def _files_below(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        yield from (Path(parent, name) for name in sorted(names))


def measure_file(path: Path) -> str:
    """SHA-256 of a regular file that is no link."""
    hasher = hashlib.sha256()
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb", buffering=0) as file:
        while chunk := file.read(_CHUNK_BYTES):
            hasher.update(chunk)
    return hasher.hexdigest()


def _digest_of_lines(lines: "Iterator[str] | list[str]") -> str:
    hasher = hashlib.sha256()
    for line in lines:
        hasher.update(line.encode() + b"\n")
    return hasher.hexdigest()
