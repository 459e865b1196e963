"""Publishing: from durable records to tiles, bundles and a signed checkpoint.

Off the acknowledging path (the writer hands a snapshot to a thread), and safe to be killed at any call:

(1) Tiles and bundles that the published tree lacks are put in place, synced, and their folders synced.
(2) `.state/signed`, the size and root about to be signed, is put in place durably. From here on the log refuses to start from
    any other history of that size, so no second signature over a different one can ever leave.
(3) The checkpoint is signed and put in place.
(4) Partial tiles whose full tile is now there are removed, and segments of the write-ahead log that the tree covers. What is
    left of them after a crash does no harm.

What always holds: whatever a checkpoint in the folder needs is in the folder.

Source: C2SP tlog-tiles, tlog-checkpoint.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from audit.checkpoint import Checkpoint
from audit.errors import NotDurable
from audit.frontier import Frontier
from audit.note import NoteSigner
from audit.reader import CHECKPOINT, SIGNED, STATE
from audit.storage import Disk
from audit.tiles import ENTRIES, TILE_WIDTH, TileId, encode_bundle, tiles_of

TEMPORARY = f"{STATE}/incoming"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that is needed to publish one tree, apart from what the writer goes on changing."""

    tree: Frontier
    full_tiles: Sequence[tuple[TileId, bytes]]
    """Hash tiles completed since the tree of `old_size`."""
    entries: Sequence[bytes]
    """All entries from `first_entry` to the end of `tree`."""
    first_entry: int
    """A multiple of 256 at or below `old_size`."""
    old_size: int
    """Size of the tree whose tiles are in place."""
    stale_segments: Sequence[Path] = ()
    """Segments of the write-ahead log that hold nothing behind `tree`."""
    spare_bytes: int = 0
    """Length of the file of zeroes to make for the next segment; 0 for none."""


@dataclass(frozen=True, slots=True)
class Published:
    """What a publication put in place."""

    checkpoint: Checkpoint
    note: bytes
    spare: Path | None


class Publisher:
    """Publishes trees of one log, each an extension of the one before. One publication at a time."""

    def __init__(self, folder: Path, signer: NoteSigner, disk: Disk) -> None:
        self._folder = folder
        self._signer = signer
        self._disk = disk

    def publish(self, snapshot: Snapshot, pause: Callable[[int], None] = lambda _num_tiles: None) -> Published:
        """Publish a tree. Touches nothing but its arguments and the folder's published half.

        Args:
            pause: called after each tile with the number of all, for whoever else needs the interpreter.
        Raises: NotDurable, after which the same or a larger tree may be tried again; StorageFailed.
        """
        tree = snapshot.tree
        checkpoint = Checkpoint(self._signer.key.name, tree.size, tree.root())
        tiles = list(tiles_of(tree.size, snapshot.old_size))
        self._write_tiles(tiles, snapshot, pause)  # (1)
        write_signed(self._folder, checkpoint, self._disk)  # (2)
        note = self._signer.sign(checkpoint.encode())  # (3)
        self._write(CHECKPOINT, note)
        self._disk.sync_folders([self._folder])
        for tile in tiles:  # (4)
            if tile.width == TILE_WIDTH and (partial := self._folder / f"{tile.path}.p").exists():
                self._disk.remove(partial)
        return Published(checkpoint, note, self.make_spare(list(snapshot.stale_segments), snapshot.spare_bytes))

    def make_spare(self, stale: list[Path], spare_bytes: int) -> Path | None:
        """A file of zeroes for the next segment, where one is wanted and there is space; stale segments go.

        One of them is used again, where it is long enough: to free its blocks and take others holds up whoever waits for the
        file system. One that is short would grow as soon as it is a segment again.
        """
        spare = self._folder / TEMPORARY / "spare"
        has_spare = bool(spare_bytes)
        try:
            if has_spare and stale and self._disk.file_bytes(stale[-1]) >= spare_bytes:
                self._disk.rename(stale[-1], spare)
                del stale[-1]
                self._disk.blank(spare)  # Takes no space, but on a file system that copies what is written over.
            elif has_spare:
                self._disk.fill(spare, spare_bytes)
        except NotDurable:
            has_spare = False
        for segment in stale:
            self._disk.remove(segment)
        return spare if has_spare else None

    def _write_tiles(self, tiles: Sequence[TileId], snapshot: Snapshot, pause: Callable[[int], None]) -> None:
        hashes = dict(snapshot.full_tiles) | dict(snapshot.tree.partial_tiles())
        folders = set()
        for tile in tiles:
            parent = (self._folder / tile.path).parent
            if parent not in folders:
                self._disk.make_folder(parent)
                folders.add(parent)
            if tile.level == ENTRIES:
                start = tile.number * TILE_WIDTH - snapshot.first_entry
                self._write(tile.path, encode_bundle(snapshot.entries[start : start + tile.width]))
            else:
                self._write(tile.path, hashes[tile])
            pause(len(tiles))
        self._disk.sync_folders(folders)

    def _write(self, path: str, data: bytes) -> None:
        self._disk.write_file(self._folder / path, data, self._folder / TEMPORARY / "published")


def write_signed(folder: Path, checkpoint: Checkpoint, disk: Disk) -> None:
    """Remember durably what is about to be signed."""
    disk.write_file(folder / SIGNED, checkpoint.encode().encode(), folder / TEMPORARY / "signed")
    disk.sync_folders([folder / STATE])
