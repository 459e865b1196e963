"""Installing a verified bundle into the slot that does not run.

(1) Room on the disk for all that is missing. (2) Each file is copied to `incoming`: from an earlier try that already has it, from
the running slot that has the same content, or from the medium; its length and SHA-256 are those signed, or it is refused. (3) Every
file and folder is made durable. (4) The copy becomes the other slot.

A failure leaves `incoming`, so that the next try with the same bundle goes on where this one ended; a try with another bundle
starts anew. Nothing that runs is touched. Files are made by path from names that were checked, never unpacked from an archive.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from tuf.api.metadata import TargetFile

from security.bundles.medium import digest_of, name_on_medium, sync_folder
from security.bundles.refusals import explain_unwritable
from security.bundles.slots import INCOMING, Host, SlotContent
from security.bundles.switching import read_transition
from security.bundles.verification import VerifiedBundle
from security.errors import BundleRejected, BundleUnreadable
from security.model_signing.names import show_name

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all)."""

_SPARE_BYTES = 16 << 20
_PROBLEMS_SHOWN = 10
_CHUNK_BYTES = 1 << 20


def install_bundle(
    host: Host,
    bundle: VerifiedBundle,
    *,
    progress: Progress | None = None,
    announce: Callable[[SlotContent], None] = lambda _content: None,
) -> SlotContent:
    """Fill the slot that does not run; see the module for the steps.

    Args:
        announce: told what is about to lie in the slot; what it raises leaves there what there was.
    Raises: BundleRejected, BundleUnreadable.
    """
    if bundle.release.owner != "vendor":
        raise BundleRejected(
            "software comes from the vendor alone; models of a bundle go to the store by `casemate model import`"
        )
    host.prepare()
    if read_transition(host) is not None:  # The other slot may be the one to go back to.
        raise BundleRejected("a switch was interrupted: `casemate recover` first")
    slot, incoming = host.other_slot(), host.path / INCOMING
    content = SlotContent(
        slot,
        bundle.release.version,
        bundle.digest,
        {path: digest_of(target) for path, target in bundle.targets.items()},
    )
    try:
        _open_incoming(incoming, bundle)
        _verify_room(host, bundle, incoming)  # (1)
        # Once for all files: each of these looks at every file of a release.
        folder, size_bytes, running = incoming / bundle.digest, bundle.size_bytes, host.current()
        done_bytes = 0
        for path, target in bundle.targets.items():
            _obtain(host, running, bundle, folder, path, target)  # (2)
            done_bytes += target.length
            if progress is not None:
                progress(done_bytes, size_bytes)
        _finish(incoming, bundle)  # (3)
        announce(content)
        host.fill(slot, incoming / bundle.digest, content)  # (4)
    except OSError as error:
        raise explain_unwritable(incoming, error) from None
    return content


def verify_files(host: Host, bundle: VerifiedBundle, *, progress: Progress | None = None) -> int:
    """Read every file of a bundle as an installation would, and write none.

    Returns: how many are not on the medium and would come from the running slot, as with a delta.
    Raises: BundleRejected, a line for each file that would stop an installation; BundleUnreadable.
    """
    running, done_bytes, num_in_slot, problems = host.current(), 0, 0, []
    for path, target in bundle.targets.items():
        try:
            if name_on_medium(path, target) in bundle.medium.files:
                _verify_chunks(_read_medium(bundle, path, target), target, path)
            elif _find_in_slots(host, running, path, target) is not None:
                num_in_slot += 1
            else:
                _read_medium(bundle, path, target)
        except BundleRejected as error:
            problems.append(str(error))
        done_bytes += target.length
        if progress is not None:
            progress(done_bytes, bundle.size_bytes)
    if problems:
        more = [f"… and {len(problems) - _PROBLEMS_SHOWN} files more"] if len(problems) > _PROBLEMS_SHOWN else []
        raise BundleRejected("\n".join(problems[:_PROBLEMS_SHOWN] + more))
    return num_in_slot


