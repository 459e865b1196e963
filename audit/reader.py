"""Reading a log's folder: entries, hashes and proofs under a checkpoint. Writes nothing; whoever may read the folder may use it.

Every file read is of the immutable kind (tiles, bundles) but for `checkpoint`, which is replaced at once. So reading while an
auditor writes is safe: take the checkpoint first, and all that it needs is there.
"""

from collections import OrderedDict
from pathlib import Path

from audit.checkpoint import Checkpoint
from audit.errors import EntryNotFound, LogCorrupted, MalformedTile
from audit.merkle import consistency_proof, inclusion_proof, node_hash, root_of, split_point
from audit.note import MAX_NOTE_BYTES
from audit.proof import TlogProof
from audit.storage import read_regular
from audit.tiles import (
    ENTRIES,
    MAX_BUNDLE_BYTES,
    MAX_ENTRY_BYTES,
    TILE_BYTES,
    TILE_WIDTH,
    TileId,
    parse_bundle,
    split_tile,
    tile_width,
)

CHECKPOINT = "checkpoint"
STATE = ".state"
SIGNED = ".state/signed"
LOCK = ".state/lock"
WAL = ".state/wal"
_CACHED_TILES = 128


class LogReader:
    """Reads one folder. Keeps the last tiles it read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tiles: OrderedDict[TileId, list[bytes]] = OrderedDict()

    def checkpoint_note(self) -> bytes:
        """The published checkpoint, as it is.

        Raises: EntryNotFound when none was published yet.
        """
        path = self.folder / CHECKPOINT
        try:
            return read_regular(path, MAX_NOTE_BYTES)
        except FileNotFoundError:
            raise EntryNotFound(f"{path}: there is no checkpoint") from None

    def read_tile(self, tile: TileId, max_bytes: int = MAX_BUNDLE_BYTES) -> bytes:
        """The bytes of a tile or bundle, or the first of them; of a partial one that is gone, the full one's.

        Raises: LogCorrupted when it is missing.
        """
        for path in (self.folder / tile.path, self.folder / tile.full.path):
            try:
                return read_regular(path, max_bytes)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise LogCorrupted(f"{path}: cannot be read: {error.strerror}") from error
        raise LogCorrupted(f"{self.folder / tile.path}: is missing")

    def read_hashes(self, tile: TileId) -> list[bytes]:
        """The hashes of a hash tile, as many as it is wide.

        Raises: LogCorrupted.
        """
        if (hashes := self._tiles.get(tile)) is not None:
            self._tiles.move_to_end(tile)
            return hashes
        data = self.read_tile(tile)
        is_full = len(data) == TILE_BYTES
        try:
            hashes = split_tile(data, tile.full if is_full else tile)[: tile.width]
        except MalformedTile as error:
            raise LogCorrupted(f"{self.folder}: {error}") from error
        self._tiles[tile] = hashes
        if len(self._tiles) > _CACHED_TILES:
            self._tiles.popitem(last=False)
        return hashes

    def read_bundle(self, number: int, size: int) -> list[bytes]:
        """The entries of a bundle in a tree of `size` leaves.

        Raises: LogCorrupted.
        """
        tile = TileId(ENTRIES, number, tile_width(ENTRIES, number, size))
        data = self.read_tile(tile)
        try:
            try:
                return parse_bundle(data, tile)
            except MalformedTile:
                if tile == tile.full:
                    raise
                return parse_bundle(data, tile.full)[: tile.width]
        except MalformedTile as error:
            raise LogCorrupted(f"{self.folder}: {error}") from error

    def find_missing_bundle(self, size: int) -> str | None:
        """The first bundle of a tree of `size` leaves that has no file; None where all have. What they hold is not looked at."""
        for number in range(-(-size // TILE_WIDTH)):
            tile = TileId(ENTRIES, number, tile_width(ENTRIES, number, size))
            if not any((self.folder / one.path).is_file() for one in {tile, tile.full}):
                return tile.path
        return None

    def read_first(self, number: int, size: int) -> bytes:
        """The first entry of a bundle, without the rest of it.

        Raises: LogCorrupted.
        """
        tile = TileId(ENTRIES, number, tile_width(ENTRIES, number, size))
        data = self.read_tile(tile, 2 + MAX_ENTRY_BYTES)
        end = 2 + int.from_bytes(data[:2], "big")
        if len(data) < max(end, 2):
            raise LogCorrupted(f"{self.folder / tile.path}: ends within its first entry")
        return data[2:end]

    def read_entry(self, index: int, size: int) -> bytes:
        """The entry at an index of a tree of `size` leaves.

        Raises: EntryNotFound, LogCorrupted.
        """
        if not 0 <= index < size:
            raise EntryNotFound(f"{self.folder}: no entry {index} in a tree of {size}")
        return self.read_bundle(index // TILE_WIDTH, size)[index % TILE_WIDTH]

    def range_hash(self, start: int, end: int, size: int) -> bytes:
        """MTH(D[start:end]) of a node of the tree of `size` leaves.

        Raises: LogCorrupted.
        """
        num_leaves = end - start
        if num_leaves & (num_leaves - 1) or start % num_leaves:
            middle = start + split_point(num_leaves)
            return node_hash(self.range_hash(start, middle, size), self.range_hash(middle, end, size))
        level = (num_leaves.bit_length() - 1) // 8
        first, last = start >> 8 * level, end >> 8 * level
        number = first // TILE_WIDTH
        hashes = self.read_hashes(TileId(level, number, tile_width(level, number, size)))
        return root_of(hashes[first - number * TILE_WIDTH : last - number * TILE_WIDTH])

    def root(self, size: int, tree_size: int | None = None) -> bytes:
        """Root of the first `size` leaves, from tiles of the tree of `tree_size` leaves, which has them."""
        if size == 0:
            return root_of(())
        return self.range_hash(0, size, size if tree_size is None else tree_size)

    def prove_inclusion(self, index: int, size: int, tree_size: int | None = None) -> list[bytes]:
        """Merkle path of an entry in the tree of its first `size` leaves; `tree_size` is as for `root`.

        Raises: EntryNotFound, LogCorrupted.
        """
        if not 0 <= index < size:
            raise EntryNotFound(f"{self.folder}: entry {index} is not under the checkpoint of size {size}")
        read_size = size if tree_size is None else tree_size
        return inclusion_proof(index, size, lambda start, end: self.range_hash(start, end, read_size))

    def prove_consistency(self, old_size: int, size: int) -> list[bytes]:
        """Proof that the tree of `old_size` leaves is a prefix of that of `size`.

        Raises: LogCorrupted.
        """
        return consistency_proof(old_size, size, lambda start, end: self.range_hash(start, end, size))

    def prove(self, index: int, checkpoint: Checkpoint, note: bytes, tree_size: int | None = None) -> bytes:
        """The tlog-proof of an entry under a checkpoint, which the caller MUST have verified.

        Args:
            tree_size: of the tree whose tiles are read, where it has grown since; partial tiles of before may be gone.
        Raises: EntryNotFound, LogCorrupted.
        """
        return TlogProof(index, tuple(self.prove_inclusion(index, checkpoint.size, tree_size)), note).encode()
