"""Publishing: from durable records to tiles, bundles and a signed checkpoint.

Off the acknowledging path, and safe to be killed at any call:

(1) Tiles and bundles that the published tree lacks are put in place, synced, and their folders synced.
(2) `.state/signed`, the size and root about to be signed, is put in place durably. From here on the log refuses to start from
    any other history of that size, so no second signature over a different one can ever leave.
(3) The checkpoint is signed and put in place.
(4) Partial tiles whose full tile is now there are removed. What is left of them after a crash does no harm.

What always holds: whatever a checkpoint in the folder needs is in the folder.

Source: C2SP tlog-tiles, tlog-checkpoint.
"""

from collections.abc import Sequence
from pathlib import Path

from audit.checkpoint import Checkpoint
from audit.frontier import Frontier
from audit.note import NoteSigner
from audit.reader import CHECKPOINT, SIGNED, STATE
from audit.storage import Disk
from audit.tiles import ENTRIES, TILE_WIDTH, TileId, encode_bundle, tiles_of

TEMPORARY = f"{STATE}/incoming"


class Publisher:
    """Publishes trees of one log, each an extension of the one before."""

    def __init__(self, folder: Path, signer: NoteSigner, disk: Disk) -> None:
        self._folder = folder
        self._signer = signer
        self._disk = disk

    def publish(
        self,
        tree: Frontier,
        full_tiles: Sequence[tuple[TileId, bytes]],
        entries: Sequence[bytes],
        first_entry: int,
        old_size: int,
    ) -> Checkpoint:
        """Publish a tree.

        Args:
            full_tiles: hash tiles completed since the tree of `old_size`.
            entries: all entries from `first_entry` on, which is a multiple of 256 at or below `old_size`.
            old_size: size of the tree whose tiles are in place.
        Raises: NotDurable, after which the same may be tried again; StorageFailed.
        """
        checkpoint = Checkpoint(self._signer.key.name, tree.size, tree.root())
        tiles = self._missing_tiles(tree, full_tiles, entries, first_entry, old_size)
        self._write_tiles(tiles)  # (1)
        write_signed(self._folder, checkpoint, self._disk)  # (2)
        self._write(CHECKPOINT, self._signer.sign(checkpoint.encode()))  # (3)
        self._disk.sync_folders([self._folder])
        for tile, _ in tiles:  # (4)
            if tile.width == TILE_WIDTH and (partial := self._folder / f"{tile.path}.p").exists():
                self._disk.remove(partial)
        return checkpoint

    def _missing_tiles(
        self,
        tree: Frontier,
        full_tiles: Sequence[tuple[TileId, bytes]],
        entries: Sequence[bytes],
        first_entry: int,
        old_size: int,
    ) -> list[tuple[TileId, bytes]]:
        hashes = dict(full_tiles) | dict(tree.partial_tiles())
        missing = []
        for tile in tiles_of(tree.size, old_size):
            if tile.level == ENTRIES:
                start = tile.number * TILE_WIDTH - first_entry
                missing.append((tile, encode_bundle(entries[start : start + tile.width])))
            else:
                missing.append((tile, hashes[tile]))
        return missing

    def _write_tiles(self, tiles: Sequence[tuple[TileId, bytes]]) -> None:
        folders = set()
        for tile, data in tiles:
            parent = (self._folder / tile.path).parent
            if parent not in folders:
                self._disk.make_folder(parent)
                folders.add(parent)
            self._write(tile.path, data)
        self._disk.sync_folders(folders)

    def _write(self, path: str, data: bytes) -> None:
        self._disk.write_file(self._folder / path, data, self._folder / TEMPORARY / "published")


def write_signed(folder: Path, checkpoint: Checkpoint, disk: Disk) -> None:
    """Remember durably what is about to be signed."""
    disk.write_file(folder / SIGNED, checkpoint.encode().encode(), folder / TEMPORARY / "signed")
    disk.sync_folders([folder / STATE])
