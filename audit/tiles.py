"""Tiles and entry bundles: how a tree lies in a folder that any web server can serve.

A hash tile of level l and number n holds the hashes of up to 256 neighbouring subtrees of 256^l leaves; an entry bundle holds
the entries of a tile of level 0. The last tile of a level may be partial; a full one is exactly 8,192 bytes.

Source: C2SP tlog-tiles.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from audit.errors import MalformedTile
from audit.merkle import HASH_BYTES

TILE_WIDTH = 256
TILE_BYTES = TILE_WIDTH * HASH_BYTES
MAX_ENTRY_BYTES = 0xFFFF
MAX_BUNDLE_BYTES = TILE_WIDTH * (MAX_ENTRY_BYTES + 2)
MAX_LEVEL = 63
ENTRIES = -1
"""Stands for `entries` where a level is asked for."""

_LENGTH = struct.Struct(">H")


@dataclass(frozen=True, slots=True, order=True)
class TileId:
    """One resource of the log: a hash tile of a level, or an entry bundle (level ENTRIES)."""

    level: int
    number: int
    width: int = TILE_WIDTH

    @property
    def path(self) -> str:
        """Path below the log's folder, such as `tile/0/x001/x234/067.p/8`."""
        level = "entries" if self.level == ENTRIES else str(self.level)
        partial = "" if self.width == TILE_WIDTH else f".p/{self.width}"
        return f"tile/{level}/{encode_tile_number(self.number)}{partial}"

    @property
    def full(self) -> "TileId":
        """The full tile at this place."""
        return TileId(self.level, self.number)


def encode_tile_number(number: int) -> str:
    """Groups of three digits, all but the last with an x before: 1234067 is x001/x234/067."""
    groups = [f"{number % 1000:03d}"]
    while number := number // 1000:
        groups.append(f"x{number % 1000:03d}")
    return "/".join(reversed(groups))


def parse_tile_path(path: str) -> TileId:
    """Parse a path below the log's folder.

    Accepts the canonical form only: `path` of the result is the argument.
    Raises: MalformedTile.
    """
    parts = path.split("/")
    width = TILE_WIDTH
    if len(parts) >= 4 and parts[-2].endswith(".p"):
        width = _parse_width(parts.pop())
        parts[-1] = parts[-1][:-2]
    if len(parts) < 3 or parts[0] != "tile" or len(parts) > 10:
        raise MalformedTile(f"{path!r} is not the path of a tile")
    digits = "".join(group.removeprefix("x") for group in parts[2:])
    if not (digits.isascii() and digits.isdigit()):
        raise MalformedTile(f"{path!r} is not the path of a tile")
    level = ENTRIES if parts[1] == "entries" else _parse_level(parts[1])
    tile = TileId(level, int(digits), width)
    if tile.path != path:
        raise MalformedTile(f"{path!r} is not the canonical path of a tile, which is {tile.path!r}")
    return tile


def _parse_level(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 2 and int(text) <= MAX_LEVEL):
        raise MalformedTile(f"level {text[:20]!r} of a tile: expected a number from 0 to {MAX_LEVEL}")
    return int(text)


def _parse_width(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 3 and 1 <= int(text) < TILE_WIDTH):
        raise MalformedTile(f"width {text[:20]!r} of a partial tile: expected a number from 1 to {TILE_WIDTH - 1}")
    return int(text)


def tile_width(level: int, number: int, size: int) -> int:
    """How many hashes the tile has in a tree of `size` leaves; 0 where it does not exist."""
    num_hashes = size >> 8 * max(level, 0)
    return max(0, min(TILE_WIDTH, num_hashes - number * TILE_WIDTH))


def tiles_of(size: int, old_size: int = 0) -> Iterator[TileId]:
    """All tiles and bundles of a tree of `size` leaves that one of `old_size` leaves has not, lowest level first.

    Full tiles that both have are left out; the partial ones of the new tree are given.
    """
    for level in (ENTRIES, *range(MAX_LEVEL + 1)):
        shift = 8 * max(level, 0)
        num_hashes, old_hashes = size >> shift, old_size >> shift
        if not num_hashes:
            return
        if num_hashes == old_hashes:
            continue
        for number in range(old_hashes // TILE_WIDTH, num_hashes // TILE_WIDTH):
            yield TileId(level, number)
        if width := num_hashes % TILE_WIDTH:
            yield TileId(level, num_hashes // TILE_WIDTH, width)


def split_tile(data: bytes, tile: TileId) -> list[bytes]:
    """The hashes of a hash tile.

    Raises: MalformedTile.
    """
    if len(data) != tile.width * HASH_BYTES:
        raise MalformedTile(f"{tile.path}: has {len(data)} bytes, expected {tile.width * HASH_BYTES}")
    return [data[i : i + HASH_BYTES] for i in range(0, len(data), HASH_BYTES)]


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """An entry bundle: each entry after its length as a big-endian uint16."""
    pieces: list[bytes] = []
    for entry in entries:
        pieces += (_LENGTH.pack(len(entry)), entry)
    return b"".join(pieces)


def parse_bundle(data: bytes, tile: TileId) -> list[bytes]:
    """The entries of a bundle, exactly as many as the tile is wide.

    Raises: MalformedTile.
    """
    entries: list[bytes] = []
    position, end = 0, len(data)
    while position < end:
        start = position + _LENGTH.size
        if start > end:
            raise MalformedTile(f"{tile.path}: ends within a length, after {len(entries)} entries")
        (length,) = _LENGTH.unpack_from(data, position)
        position = start + length
        if position > end:
            raise MalformedTile(f"{tile.path}: ends within entry {len(entries)}")
        entries.append(data[start:position])
        if len(entries) > tile.width:
            break
    if len(entries) != tile.width:
        found = f"more than {tile.width}" if len(entries) > tile.width else len(entries)
        raise MalformedTile(f"{tile.path}: has {found} entries, expected {tile.width}")
    return entries
