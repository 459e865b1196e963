"""Segments made of spares: what is written over, what grows, and what a start makes of either."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from audit.append import LogWriter
from audit.errors import NotDurable
from audit.fsck import verify_log
from audit.segments import SegmentWriter
from audit.storage import Disk
from audit.wal import create_segment, encode_batch, load_segments
from tests.unit.audit.conftest import ORIGIN, make_record

SEGMENT_BYTES = 40_000


class CrowdedDisk(Disk):
    """A disk with too little space for spares."""

    def free_bytes(self, folder: Path) -> int:
        return SEGMENT_BYTES


class RoomierDisk(Disk):
    """A disk on which there is space for spares from some moment on."""

    has_room = False

    def free_bytes(self, folder: Path) -> int:
        return super().free_bytes(folder) if self.has_room else SEGMENT_BYTES


class CountedDisk(Disk):
    """A disk that counts what is written to it."""

    num_written = 0

    def write(self, fd: int, data: bytes, path: Path) -> None:
        self.num_written += len(data)
        super().write(fd, data, path)


def open_with_thread(home: Path, disk: Disk | None = None) -> LogWriter:
    """A writer that publishes beside."""
    executor = ThreadPoolExecutor(max_workers=1)
    return LogWriter(
        home / "log",
        home / "log.key",
        origin=ORIGIN,
        segment_bytes=SEGMENT_BYTES,
        executor=executor,
        testing_only_disk=disk,
    )


def fill(writer: LogWriter, count: int) -> None:
    """Append so many records in one commit."""
    writer.append([make_record(writer.next_index + i, "x" * 200) for i in range(count)])
    writer.commit()


def segments_of(home: Path) -> list[Path]:
    """All segments, oldest first."""
    return sorted((home / "log/.state/wal").iterdir())


def test_a_prepared_segment_does_not_grow(tmp_path: Path) -> None:
    """Commits write over zeroes: the file is as long afterwards as before."""
    writer = open_with_thread(tmp_path)
    writer.prepare()
    (segment,) = segments_of(tmp_path)
    assert segment.stat().st_size == SEGMENT_BYTES
    fill(writer, 20)
    assert segment.stat().st_size == SEGMENT_BYTES
    writer.publish()
    writer.close()
    verified = verify_log(tmp_path / "log", writer.key)
    assert (verified.checkpoint.size, verified.torn_bytes) == (20, 0)


def test_a_start_goes_on_behind_the_last_batch_of_a_prepared_segment(tmp_path: Path) -> None:
    """The zeroes behind it are no torn end and are not cut off."""
    writer = open_with_thread(tmp_path)
    writer.prepare()
    fill(writer, 20)
    writer.close()
    again = open_with_thread(tmp_path)
    assert (again.size, again.torn_bytes) == (20, 0)
    fill(again, 5)
    assert segments_of(tmp_path)[0].stat().st_size == SEGMENT_BYTES
    again.close()
    assert open_with_thread(tmp_path).size == 25


def test_a_torn_batch_in_a_prepared_segment_is_cut_off(tmp_path: Path) -> None:
    """Half of a commit, with zeroes behind it, was never acknowledged."""
    writer = open_with_thread(tmp_path)
    writer.prepare()
    fill(writer, 20)
    end = writer._wal._clean_bytes
    fill(writer, 20)
    writer.close()
    (segment,) = segments_of(tmp_path)
    with segment.open("r+b") as file:
        file.seek(end + 2_000)
        file.write(bytes(SEGMENT_BYTES))
    again = open_with_thread(tmp_path)
    assert again.size == 20
    assert 0 < again.torn_bytes <= 2_000
    fill(again, 1)
    again.close()
    assert open_with_thread(tmp_path).size == 21


def test_a_covered_segment_is_used_again(tmp_path: Path) -> None:
    """The disk holds two segments, however much is appended, and nothing of an old one shows in a new one."""
    writer = open_with_thread(tmp_path)
    writer.prepare()
    inodes = set()
    for _ in range(12):
        fill(writer, 200)
        writer.publish()
        inodes |= {path.stat().st_ino for path in segments_of(tmp_path)}
    assert len(segments_of(tmp_path)) <= 2
    assert len(inodes) <= 4
    writer.close()
    assert verify_log(tmp_path / "log", writer.key).checkpoint.size == 2_400
    assert open_with_thread(tmp_path).size == 2_400


def test_no_segment_grows_while_spares_come(tmp_path: Path) -> None:
    """The next begins while there is still room in the last for what comes between two publications."""
    writer = open_with_thread(tmp_path)
    writer.prepare()
    lengths = set()
    for _ in range(8):
        fill(writer, 60)
        writer.publish()
        lengths |= {path.stat().st_size for path in segments_of(tmp_path)}
    num_bytes = sum(len(writer.read(index)) for index in range(60))
    assert 3 * num_bytes > SEGMENT_BYTES  # A segment that is filled up grows.
    assert num_bytes < SEGMENT_BYTES // 2
    assert lengths == {SEGMENT_BYTES}
    writer.close()


def test_a_short_segment_is_no_spare(tmp_path: Path) -> None:
    """What grew for want of space is not used again when there is space: it would grow again."""
    disk = RoomierDisk()
    writer = open_with_thread(tmp_path, disk)
    fill(writer, 60)
    writer.publish()
    disk.has_room = True
    for _ in range(6):
        fill(writer, 60)
        writer.publish()
    assert {path.stat().st_size for path in segments_of(tmp_path)} == {SEGMENT_BYTES}
    writer.close()
    assert verify_log(tmp_path / "log", writer.key).checkpoint.size == 420


def test_blanking_writes_where_something_stands(tmp_path: Path) -> None:
    """All of a file is zero afterwards, and what was zero was not written; filling writes everything."""
    disk = CountedDisk()
    path = tmp_path / "spare"
    disk.fill(path, 1_000_000)
    assert disk.num_written == 1_000_000
    with path.open("r+b") as file:
        file.seek(300_000)
        file.write(b"x" * 100)
    disk.num_written = 0
    disk.blank(path)
    assert disk.num_written == 1 << 18
    assert path.read_bytes() == bytes(1_000_000)


def test_without_space_for_a_spare_segments_grow(tmp_path: Path) -> None:
    """Nothing is filled with zeroes that somebody else may need."""
    writer = open_with_thread(tmp_path, CrowdedDisk())
    writer.prepare()
    fill(writer, 20)
    writer.publish()
    assert segments_of(tmp_path)[0].stat().st_size < SEGMENT_BYTES
    writer.close()
    assert verify_log(tmp_path / "log", writer.key).checkpoint.size == 20


def test_a_fill_leaves_others_their_space(tmp_path: Path) -> None:
    """It is refused before a byte is written where it would take more than a quarter of what is free."""
    with pytest.raises(NotDurable, match="4 times"):
        CrowdedDisk().fill(tmp_path / "spare", SEGMENT_BYTES)
    assert not (tmp_path / "spare").exists()


def test_a_publication_beside_does_not_hold_up_commits(tmp_path: Path) -> None:
    """While one runs, appends are committed; it is taken in when it has ended, and covers what it was begun with."""
    writer = open_with_thread(tmp_path)
    fill(writer, 300)
    assert writer.publish_if_due(0.0) is None
    assert writer.is_publishing
    fill(writer, 300)
    assert writer._under_way is not None
    writer._under_way[1].result()
    checkpoint = writer.publish_if_due(0.0)
    assert checkpoint is not None
    assert checkpoint.size == 300
    assert [writer.read(index) for index in (0, 299, 300, 599)] == [
        make_record(index, "x" * 200) for index in (0, 299, 300, 599)
    ]
    assert writer.publish().size == 600
    writer.close()
    assert verify_log(tmp_path / "log", writer.key).checkpoint.size == 600


class ShortDisk(Disk):
    """A disk on which a write to a segment finds no space when the test says so."""

    is_full = False

    def write(self, fd: int, data: bytes, path: Path) -> None:
        if self.is_full and path.parent.name == "wal":
            os.write(fd, data[:100])
            raise NotDurable(f"{path}: no space")
        super().write(fd, data, path)


def test_behind_a_full_disk_the_next_segment_is_begun_where_there_is_a_spare(tmp_path: Path) -> None:
    """What was cut to take the failed batch back has no zeroes any more: it would grow with each commit."""
    disk = ShortDisk()
    writer = open_with_thread(tmp_path, disk)
    writer.prepare()
    fill(writer, 5)
    writer.publish()
    assert writer._wal.has_spare
    disk.is_full = True
    with pytest.raises(NotDurable):
        fill(writer, 5)
    disk.is_full = False
    for _ in range(2):
        fill(writer, 5)
        writer.publish()
    assert writer.size == 15
    assert writer._wal.path.stat().st_size == SEGMENT_BYTES
    writer.close()
    assert verify_log(tmp_path / "log", writer.key).checkpoint.size == 15


def test_a_segment_is_stale_when_the_tree_has_its_last_record(tmp_path: Path) -> None:
    """And not one record before; the one that is written to never is."""
    disk, folder, temporary = Disk(), tmp_path / "wal", tmp_path / "made"
    folder.mkdir()
    create_segment(disk, folder, 0, temporary)
    segments = SegmentWriter(folder, temporary, load_segments(folder, 0), segment_bytes=1_000, disk=disk)
    old = segments.path
    segments.append(encode_batch(0, [make_record(index, "x" * 200) for index in range(10)]))
    segments.turn_if_due(10)
    assert segments.path != old
    assert segments.find_stale(9) == []
    assert segments.find_stale(10) == [old]
    assert segments.find_stale(10**6) == [old]
    segments.close()
