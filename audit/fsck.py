"""Verification of a log's folder: derives everything anew from the entries and compares it with what stands there.

(1) The checkpoint's signature, and that it is of this log.
(2) Every entry in order: its form, the index it says, its hash in the tile; every tile of every level; the root.
(3) Against an earlier checkpoint, where one is given: that tree is a prefix of this one.
(4) The private state, where the folder has it: the last signed tree is there in full, the write-ahead log agrees with the
    tiles, and its records behind the checkpoint are reported as not yet signed.
(5) Every file below `tile/`, older partial tiles too, is what the entries give; nothing else lies there.

What it cannot show: that the log is not an older state of itself. Only an earlier checkpoint kept elsewhere shows that.
A log that is being written to can be verified, and so can a copy that was taken meanwhile, `checkpoint` first and without the
private state. There files may hold more than the checkpoint covers: they must begin with what it covers, and are counted.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from audit.checkpoint import Checkpoint, parse_checkpoint, verify_checkpoint
from audit.derivation import Derivation
from audit.errors import AuditRejected, LogCorrupted, MalformedTile, SignatureRejected
from audit.merkle import leaf_hash
from audit.note import MAX_NOTE_BYTES, VerifierKey
from audit.reader import CHECKPOINT, LOCK, SIGNED, STATE, WAL, LogReader
from audit.storage import is_locked, read_regular
from audit.tiles import MAX_BUNDLE_BYTES, TILE_WIDTH, TileId, parse_tile_path, tile_width
from audit.wal import Segment, load_segments

Progress = Callable[[int, int], None]
"""Told how many of how many entries were verified."""


@dataclass(slots=True)
class Verified:
    """What was found to hold."""

    checkpoint: Checkpoint
    since: Checkpoint | None = None
    cosigned: Checkpoint | None = None
    """What witnesses cosigned; it is a prefix of this log."""
    num_files: int = 0
    num_newer: int = 0
    """Files that hold more than the checkpoint covers: of a log that is written to, or was when it was copied."""
    num_unsigned: int = 0
    """Durable records behind the checkpoint, not yet signed."""
    torn_bytes: int = 0
    """End of the write-ahead log that belongs to no finished commit."""
    has_state: bool = False
    """Whether the folder holds the auditor's private state; a mirror does not."""
    is_live: bool = False
    """Whether an auditor was writing meanwhile."""