def extract_component(bundle: VerifiedBundle, name: str, folder: Path) -> int:
    """Copy one part of a bundle to a new folder, each file verified: for models, which go to the store and to no slot.

    Returns: how many files that were.
    Raises: BundleRejected, BundleUnreadable.
    """
    parts = {path: target for path, target in bundle.targets.items() if path.startswith(f"{name}/")}
    if not parts:
        held = sorted({path.split("/")[0] for path in bundle.targets if "/" in path})
        raise BundleRejected(f"the bundle has no component {name[:80]!r}; it has {', '.join(held) or 'none'}")
    _verify_free(folder.parent, sum(target.length for target in parts.values()))
    for path, target in parts.items():
        final = folder / path.removeprefix(f"{name}/")
        final.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _write_verified(final, _read_medium(bundle, path, target), target, path, 0o644)
    return len(parts)


def _open_incoming(incoming: Path, bundle: VerifiedBundle) -> None:
    """The folder of this release's copy, in one that holds no copy of another."""
    incoming.mkdir(mode=0o700, exist_ok=True)
    for left in incoming.iterdir():
        if left.name != bundle.digest:
            shutil.rmtree(left)
    (incoming / bundle.digest).mkdir(mode=0o755, exist_ok=True)


def _verify_room(host: Host, bundle: VerifiedBundle, incoming: Path) -> None:
    present = sum(path.stat().st_size for path in (incoming / bundle.digest).rglob("*") if path.is_file())
    _verify_free(host.path, bundle.size_bytes - present)


def _verify_free(path: Path, size_bytes: int) -> None:
    needed, free = size_bytes + _SPARE_BYTES, shutil.disk_usage(path).free
    if needed > free:
        raise BundleUnreadable(
            f"{path}: {needed / 1e6:.1f} MB are needed there, and {free / 1e6:.1f} MB are free: make room, then try again"
        )


def _obtain(
    host: Host, running: SlotContent | None, bundle: VerifiedBundle, folder: Path, path: str, target: TargetFile
) -> None:
    final = folder / path
    if _has_content(final, target):
        return
    final.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    source = _find_in_slots(host, running, path, target)
    chunks = _read_file(source) if source is not None else _read_medium(bundle, path, target)
    partial = folder / f".partial-{digest_of(target)}"
    _write_verified(partial, chunks, target, path, 0o755 if path in bundle.release.executables else 0o644)
    os.rename(partial, final)


def _write_verified(partial: Path, chunks: Iterator[bytes], target: TargetFile, path: str, mode: int) -> None:
    """Write a file durably, and leave it only if its bytes are those signed."""
    try:
        with partial.open("wb") as file:
            _verify_chunks(chunks, target, path, file.write)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), mode)
    except BundleRejected:
        partial.unlink()
        raise


def _verify_chunks(
    chunks: Iterator[bytes], target: TargetFile, path: str, write: Callable[[bytes], object] = len
) -> None:
    """Read a file no further than its signed length, handing on what was read. Raises: BundleRejected for other bytes."""
    hasher, length = hashlib.sha256(), 0
    for chunk in chunks:
        length += len(chunk)
        if length > target.length:
            break
        hasher.update(chunk)
        write(chunk)
    if length != target.length or hasher.hexdigest() != digest_of(target):
        raise BundleRejected(f"{show_name(path)}: other bytes than those signed: the copy is truncated or was altered")


def _find_in_slots(host: Host, content: SlotContent | None, path: str, target: TargetFile) -> Path | None:
    """The running slot's file, if its record says that it is the same; it is verified while it is copied."""
    if content is None or content.files.get(path) != digest_of(target):
        return None
    file = host.folder_of(content.slot) / path
    return file if _has_content(file, target) else None


def _read_medium(bundle: VerifiedBundle, path: str, target: TargetFile) -> Iterator[bytes]:
    name = name_on_medium(path, target)
    if name not in bundle.medium.files:
        raise BundleRejected(
            f"{show_name(path)}: is neither on the medium nor in the running slot; "
            "a delta fits only the release that it was made against"
        )
    return bundle.medium.read_chunks(name)


def _has_content(path: Path, target: TargetFile) -> bool:
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if os.fstat(descriptor).st_size == target.length:
                return hashlib.file_digest(file, "sha256").hexdigest() == digest_of(target)
    return False


def _read_file(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def _finish(incoming: Path, bundle: VerifiedBundle) -> None:
    """Remove what an earlier try left and no target names, and make all names durable."""
    root = incoming / bundle.digest
    for path in sorted(root.rglob("*"), reverse=True):
        name = str(path.relative_to(root))
        if not path.is_dir() and name not in bundle.targets:
            path.unlink()
        elif path.is_dir():
            sync_folder(path)
    sync_folder(root)
