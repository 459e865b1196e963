"""The frontier: all that must be remembered of a tree to append to it, per level the hashes of its last, unfinished tile.

At most 255 hashes a level: 100 million leaves need four levels, 32 kB. A tile that fills is handed to the caller, who writes
it; the frontier forgets it. A snapshot is the same thing for one moment, from which root and partial tiles are taken.
"""

from collections.abc import Callable, Sequence

from audit.merkle import EMPTY_ROOT, HASH_BYTES, root_of
from audit.tiles import TILE_WIDTH, TileId, tile_width

FullTile = Callable[[TileId, bytes], None]


class Frontier:
    """The right edge of a tree.

    Always: `levels[l]` has `(size >> 8 * l) % 256` hashes, each of a perfect subtree of 256^l leaves.
    """

    def __init__(self, size: int = 0, levels: Sequence[Sequence[bytes]] = ()) -> None:
        self.size = size
        self.levels: list[list[bytes]] = [list(level) for level in levels]
        assert all(len(level) == (size >> 8 * i) % TILE_WIDTH for i, level in enumerate(self.levels))

    def append(self, leaf: bytes, full_tile: FullTile | None = None) -> None:
        """Add a leaf hash; `full_tile` gets each tile that is completed by it, lowest level first."""
        self.extend((leaf,), full_tile)

    def extend(self, leaves: Sequence[bytes], full_tile: FullTile | None = None) -> None:
        """Add leaf hashes, as `append` does one by one: a commit's records cost half of what they cost there."""
        if not self.levels:
            self.levels.append([])
        row, start = self.levels[0], 0
        while start < len(leaves):
            taken = leaves[start : start + TILE_WIDTH - len(row)]
            row += taken
            start += len(taken)
            self.size += len(taken)
            if len(row) == TILE_WIDTH:
                self._close_rows(full_tile)

    def _close_rows(self, full_tile: FullTile | None) -> None:
        """Carry each row that is full up as one hash, lowest level first."""
        level = 0
        while len(row := self.levels[level]) == TILE_WIDTH:
            if full_tile is not None:
                full_tile(TileId(level, (self.size >> 8 * (level + 1)) - 1), b"".join(row))
            level += 1
            if level == len(self.levels):
                self.levels.append([])
            self.levels[level].append(root_of(row))
            row.clear()

    def root(self) -> bytes:
        """RFC 6962 root of the tree so far."""
        edge: bytes | None = None
        for level in self.levels:
            row = level if edge is None else [*level, edge]
            if row:
                edge = root_of(row)
        return EMPTY_ROOT if edge is None else edge

    def copy(self) -> "Frontier":
        """The frontier as it is now."""
        return Frontier(self.size, self.levels)

    def partial_tiles(self) -> list[tuple[TileId, bytes]]:
        """The unfinished hash tiles of the tree so far, lowest level first."""
        return [
            (TileId(level, self.size >> 8 * (level + 1), len(row)), b"".join(row))
            for level, row in enumerate(self.levels)
            if row
        ]


def load_frontier(size: int, read_tile: Callable[[TileId], bytes]) -> Frontier:
    """The frontier of a tree of `size` leaves, from its partial tiles.

    Args:
        read_tile: gives the bytes of a tile of exactly the right length, or raises.
    """
    levels = []
    level = 0
    while size >> 8 * level:
        number = size >> 8 * (level + 1)
        width = tile_width(level, number, size)
        data = read_tile(TileId(level, number, width)) if width else b""
        levels.append([data[i : i + HASH_BYTES] for i in range(0, len(data), HASH_BYTES)])
        level += 1
    return Frontier(size, levels)
