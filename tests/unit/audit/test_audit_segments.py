"""Segments made of spares: what is written over, what grows, and what a start makes of either."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from audit.append import LogWriter
from audit.errors import NotDurable
from audit.fsck import verify_log
from audit.storage import Disk
from tests.unit.audit.conftest import ORIGIN, make_record

SEGMENT_BYTES = 40_000


class CrowdedDisk(Disk):
    """A disk with too little space for spares."""

    def free_bytes(self, folder: Path) -> int:
        return SEGMENT_BYTES


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
