"""A bundle of frozen kernels: a folder with a manifest and the files that it names.

| file | what it is |
|---|---|
| `manifest.json` | every kernel and library, how each is launched, and the SHA-256 of its file |
| `SHA256.cubin` | machine code of one kernel variant |
| `SHA256.so` | one compiled library |

What is used is what was verified: each file is read once, the bytes that were hashed are kept, and these very bytes go to
the driver or the loader. A file that changes afterwards changes nothing.
"""

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import KernelMissing
from runtime.kernels.launching import Variant
from runtime.kernels.manifest import (
    MANIFEST_FILE,
    MAX_MANIFEST_BYTES,
    KernelEntry,
    LibraryEntry,
    Manifest,
    parse_manifest,
)
from runtime.kernels.sources import digest_sources

_NUM_NAMED = 3
"""Missing kernels that a message names; of the others it gives the number."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle, in memory."""

    manifest: Manifest
    contents: Mapping[str, bytes]
    """By SHA-256."""

    def verify_sources(self) -> None:
        """That it was built from the kernel sources that are installed here.

        Raises: KernelMissing.
        """
        expected, found = digest_sources(), self.manifest.sources_sha256
        if found != expected:
            raise KernelMissing(
                f"the kernel bundle was built from sources {found}, installed are {expected}: build it again"
            )

    def verify_holds(self, variants: Iterable[Variant], libraries: Iterable[str]) -> None:
        """That nothing which will be needed is missing.

        Raises: KernelMissing, naming kernels and variants.
        """
        missing = sorted(map(str, set(variants) - {entry.variant for entry in self.manifest.kernels}))
        missing += sorted(set(libraries) - {entry.name for entry in self.manifest.libraries})
        if missing:
            more = f" and {len(missing) - _NUM_NAMED} more" if len(missing) > _NUM_NAMED else ""
            raise KernelMissing(f"the kernel bundle lacks {'; '.join(missing[:_NUM_NAMED])}{more}")


def load_bundle(folder: Path) -> Bundle:
    """Read a bundle and verify every byte of it against its manifest.

    Who needs a certain bundle compares `manifest.digest`: a bundle only vouches for its own wholeness.

    Raises: KernelMissing for a file that is missing, truncated or changed.
    """
    manifest = parse_manifest(_read(folder / MANIFEST_FILE, MAX_MANIFEST_BYTES))
    contents: dict[str, bytes] = {}
    for entry in manifest.entries:
        if entry.sha256 not in contents:
            contents[entry.sha256] = _read_verified(folder, entry)
    return Bundle(manifest, contents)


def write_bundle(folder: Path, manifest: Manifest, contents: Mapping[str, bytes]) -> None:
    """Write a bundle to a folder that does not exist yet, whole or not at all.

    Args:
        contents: by SHA-256.
    Raises: OSError, FileExistsError if the folder holds something.
    """
    verify_is_free(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for entry in manifest.entries:
            (staging / entry.file).write_bytes(contents[entry.sha256])
        (staging / MANIFEST_FILE).write_bytes(manifest.encode())
        staging.chmod(0o755)
        os.replace(staging, folder)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def verify_is_free(folder: Path) -> None:
    """That a bundle can be written there.

    Raises: FileExistsError if the folder holds something, or is none.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(errno.EEXIST, "expected a new or an empty folder", str(folder))


def _read_verified(folder: Path, entry: KernelEntry | LibraryEntry) -> bytes:
    what = entry.kernel if isinstance(entry, KernelEntry) else entry.name
    content = _read(folder / entry.file, entry.size_bytes)
    if len(content) < entry.size_bytes:
        raise KernelMissing(f"{what}: {entry.file} is truncated: {len(content)} of {entry.size_bytes} bytes")
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise KernelMissing(f"{what}: {entry.file} was changed: its SHA-256 is not that of its name")
    return content


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        with open(path, "rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise KernelMissing(f"kernel bundle: {path}: {error.strerror or error}") from error
    if len(content) > max_bytes:
        raise KernelMissing(f"kernel bundle: {path}: expected at most {max_bytes} bytes, found more")
    return content
