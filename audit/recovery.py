"""Recovery: from whatever a crash left in the folder to the tree as it was last acknowledged, or a refusal to start.

(1) `.state/signed` names the last tree that may have been signed. Its frontier is read from tiles; the root must be the same.
(2) The published checkpoint, if there is one, must be ours, not larger, and a prefix of that tree.
(3) The entries of the last bundle must be those that the tiles hash.
(4) The write-ahead log must reach back to that tree, agree with it where they overlap, and is replayed behind it. The torn
    end of a commit that was never acknowledged is cut off.

The tree below its right edge is not read again here; `fsck` does that.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

from audit.checkpoint import Checkpoint, parse_checkpoint, verify_checkpoint
from audit.errors import AuditMisconfigured, AuditRejected, EntryNotFound, StateMismatch
from audit.frontier import Frontier, load_frontier
from audit.merkle import EMPTY_ROOT, leaf_hash
from audit.note import NoteSigner, VerifierKey
from audit.publish import TEMPORARY, write_signed
from audit.reader import CHECKPOINT, SIGNED, WAL, LogReader
from audit.signing_key import create_signer, load_signer, mldsa_key_path, open_cosigner, write_vkey
from audit.storage import Disk
from audit.tiles import TILE_WIDTH, TileId, tile_width
from audit.wal import Segment, create_segment, load_segments, split_stale


@dataclass(slots=True)
class Recovered:
    """The state of a log, ready to be written to."""

    tree: Frontier
    """All durable records."""
    tiles_size: int
    """Tree whose tiles are all in place."""
    published: Checkpoint
    """The checkpoint in the folder; of size 0 where there is none."""
    first_entry: int
    entries: list[bytes]
    """All entries from `first_entry` on, a multiple of 256 at or below `tiles_size`."""
    segments: list[Segment]
    full_tiles: list[tuple[TileId, bytes]] = field(default_factory=list)
    """Hash tiles completed behind `tiles_size`."""
    torn_bytes: int = 0


def open_state(
    folder: Path, key_path: Path, origin: str, disk: Disk, *, with_mldsa: bool = False
) -> tuple[Recovered, NoteSigner]:
    """Make a new log, or recover the one that is there. The caller MUST hold the folder's lock.

    Raises: AuditMisconfigured for everything that forbids a start; NotDurable, StorageFailed.
    """
    try:
        disk.make_folder(folder / TEMPORARY)
        disk.make_folder(folder / WAL)
        for leftover in (folder / TEMPORARY).iterdir():
            leftover.unlink()
        if not (folder / SIGNED).exists():
            _create(folder, key_path, origin, disk)
        signed = _load_signed(folder, origin)
        cosigner = open_cosigner(mldsa_key_path(key_path), origin, disk, is_mldsa=True) if with_mldsa else None
        if signed.size == 0 and not key_path.exists():
            signer = create_signer(key_path, origin, disk, cosigner)
        else:
            signer = load_signer(key_path, origin, cosigner)
            write_vkey(key_path.with_suffix(".vkey"), signer.key, disk)
        return recover(folder, signed, signer.key, disk), signer
    except AuditRejected as error:
        raise StateMismatch(f"{error}. The log is not written to; `casemate audit verify` tells more") from error
    except OSError as error:
        raise AuditMisconfigured(f"{error.filename or folder}: cannot be read: {error.strerror}") from error


def recover(folder: Path, signed: Checkpoint, key: VerifierKey, disk: Disk) -> Recovered:
    """Recover the log whose last signed tree is `signed`.

    Raises: StateMismatch, AuditRejected, OSError, StorageFailed.
    """
    reader = LogReader(folder)
    tree = load_frontier(signed.size, lambda tile: b"".join(reader.read_hashes(tile)))  # (1)
    if tree.root() != signed.root:
        raise StateMismatch(
            f"{folder / SIGNED}: the tiles of size {signed.size} have another root than what was signed"
        )
    published = _load_published(folder, reader, signed, key)  # (2)
    first_entry = signed.size // TILE_WIDTH * TILE_WIDTH
    entries = reader.read_bundle(first_entry // TILE_WIDTH, signed.size) if signed.size > first_entry else []  # (3)
    if tree.levels and [leaf_hash(entry) for entry in entries] != tree.levels[0]:
        raise StateMismatch(f"{folder}: the bundle of entry {first_entry} does not hash to its tile")
    segments = load_segments(folder / WAL, signed.size)
    recovered = Recovered(tree, signed.size, published, first_entry, entries, segments)
    _replay(folder, reader, recovered, disk)  # (4)
    for stale in split_stale(folder / WAL, signed.size)[0]:
        disk.remove(stale)
    return recovered


def _create(folder: Path, key_path: Path, origin: str, disk: Disk) -> None:
    """Begin an empty log. `.state/signed` comes last: before it is there, nothing was ever acknowledged."""
    if (folder / CHECKPOINT).exists() or (folder / "tile").exists():
        raise StateMismatch(f"{folder / SIGNED}: is missing, though the folder holds a log")
    for segment in load_segments(folder / WAL, 0):
        if segment.records:
            raise StateMismatch(f"{folder / SIGNED}: is missing, though {segment.path} holds records")
        segment.path.unlink()
    if key_path.exists():
        raise StateMismatch(f"{folder}: holds no log, but its key {key_path} exists: a second history would begin")
    create_segment(disk, folder / WAL, 0, folder / TEMPORARY / "segment")
    write_signed(folder, Checkpoint(origin, 0, EMPTY_ROOT), disk)
    disk.sync_folders([folder, folder.parent])


def _load_signed(folder: Path, origin: str) -> Checkpoint:
    path = folder / SIGNED
    try:
        signed = parse_checkpoint(path.read_bytes().decode("utf-8"))
    except UnicodeDecodeError as error:
        raise StateMismatch(f"{path}: is damaged") from error
    if signed.origin != origin:
        raise StateMismatch(f"{path}: is of the log {signed.origin!r}, but [audit] origin says {origin!r}")
    return signed


def _load_published(folder: Path, reader: LogReader, signed: Checkpoint, key: VerifierKey) -> Checkpoint:
    try:
        published = verify_checkpoint(reader.checkpoint_note(), [key], signed.origin)
    except EntryNotFound:
        return Checkpoint(signed.origin, 0, EMPTY_ROOT)
    if published.size > signed.size:
        raise StateMismatch(
            f"{folder / CHECKPOINT}: of size {published.size}, though {SIGNED} says that only {signed.size} were signed"
        )
    if reader.root(published.size, signed.size) != published.root:
        raise StateMismatch(f"{folder / CHECKPOINT}: is not a prefix of the tree of size {signed.size}")
    return published


def _replay(folder: Path, reader: LogReader, recovered: Recovered, disk: Disk) -> None:
    segments, size = recovered.segments, recovered.tiles_size
    if not segments or not segments[0].first_index <= size <= segments[-1].next_index:
        held = f"{segments[0].first_index} to {segments[-1].next_index}" if segments else "none"
        raise StateMismatch(f"{folder / WAL}: records are missing behind the signed size {size}: holds {held}")
    for segment in segments:
        for index, record in enumerate(segment.records, segment.first_index):
            if index >= size:
                recovered.tree.append(leaf_hash(record), lambda tile, data: recovered.full_tiles.append((tile, data)))
                recovered.entries.append(record)
                continue
            number = index // TILE_WIDTH
            hashes = reader.read_hashes(TileId(0, number, tile_width(0, number, size)))
            if hashes[index % TILE_WIDTH] != leaf_hash(record):
                raise StateMismatch(f"{segment.path}: record {index} is not the one under the signed tree")
    _settle_end(segments[-1], disk)
    recovered.torn_bytes = segments[-1].torn_bytes


def _settle_end(last: Segment, disk: Disk) -> None:
    """Cut the torn end off, and sync what is left: a killed process may have written a whole batch and not synced it.

    Without that, tiles could be made of records that a loss of power then takes out of the write-ahead log.
    """
    fd = disk.open_at(last.path, last.clean_bytes)
    try:
        if last.torn_bytes:
            disk.truncate(fd, last.clean_bytes, last.path)
        disk.sync(fd, last.path)
    finally:
        os.close(fd)
