"""Segments of the write-ahead log: round trips, torn ends, and damage that is no torn end."""

import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.errors import LogCorrupted
from audit.storage import Disk
from audit.wal import (
    create_segment,
    encode_batch,
    list_segments,
    load_segments,
    parse_segment,
    segment_path,
    split_stale,
)

RECORDS = st.lists(st.text(max_size=40).map(str.encode), min_size=1, max_size=5)
BATCHES = st.lists(RECORDS, min_size=1, max_size=5)


def make_segment(first: int, batches: list[list[bytes]]) -> tuple[bytes, list[int], list[bytes]]:
    """A segment's bytes, where each batch ends, and its records."""
    head = struct.pack(">16sQ", b"casemate wal v1\n", first)
    data = head + struct.pack(">I", zlib.crc32(head))
    ends, records = [len(data)], []
    for batch in batches:
        data += encode_batch(first + len(records), batch)
        records += batch
        ends.append(len(data))
    return data, ends, records


PATH = segment_path(Path("wal"), 7)


@given(BATCHES)
def test_segments_come_back(batches: list[list[bytes]]) -> None:
    """All records, in order, and nothing torn."""
    data, _, records = make_segment(7, batches)
    segment = parse_segment(PATH, data)
    assert (segment.records, segment.torn_bytes, segment.next_index) == (records, 0, 7 + len(records))


@given(BATCHES, st.data())
def test_a_segment_that_was_cut_off_anywhere_keeps_its_whole_batches(
    batches: list[list[bytes]], data: st.DataObject
) -> None:
    """A write that was interrupted leaves the commits before it."""
    whole, ends, _ = make_segment(7, batches)
    cut = data.draw(st.integers(ends[0], len(whole)))
    segment = parse_segment(PATH, whole[:cut])
    num_whole = sum(end <= cut for end in ends) - 1
    assert segment.records == [record for batch in batches[:num_whole] for record in batch]
    assert segment.clean_bytes == ends[num_whole]
    assert segment.torn_bytes == len(whole[ends[num_whole] : cut].rstrip(b"\0"))


@given(BATCHES, st.data())
def test_a_flipped_bit_is_damage_unless_it_is_in_the_last_batch(
    batches: list[list[bytes]], data: st.DataObject
) -> None:
    """An acknowledged record is never taken for a torn end when a later commit shows that it was durable."""
    whole, ends, _ = make_segment(7, batches)
    position = data.draw(st.integers(0, len(whole) - 1))
    broken = bytearray(whole)
    broken[position] ^= 1 << data.draw(st.integers(0, 7))
    if position < ends[-2] or position < ends[0]:
        with pytest.raises(LogCorrupted):
            parse_segment(PATH, bytes(broken))
    else:
        segment = parse_segment(PATH, bytes(broken))
        assert segment.records == [record for batch in batches[:-1] for record in batch]


@given(BATCHES, st.binary(max_size=100))
def test_rubbish_behind_the_end_is_torn(batches: list[list[bytes]], rubbish: bytes) -> None:
    """Whatever an interrupted write left is cut off. Zeroes are not torn: they are what a batch is written over."""
    whole, ends, records = make_segment(7, batches)
    for tail, torn_bytes in ((rubbish, len(rubbish.rstrip(b"\0"))), (bytes(len(rubbish)), 0)):
        segment = parse_segment(PATH, whole + tail)
        assert (segment.records, segment.clean_bytes, segment.torn_bytes) == (records, ends[-1], torn_bytes)


@given(st.binary(max_size=200))
def test_nothing_but_the_family_escapes(data: bytes) -> None:
    """Rubbish is refused by our errors."""
    whole, _, _ = make_segment(7, [])
    for one in (data, whole + data):
        try:
            parse_segment(PATH, one)
        except LogCorrupted:
            pass


def test_a_segment_must_be_what_its_name_says() -> None:
    """A renamed segment would move its records."""
    data, _, _ = make_segment(7, [[b"x"]])
    with pytest.raises(LogCorrupted, match="starts at 7"):
        parse_segment(segment_path(Path("wal"), 8), data)


def test_segments_follow_each_other(tmp_path: Path) -> None:
    """A missing segment between two, or a torn one that is not the last, is damage."""
    disk = Disk()
    for first in (0, 2, 4):
        path = create_segment(disk, tmp_path, first, tmp_path / "temporary")
        with path.open("ab") as file:
            file.write(encode_batch(first, [b"a", b"b"]))
    assert [index for index, _ in list_segments(tmp_path)] == [0, 2, 4]
    assert [segment.next_index for segment in load_segments(tmp_path, 0)] == [2, 4, 6]
    middle = segment_path(tmp_path, 2)
    whole = middle.read_bytes()
    middle.write_bytes(whole[:-1])
    with pytest.raises(LogCorrupted, match=r"002\.wal: damaged"):
        load_segments(tmp_path, 0)
    middle.unlink()
    with pytest.raises(LogCorrupted, match=r"004\.wal: starts at record 4"):
        load_segments(tmp_path, 0)


def test_segments_below_what_is_signed_are_not_needed(tmp_path: Path) -> None:
    """A loss of power may bring one back that was removed, and not the next one."""
    for first in (0, 4, 6):
        create_segment(Disk(), tmp_path, first, tmp_path / "temporary")
    segment_path(tmp_path, 4).write_bytes(make_segment(4, [[b"a", b"b"]])[0])
    with pytest.raises(LogCorrupted):
        load_segments(tmp_path, 3)
    for size in (4, 5):
        assert [segment.first_index for segment in load_segments(tmp_path, size)] == [4, 6]
        assert split_stale(tmp_path, size)[0] == [segment_path(tmp_path, 0)]
    assert [segment.first_index for segment in load_segments(tmp_path, 6)] == [6]
