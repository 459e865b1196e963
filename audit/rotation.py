"""Rotation: another key for the same log, and another log that continues the old one.

**Key.** (1) A next key is made; from the auditor's next start on it signs every checkpoint as well. (2) Verifiers are given its
public half, and have as long as they need. (3) It takes the first place, and the old private key is gone; checkpoints that
both have signed verify with either. The witnesses' last word must be one of them: under the old key alone the next start could not
see by it that the log went back.

**Log.** A tree is never begun anew under a name that has one: two trees of one name are a fork. So the new log has a name of its
own, and its first leaf names the old one's name, size, root and key; the old folder stays as it is, readable and verifiable.
Beside it lie what verifiers of it need, under its name: `.vkey`, `-mldsa.vkey`, and `.cosigned`, the witnesses' last word. Its
private keys are gone.

Both but the first step want the auditor stopped, and take the folder's lock to be sure of it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from audit.checkpoint import Checkpoint, verify_checkpoint
from audit.courier import COSIGNED, load_cosigned
from audit.entry import Json
from audit.errors import AuditRejected, EntryNotFound, KeyUnusable, RotationRefused
from audit.events import log_event
from audit.formats import own_of
from audit.fsck import verify_log
from audit.note import MAX_NOTE_BYTES, VerifierKey, parse_verifier_key
from audit.reader import LOCK, LogReader
from audit.signing_key import create_signer, load_signer, mldsa_key_path, next_key_path
from audit.storage import Disk, lock_folder

PREDECESSOR = "predecessor"


@dataclass(frozen=True, slots=True)
class Predecessor:
    """The log that a new one continues."""

    checkpoint: Checkpoint
    key: VerifierKey


def stage_key(key_path: Path, origin: str, disk: Disk | None = None) -> tuple[VerifierKey, VerifierKey]:
    """Make the next key. Gives the key that signs now, and the next.

    Raises: KeyUnusable, also when one is staged already.
    """
    current = load_signer(key_path, origin)
    following = next_key_path(key_path)
    if following.exists() and (public := following.with_suffix(".vkey")).exists():
        raise KeyUnusable(
            f"{following}: is the next key already. Give verifiers {public.name}, let the appliance run with both, and put it "
            "in the first place by `casemate audit rotate-key --finish`"
        )
    return current.key, create_signer(following, origin, disk or Disk()).key


def finish_key(folder: Path, key_path: Path, origin: str, disk: Disk | None = None) -> tuple[VerifierKey, VerifierKey]:
    """Put the next key in the first place; the old private key is destroyed, its public half kept. Gives the old and the new one.

    Raises: LogInUse while an auditor runs; KeyUnusable when none is staged; RotationRefused when it has not signed yet.
    """
    disk = disk or Disk()
    if not next_key_path(key_path).exists():
        raise KeyUnusable(f"{next_key_path(key_path)}: there is no next key; `casemate audit rotate-key` makes it")
    old, new = load_signer(key_path, origin).key, load_signer(next_key_path(key_path), origin).key
    with _stopped(folder):
        try:
            verify_checkpoint(LogReader(folder).checkpoint_note(), [new], origin)
        except (AuditRejected, EntryNotFound) as error:
            raise RotationRefused(
                f"{folder}: the last checkpoint is not signed by the next key yet: {error}"
            ) from error
        _verify_cosigned(folder.parent, new, origin)
        retired = key_path.with_name(f"{key_path.stem}-retired-{old.key_id:08x}.vkey")
        disk.write_file(retired, f"{old.encode()}\n".encode(), retired.with_name(f"{retired.name}.tmp"))
        with _destroyed(key_path, disk):  # Only when the new one has its place.
            disk.rename(next_key_path(key_path), key_path)
            disk.sync_folders([key_path.parent])
        disk.rename(next_key_path(key_path).with_suffix(".vkey"), key_path.with_suffix(".vkey"))
        disk.sync_folders([key_path.parent])
    return old, new


def _verify_cosigned(folder: Path, key: VerifierKey, origin: str) -> None:
    """Raises: RotationRefused where witnesses have not cosigned a checkpoint that this key has signed too."""
    try:
        verify_checkpoint(load_cosigned(folder), [key], origin)
    except EntryNotFound:
        return
    except AuditRejected as error:
        raise RotationRefused(
            f"{folder / COSIGNED}: is not signed by the next key: start the appliance, and have its witnesses cosign once more"
        ) from error


def rotate_log(folder: Path, key_path: Path, disk: Disk | None = None) -> tuple[Predecessor, Path]:
    """Close a log for good: move it and its key aside, and leave word of it for the next. Gives that word and the old folder.

    The auditor's next start MUST be under another origin; it refuses the old one.
    Raises: LogInUse while an auditor runs; RotationRefused when records are not under the checkpoint; AuditRejected when the log
        does not verify, or went back behind what its witnesses cosigned: closed, nobody would ask them about it any more.
    """
    disk = disk or Disk()
    if not folder.exists() and (begun := load_predecessor(folder)) is not None:
        return begun, _finish_log(folder, key_path, begun, disk)  # It was interrupted.
    key = parse_verifier_key(key_path.with_suffix(".vkey").read_text().strip())
    with _stopped(folder):
        note = LogReader(folder).checkpoint_note()
        verified = verify_log(folder, key, cosigned=_find_cosigned(folder.parent))
        if verified.num_unsigned:
            raise RotationRefused(
                f"{folder}: {verified.num_unsigned} records are not under the checkpoint: start and stop the appliance once"
            )
        word = f"{key.encode()}\n\n".encode() + note
        disk.write_file(folder.parent / PREDECESSOR, word, folder.parent / f"{PREDECESSOR}.tmp")
        disk.sync_folders([folder.parent])
        predecessor = Predecessor(verified.checkpoint, key)
        disk.rename(folder, place_of(folder, predecessor))
        disk.sync_folders([folder.parent])
    return predecessor, _finish_log(folder, key_path, predecessor, disk)


def _find_cosigned(folder: Path) -> bytes | None:
    try:
        return load_cosigned(folder)
    except EntryNotFound:
        return None


def _finish_log(folder: Path, key_path: Path, predecessor: Predecessor, disk: Disk) -> Path:
    """What verifiers need goes with the old folder, private keys are destroyed. May be done again."""
    old = place_of(folder, predecessor)
    if key_path.exists() and load_signer(key_path, predecessor.key.name).key != predecessor.key:
        raise RotationRefused(f"{key_path}: is of another log than the one that was closed")
    text = f"{predecessor.key.encode()}\n".encode()
    disk.write_file(old.with_suffix(".vkey"), text, folder.parent / f"{PREDECESSOR}.tmp")
    mldsa_path = mldsa_key_path(key_path)
    for source, place in (
        (mldsa_path.with_suffix(".vkey"), old.with_name(f"{old.name}-mldsa.vkey")),
        (folder.parent / COSIGNED, old.with_suffix(".cosigned")),
    ):
        if source.exists():
            disk.rename(source, place)
    for path in (key_path, next_key_path(key_path), mldsa_path):
        if path.exists():
            with _destroyed(path, disk):
                disk.remove(path)
        disk.remove(path.with_suffix(".vkey"))
    disk.sync_folders([folder.parent])
    return old


def place_of(folder: Path, predecessor: Predecessor) -> Path:
    """Where the log that the one in `folder` continues lies, unless somebody took it away."""
    return folder.with_name(f"{folder.name}-{predecessor.checkpoint.root.hex()[:16]}")


def load_predecessor(folder: Path) -> Predecessor | None:
    """The log that the one in `folder` continues; None where there was none.

    Raises: KeyUnusable when the word of it is damaged.
    """
    path = folder.parent / PREDECESSOR
    try:
        data = path.read_bytes()[: MAX_NOTE_BYTES + 1]
    except FileNotFoundError:
        return None
    head, _, note = data.partition(b"\n\n")
    try:
        key = parse_verifier_key(head.decode("utf-8"))
        return Predecessor(verify_checkpoint(note, [key], key.name), key)
    except (AuditRejected, UnicodeDecodeError) as error:
        raise KeyUnusable(f"{path}: is damaged: {error}") from error


def predecessor_event(predecessor: Predecessor, log_name: str) -> Json:
    """The first leaf of a log that continues another."""
    checkpoint = predecessor.checkpoint
    facts: dict[str, str | int] = {
        "previous_origin": checkpoint.origin,
        "previous_root": checkpoint.root.hex(),
        "previous_size": checkpoint.size,
        "previous_vkey": predecessor.key.encode(),
    }
    return log_event("log_rotated", log_name=log_name, facts=facts)


def verify_continues(first_leaf: Json, note: bytes) -> Predecessor:
    """Check that a log's first leaf names the old log's last checkpoint.

    Args:
        first_leaf: of a log that was verified; what it says of the old log's key is believed for that.
        note: the old log's checkpoint.
    Raises: RotationRefused; SignatureRejected, MalformedNote for the checkpoint.
    """
    own = own_of(first_leaf)
    if own.get("kind") != "log_rotated":
        raise RotationRefused("the first record does not name a log that this one continues")
    key = parse_verifier_key(str(own.get("previous_vkey")))
    checkpoint = verify_checkpoint(note, [key], key.name)
    said = (own.get("previous_origin"), own.get("previous_size"), own.get("previous_root"))
    if said != (checkpoint.origin, checkpoint.size, checkpoint.root.hex()):
        raise RotationRefused(
            f"the first record names {said[0]} of {said[1]} records, root {said[2]}; "
            f"found {checkpoint.origin} of {checkpoint.size}, root {checkpoint.root.hex()}"
        )
    return Predecessor(checkpoint, key)


@contextmanager
def _stopped(folder: Path) -> Iterator[None]:
    lock = lock_folder(folder / LOCK)
    try:
        yield
    finally:
        os.close(lock)


@contextmanager
def _destroyed(path: Path, disk: Disk) -> Iterator[None]:
    """Overwrite a private key when the block has put another in its place, or removed it.

    On media that do not write in place its blocks may survive; SECURITY.md says so.
    """
    fd = disk.open_at(path, 0)
    try:
        size = os.fstat(fd).st_size
        yield
        disk.write(fd, bytes(size), path)
        disk.sync(fd, path)
    finally:
        os.close(fd)
