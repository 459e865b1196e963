"""Tile paths, sizes and bundles as C2SP tlog-tiles has them."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.errors import AuditRejected, MalformedTile
from audit.tiles import ENTRIES, TileId, encode_bundle, parse_bundle, parse_tile_path, split_tile, tile_width, tiles_of


def test_paths_of_the_specification() -> None:
    """Groups of three digits, all but the last with an x; partial tiles in a folder of their own."""
    assert TileId(0, 1234067).path == "tile/0/x001/x234/067"
    assert TileId(ENTRIES, 1234067, 8).path == "tile/entries/x001/x234/067.p/8"
    assert TileId(63, 0, 255).path == "tile/63/000.p/255"


def test_tiles_of_seventy_thousand_leaves() -> None:
    """The specification's example: 273 full and one of 112; one full and one of 17; one of 1."""
    tiles = list(tiles_of(70_000))
    widths = {level: Counter(t.width for t in tiles if t.level == level) for level in (ENTRIES, 0, 1, 2)}
    assert widths == {ENTRIES: {256: 273, 112: 1}, 0: {256: 273, 112: 1}, 1: {256: 1, 17: 1}, 2: {1: 1}}
    assert len(tiles) == 274 + 274 + 2 + 1


def test_tiles_of_256_leaves() -> None:
    """The specification's other example: a full tile and one of level 1 that is one wide. Never an empty one."""
    assert list(tiles_of(256)) == [TileId(ENTRIES, 0), TileId(0, 0), TileId(1, 0, 1)]
    assert list(tiles_of(0)) == []


@given(st.integers(0, 200_000), st.integers(0, 200_000))
def test_only_what_is_new_is_given(one: int, other: int) -> None:
    """The new tree's tiles are those of the old that stay, and those that are given."""
    old_size, size = sorted((one, other))
    new = set(tiles_of(size, old_size))
    assert set(tiles_of(size)) - set(tiles_of(old_size)) == new
    assert all(0 < tile.width == tile_width(tile.level, tile.number, size) for tile in new)


@given(st.integers(-1, 63), st.integers(0, 10**15 - 1), st.integers(1, 256))
def test_paths_come_back(level: int, number: int, width: int) -> None:
    """Every tile has one path, and that path that tile."""
    tile = TileId(level, number, width)
    assert parse_tile_path(tile.path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "checkpoint",
        "tile/0",
        "tile/00/000",
        "tile/64/000",
        "tile/-1/000",
        "tile/0/0",
        "tile/0/x000/001",
        "tile/0/001/002",
        "tile/0/x001/x002",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/000.p",
        "tile/entries/000.p/1/2",
        "tile/0/٠٠٠",
        "tile/0/000.p/١",
        "other/0/000",
        "tile/0/x001/x002/x003/x004/x005/x006/x007/x008/009",
    ],
)
def test_other_spellings_are_refused(path: str) -> None:
    """One path a tile, so that nothing can lie beside the tree unseen."""
    with pytest.raises(MalformedTile):
        parse_tile_path(path)


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=20))
def test_bundles_come_back(entries: list[bytes]) -> None:
    """A bundle is its entries, no more and no fewer."""
    data = encode_bundle(entries)
    assert parse_bundle(data, TileId(ENTRIES, 0, len(entries))) == entries
    with pytest.raises(MalformedTile):
        parse_bundle(data, TileId(ENTRIES, 0, len(entries) + 1))
    with pytest.raises(MalformedTile):
        parse_bundle(data + b"\x00\x00", TileId(ENTRIES, 0, len(entries)))
    with pytest.raises(MalformedTile):
        parse_bundle(data[:-1], TileId(ENTRIES, 0, len(entries)))


def test_hash_tiles_have_their_width() -> None:
    """A tile that was cut off, in the middle of a hash or behind one, or goes on, is none."""
    data = bytes(range(256)) * 2
    assert split_tile(data, TileId(0, 0, 16)) == [data[start : start + 32] for start in range(0, 512, 32)]
    for other in (data[:-1], data[:-32], data + bytes(32), b""):
        with pytest.raises(MalformedTile, match="bytes, expected 512"):
            split_tile(other, TileId(0, 0, 16))


def test_lengths_are_big_endian() -> None:
    """uint16, so the longest entry has 65,535 bytes."""
    assert encode_bundle([b"ab"]) == b"\x00\x02ab"
    assert encode_bundle([b"x" * 65_535])[:2] == b"\xff\xff"


@given(st.binary(max_size=400), st.text(max_size=40), st.integers(1, 256))
def test_nothing_but_the_family_escapes(data: bytes, path: str, width: int) -> None:
    """Rubbish is refused by our errors."""
    for parse in (
        lambda: parse_bundle(data, TileId(ENTRIES, 0, width)),
        lambda: split_tile(data, TileId(0, 0, width)),
        lambda: parse_tile_path(path),
        lambda: parse_tile_path(f"tile/{path}"),
    ):
        try:
            parse()
        except AuditRejected:
            pass