def verify_log(
    folder: Path,
    key: VerifierKey,
    since: bytes | None = None,
    progress: Progress = lambda _done, _all: None,
    *,
    cosigned: bytes | None = None,
) -> Verified:
    """Verify the log in a folder.

    Args:
        key: the log's key; its name is the log's origin.
        since: an earlier signed checkpoint, kept elsewhere.
        cosigned: a checkpoint of this log that witnesses cosigned; whose cosignatures it has is the caller's to check.
    Raises: LogCorrupted with the thing and the place; SignatureRejected for checkpoints; EntryNotFound when there is no
        checkpoint; OSError when a file cannot be read.
    """
    reader = LogReader(folder)
    is_live = is_locked(folder / LOCK)
    checkpoint = _verify_head(f"{folder / CHECKPOINT}", reader.checkpoint_note(), key)  # (1)
    earlier = _verify_earlier(folder, "the earlier checkpoint", since, key, checkpoint)
    witnessed = _verify_earlier(folder, "the cosigned checkpoint", cosigned, key, checkpoint)
    result = Verified(checkpoint, earlier, witnessed, has_state=(folder / STATE).is_dir(), is_live=is_live)
    signed = _load_signed(folder, checkpoint, is_live) if result.has_state else checkpoint
    derived = Derivation(folder, reader, [head for head in (checkpoint, earlier, witnessed, signed) if head])
    for number in range(-(-derived.signed_size // TILE_WIDTH)):  # (2), (3)
        derived.add_bundle(number)
        progress(derived.tree.size, derived.signed_size)
    derived.verify_signed()
    if result.has_state:
        _verify_wal(folder, derived, result)  # (4)
    _verify_files(folder, derived, result)  # (5)
    result.num_unsigned = derived.tree.size - checkpoint.size
    return result


def _verify_head(name: str, note: bytes, key: VerifierKey) -> Checkpoint:
    try:
        return verify_checkpoint(note, [key], key.name)
    except SignatureRejected as error:
        raise SignatureRejected(f"{name}: {error}") from error
    except AuditRejected as error:
        raise LogCorrupted(f"{name}: {error}") from error


def _verify_earlier(
    folder: Path, name: str, note: bytes | None, key: VerifierKey, checkpoint: Checkpoint
) -> Checkpoint | None:
    if note is None:
        return None
    earlier = _verify_head(name, note, key)
    if earlier.size > checkpoint.size:
        raise LogCorrupted(
            f"{folder / CHECKPOINT}: of size {checkpoint.size}, but {name} has {earlier.size}: records were taken away"
        )
    return earlier


def _load_signed(folder: Path, checkpoint: Checkpoint, is_live: bool) -> Checkpoint:
    """The tree that the auditor last meant to sign. Its absence beside other state is damage."""
    path = folder / SIGNED
    try:
        signed = parse_checkpoint(read_regular(path, MAX_NOTE_BYTES).decode("utf-8"))
    except FileNotFoundError:
        raise LogCorrupted(f"{path}: is missing") from None
    except (UnicodeDecodeError, AuditRejected) as error:
        raise LogCorrupted(f"{path}: {error}") from error
    if signed.origin != checkpoint.origin:
        raise LogCorrupted(f"{path}: is of the log {signed.origin!r}, the checkpoint of {checkpoint.origin!r}")
    if is_live and signed.size > checkpoint.size:
        return checkpoint  # A publication went on in between.
    if signed.size < checkpoint.size:
        raise LogCorrupted(f"{path}: of size {signed.size}, though a checkpoint of {checkpoint.size} was signed")
    return signed


def _verify_wal(folder: Path, derived: Derivation, result: Verified) -> None:
    """Compare the write-ahead log with the tree, and take its records behind it."""
    size = derived.signed_size
    segments = _load_segments(folder, size, result.is_live)
    if not result.is_live and (not segments or not segments[0].first_index <= size <= segments[-1].next_index):
        raise LogCorrupted(f"{folder / WAL}: does not hold the records from {size} on")
    for segment in segments:
        for index, record in enumerate(segment.records, segment.first_index):
            if index == derived.tree.size:
                derived.add_unsigned(record, str(segment.path))
            elif index < size and derived.leaf(index) != leaf_hash(record):
                raise LogCorrupted(f"{segment.path}: record {index} is not entry {index} of the tree")
    result.torn_bytes = segments[-1].torn_bytes if segments else 0


def _load_segments(folder: Path, size: int, is_live: bool) -> list[Segment]:
    for attempt in reversed(range(10 if is_live else 1)):
        try:
            return load_segments(folder / WAL, size)
        except (FileNotFoundError, LogCorrupted) as error:
            # A live auditor took a segment away, or blanked it, between listing and reading. Then the next listing lacks it.
            if attempt == 0 and isinstance(error, LogCorrupted):
                raise
    raise LogCorrupted(f"{folder / WAL}: is missing, or a segment of it")


def _verify_files(folder: Path, derived: Derivation, result: Verified) -> None:
    for path in _files_below(folder / "tile"):
        try:
            tile = parse_tile_path(path.relative_to(folder).as_posix())
        except MalformedTile as error:
            raise LogCorrupted(f"{folder}: {error}") from error
        if derived.was_compared(tile):
            result.num_files += 1
            continue
        width = min(tile.width, tile_width(tile.level, tile.number, derived.tree.size))
        is_newer = width < tile.width
        if is_newer and result.has_state and not result.is_live:
            raise LogCorrupted(
                f"{path}: holds more than the {derived.tree.size} entries of the log. Were records taken away? Or was this copied "
                f"while an auditor wrote? Then copy `{CHECKPOINT}` first, then `tile`, and not `{STATE}`"
            )
        try:
            data = read_regular(path, MAX_BUNDLE_BYTES)
        except FileNotFoundError:  # A live auditor removed a partial tile that became full.
            if result.is_live:
                continue
            raise
        expected = derived.expected(TileId(tile.level, tile.number, width)) if width else b""
        if not data.startswith(expected) or (len(data) > len(expected)) != is_newer:
            raise LogCorrupted(f"{path}: does not hold what the entries give")
        result.num_newer += is_newer
        result.num_files += not is_newer


def _files_below(folder: Path) -> Iterator[Path]:
    try:
        paths = sorted(folder.iterdir())
    except FileNotFoundError:
        return
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            yield from _files_below(path)
        else:
            yield path
