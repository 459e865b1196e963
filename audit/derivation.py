"""Deriving a tree anew from its entries, and comparing every tile with it on the way.

Used by `fsck`. Entries under the last signed tree are read from their bundles and compared with the tiles as they come; those
behind it come from the write-ahead log, and their tiles are kept for a comparison with files that a crash left early.
"""

from collections.abc import Iterable
from pathlib import Path

from audit.checkpoint import Checkpoint
from audit.entry import parse_canonical
from audit.errors import LogCorrupted, MalformedEntry
from audit.frontier import Frontier
from audit.merkle import HASH_BYTES, leaf_hash
from audit.reader import LogReader
from audit.tiles import ENTRIES, TILE_WIDTH, TileId, encode_bundle, tile_width


class Derivation:
    """The tree as the entries give it.

    Args:
        heads: trees whose roots are to be compared; the largest is the last signed one.
    """

    def __init__(self, folder: Path, reader: LogReader, heads: Iterable[Checkpoint]) -> None:
        self.folder = folder
        self.reader = reader
        self.tree = Frontier()
        self._heads = list(heads)
        self.signed_size = max(head.size for head in self._heads)
        self._roots = {0: self.tree.root()}
        self._wanted = {head.size for head in self._heads}
        self._unsigned_entries: list[bytes] = []
        self._unsigned_tiles: dict[tuple[int, int], bytes] = {}

    def add_bundle(self, number: int) -> None:
        """Take the entries of a bundle of the signed tree.

        Raises: LogCorrupted.
        """
        width = tile_width(ENTRIES, number, self.signed_size)
        bundle, tile = TileId(ENTRIES, number, width), TileId(0, number, width)
        place = str(self.folder / bundle.path)
        entries, hashes = self.reader.read_bundle(number, self.signed_size), self.reader.read_hashes(tile)
        leaves = [leaf_hash(entry) for entry in entries]
        if leaves != hashes:
            offset = next(at for at, leaf in enumerate(leaves) if leaf != hashes[at])
            index = number * TILE_WIDTH + offset
            raise LogCorrupted(f"{place}: entry {index} does not hash to what {tile.path} holds at place {offset}")
        for index, entry in enumerate(entries, number * TILE_WIDTH):
            _verify_entry(entry, index, place)
        self._extend(leaves)

    def add_unsigned(self, record: bytes, place: str) -> None:
        """Take a record behind the signed tree.

        Raises: LogCorrupted.
        """
        _verify_entry(record, self.tree.size, place)
        self._unsigned_entries.append(record)
        self._extend([leaf_hash(record)])

    def verify_signed(self) -> None:
        """Compare the partial tiles of the signed tree, then the roots of all heads.

        Raises: LogCorrupted.
        """
        for tile, data in self.tree.partial_tiles():
            self._compare(tile, data)
        for head in self._heads:
            if self._roots[head.size] != head.root:
                raise LogCorrupted(
                    f"{self.folder}: the first {head.size} entries do not have the root that the checkpoint of that size signs"
                )

    def leaf(self, index: int) -> bytes:
        """Hash of an entry of the signed tree."""
        number = index // TILE_WIDTH
        return self.reader.read_hashes(TileId(0, number, tile_width(0, number, self.signed_size)))[index % TILE_WIDTH]

    def was_compared(self, tile: TileId) -> bool:
        """Whether its file is what the entries of the signed tree were read from, or was compared with them on the way."""
        return tile == tile.full and tile.number < self.signed_size >> 8 * (max(tile.level, 0) + 1)

    def expected(self, tile: TileId) -> bytes:
        """What a tile or bundle must hold; it lies within the derived tree.

        Raises: LogCorrupted.
        """
        if tile.level == ENTRIES:
            return self._expected_bundle(tile)
        if (data := self._unsigned_tiles.get((tile.level, tile.number))) is None:
            row = self.tree.levels[tile.level]
            if tile.number == self.tree.size >> 8 * (tile.level + 1):
                data = b"".join(row)
            else:
                data = b"".join(self.reader.read_hashes(tile.full))
        return data[: tile.width * HASH_BYTES]

    def _expected_bundle(self, tile: TileId) -> bytes:
        first, end = tile.number * TILE_WIDTH, tile.number * TILE_WIDTH + tile.width
        signed = self.reader.read_bundle(tile.number, self.signed_size) if first < self.signed_size else []
        first_unsigned = max(first - self.signed_size, 0)
        unsigned = self._unsigned_entries[first_unsigned : max(end - self.signed_size, 0)]
        return encode_bundle([*signed, *unsigned][: tile.width])

    def _extend(self, leaves: list[bytes]) -> None:
        """Add leaves, and take the roots of the heads on the way."""
        start, first = 0, self.tree.size
        heads = sorted(size - first for size in self._wanted if first < size < first + len(leaves))
        for end in (*heads, len(leaves)):
            self.tree.extend(leaves[start:end], self._take_full)
            start = end
            if self.tree.size in self._wanted:
                self._roots[self.tree.size] = self.tree.root()

    def _take_full(self, tile: TileId, data: bytes) -> None:
        if self.tree.size > self.signed_size:
            self._unsigned_tiles[tile.level, tile.number] = data
        elif tile.level > 0:  # Those of level 0 were compared leaf by leaf.
            self._compare(tile, data)

    def _compare(self, tile: TileId, data: bytes) -> None:
        if b"".join(self.reader.read_hashes(tile)) != data:
            raise LogCorrupted(f"{self.folder / tile.path}: does not hold the hashes of the entries below it")


def _verify_entry(entry: bytes, index: int, place: str) -> None:
    try:
        metadata = parse_canonical(entry).get("metadata")
    except MalformedEntry as error:
        raise LogCorrupted(f"{place}: entry {index}: {error}") from error
    sequence = metadata.get("sequence") if isinstance(metadata, dict) else None
    if sequence != index:
        raise LogCorrupted(f"{place}: entry {index} says that it is entry {sequence}")
