"""The writer: what is acknowledged stays, what cannot be written is taken back, and a wrong state is refused."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from audit.append import LogWriter
from audit.checkpoint import Checkpoint, verify_checkpoint
from audit.errors import (
    AuditMisconfigured,
    EntryNotFound,
    EntryTooLarge,
    KeyUnusable,
    LogInUse,
    NotDurable,
    StateMismatch,
    StorageFailed,
)
from audit.fsck import verify_log
from audit.merkle import leaf_hash, root_of, verify_consistency
from audit.proof import verify_proof
from audit.reader import LogReader
from audit.reserve import Reserve
from audit.signing_key import load_signer
from audit.storage import Disk
from audit.wal import SEGMENT_HEADER_BYTES, encode_batch
from tests.support.controls import control
from tests.unit.audit.conftest import ORIGIN, OpenLog, make_record


def fill(writer: LogWriter, num_records: int, per_commit: int = 64) -> None:
    """Append records that say their index."""
    while num_records:
        count = min(per_commit, num_records)
        writer.append([make_record(writer.next_index + i) for i in range(count)])
        writer.commit()
        num_records -= count


class FaultyDisk(Disk):
    """A disk with so many bytes left, or whose next sync fails."""

    def __init__(self) -> None:
        self.bytes_left: int | None = None
        self.fail_sync = False
        self.fail_truncate = False
        self.is_full_for_blanks = False

    def write(self, fd: int, data: bytes, path: Path) -> None:
        if self.bytes_left is not None and len(data) > self.bytes_left:
            super().write(fd, data[: self.bytes_left], path)
            self.bytes_left = 0
            raise NotDurable(f"{path}: write: No space left on device")
        super().write(fd, data, path)
        if self.bytes_left is not None:
            self.bytes_left -= len(data)

    def sync(self, fd: int, path: Path) -> None:
        if self.fail_sync:
            raise StorageFailed(f"{path}: cannot be synced: Input/output error")
        super().sync(fd, path)

    def blank(self, path: Path) -> None:
        if self.is_full_for_blanks:
            raise NotDurable(f"{path}: write: No space left on device")
        super().blank(path)

    def truncate(self, fd: int, size: int, path: Path) -> None:
        if self.fail_truncate:
            raise StorageFailed(f"{path}: cannot be cut off: Input/output error")
        super().truncate(fd, size, path)


@control("AU-9", "AU-9(3)")
@pytest.mark.parametrize("was_cut", [False, True])
def test_the_root_of_any_size_is_known(open_log: OpenLog, tmp_path: Path, was_cut: bool) -> None:
    """Published, signed and in tiles when a crash came before the checkpoint, or in the write-ahead log alone."""
    writer = open_log()
    fill(writer, 300)
    writer.publish()
    checkpoint = (tmp_path / "log" / "checkpoint").read_bytes()
    fill(writer, 300)
    writer.publish()
    fill(writer, 50)
    if was_cut:
        writer.close()
        (tmp_path / "log" / "checkpoint").write_bytes(checkpoint)
        writer = open_log()
    assert (writer.checkpoint.size, writer.size) == (300 if was_cut else 600, 650)
    leaves = [leaf_hash(make_record(index)) for index in range(650)]
    for size in (0, 1, 255, 256, 299, 300, 301, 511, 512, 513, 599, 600, 601, 649, 650):
        assert writer.root_of(size) == root_of(leaves[:size])


def test_records_stay_under_their_index(open_log: OpenLog) -> None:
    """After a restart too, published or not."""
    writer = open_log()
    assert writer.append([make_record(0), make_record(1)]) == 0
    assert (writer.size, writer.next_index) == (0, 2)
    with pytest.raises(EntryNotFound):
        writer.read(0)
    assert writer.commit() == range(2)
    fill(writer, 700)
    writer.publish()
    fill(writer, 30)
    writer.close()
    writer = open_log()
    assert writer.size == 732
    assert [writer.read(index) for index in range(732)] == [make_record(index) for index in range(732)]
    assert [entry for number in range(3) for entry in writer.read_bundle(number)] == [
        make_record(i) for i in range(732)
    ]
    assert writer.append([b"x"]) == 732


def test_what_was_not_committed_is_nowhere(open_log: OpenLog) -> None:
    """No index was given out for it."""
    writer = open_log()
    writer.append([make_record(0)])
    writer.close()
    assert open_log().size == 0


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 511, 512, 513, 1000])
def test_the_checkpoint_has_the_root_of_all_records(open_log: OpenLog, tmp_path: Path, size: int) -> None:
    """At sizes around the widths of tiles, with every record provable."""
    writer = open_log()
    fill(writer, size, 37)
    checkpoint = writer.publish()
    leaves = [leaf_hash(make_record(index)) for index in range(size)]
    assert (checkpoint.size, checkpoint.root) == (size, root_of(leaves))
    note = (tmp_path / "log" / "checkpoint").read_bytes()
    assert verify_checkpoint(note, [writer.key], ORIGIN) == checkpoint
    for index in {0, size // 2, size - 1}:
        assert verify_proof(writer.prove(index), make_record(index), [writer.key], ORIGIN) == (index, checkpoint)
    with pytest.raises(EntryNotFound):
        writer.prove(size)


def test_seventy_thousand_leaves_lie_as_the_specification_says(open_log: OpenLog, tmp_path: Path) -> None:
    """273 full tiles and one of 112; a full one and one of 17; one of 1; older partial tiles are gone once full."""
    writer = open_log()
    for size in (100, 300, 65_000, 69_900, 70_000):
        fill(writer, size - writer.size, 1_000)
        writer.publish()
    tile = tmp_path / "log" / "tile"
    names = {
        level: sorted(p.relative_to(tile / level).as_posix() for p in (tile / level).rglob("*") if p.is_file())
        for level in ("0", "1", "2", "entries")
    }
    assert (
        [name for name in names["0"] if ".p" not in name]
        == [f"{i:03d}" for i in range(273)]
        == [n for n in names["entries"] if ".p" not in n]
    )
    assert (
        [name for name in names["0"] if ".p" in name]
        == ["273.p/112", "273.p/12"]
        == [n for n in names["entries"] if ".p" in n]
    )
    assert names["1"] == ["000", "001.p/17"]
    assert names["2"] == ["000.p/1"]
    assert (tile / "0" / "000").stat().st_size == 8192
    assert (tile / "0" / "273.p" / "112").stat().st_size == 112 * 32
    reader = LogReader(tmp_path / "log")
    old_root = root_of([leaf_hash(make_record(i)) for i in range(69_900)])
    verify_consistency(69_900, 70_000, reader.prove_consistency(69_900, 70_000), old_root, writer.checkpoint.root)


def test_publishing_waits_for_its_interval(open_log: OpenLog) -> None:
    """At most one checkpoint an interval, and none without new records."""
    writer = open_log(checkpoint_interval_ms=1_000)
    assert writer.publish_if_due(0.0) is None
    fill(writer, 1)
    assert writer.publish_if_due(10.0) is not None
    fill(writer, 1)
    assert writer.publish_if_due(10.9) is None
    assert writer.publish_if_due(11.0) is not None
    assert writer.publish_if_due(20.0) is None


def test_segments_are_turned_and_removed_once_published(open_log: OpenLog, tmp_path: Path) -> None:
    """The write-ahead log does not grow with the log."""
    writer = open_log(segment_bytes=1)
    for _ in range(4):
        fill(writer, 10)
        writer.publish()
    names = sorted(path.name for path in (tmp_path / "log/.state/wal").iterdir())
    assert names == [f"{30:020d}.wal", f"{40:020d}.wal"]  # The former goes with the next publication.
    writer.close()
    assert open_log(segment_bytes=1).size == 40


def test_records_of_wrong_length_are_refused(open_log: OpenLog) -> None:
    """A length of 65,536 does not fit into an entry bundle; an empty record is none."""
    writer = open_log()
    assert writer.append([b"x" * 65_535]) == 0
    for record in (b"x" * 65_536, b""):
        with pytest.raises(EntryTooLarge):
            writer.append([b"fine", record])
    assert writer.next_index == 1


def test_two_writers_cannot_have_one_folder(open_log: OpenLog) -> None:
    """The second is told which lock it met."""
    open_log()
    with pytest.raises(LogInUse, match="another process writes here"):
        open_log()


def test_a_full_disk_takes_the_records_back_and_works_again(open_log: OpenLog, tmp_path: Path) -> None:
    """The torn end is cut off, the indices go to the next records, nothing else changes."""
    disk = FaultyDisk()
    writer = open_log(testing_only_disk=disk)
    fill(writer, 3)
    for bytes_left in (0, 1, 30, 60):
        disk.bytes_left = bytes_left
        writer.append([make_record(3, "refused" * 20)])
        with pytest.raises(NotDurable, match="No space left"):
            writer.commit()
        assert (writer.size, writer.next_index) == (3, 3)
    disk.bytes_left = None
    writer.append([make_record(3)])
    assert writer.commit() == range(3, 4)
    writer.close()
    writer = open_log()
    assert [writer.read(index) for index in range(4)] == [make_record(index) for index in range(4)]
    assert writer.torn_bytes == 0


@pytest.mark.parametrize("bytes_left", [0, 10, 500, 9_000, 13_500])
def test_a_full_disk_while_publishing_is_survived(open_log: OpenLog, tmp_path: Path, bytes_left: int) -> None:
    """Wherever the disk is full, the old checkpoint stands, and the next publication makes everything good."""
    disk = FaultyDisk()
    writer = open_log(testing_only_disk=disk)
    fill(writer, 10)
    writer.publish()
    fill(writer, 300)
    disk.bytes_left = bytes_left
    with pytest.raises(NotDurable):
        writer.publish()
    assert writer.checkpoint.size == 10
    disk.bytes_left = None
    assert writer.publish().size == 310
    key = writer.key
    writer.close()
    assert verify_log(tmp_path / "log", key).checkpoint.size == 310


def test_a_disk_that_is_full_for_a_spare_only_is_survived(open_log: OpenLog, tmp_path: Path) -> None:
    """A stale segment that was to be used again is gone by then: the publication is good, and so is the next."""
    disk = FaultyDisk()
    with ThreadPoolExecutor(1) as executor:
        writer = open_log(testing_only_disk=disk, executor=executor, segment_bytes=1)
        writer.prepare()
        for size in (100, 200, 300, 400):
            fill(writer, 100)
            disk.is_full_for_blanks = size in (200, 300)
            assert writer.publish().size == size
        key = writer.key
        writer.close()
    assert verify_log(tmp_path / "log", key).checkpoint.size == 400


def test_a_publication_beside_gives_way_after_each_tile(open_log: OpenLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a moment, and for all tiles together no longer than the bound; one that is waited for does not."""
    pauses: list[float] = []
    with ThreadPoolExecutor(1) as executor:
        writer = open_log(executor=executor, checkpoint_interval_ms=1)
        monkeypatch.setattr("audit.append.time.sleep", pauses.append)
        monkeypatch.setattr("audit.append.MAX_PAUSES_S", 0.004)
        fill(writer, 700)
        writer.publish_if_due()
        writer.publish()
        assert len(pauses) == 7, "three bundles, three tiles of hashes, and the one above"
        assert sum(pauses) <= 0.0041
        fill(writer, 700)
        writer.publish()
        assert len(pauses) == 7
        writer.close()


def test_after_a_failed_sync_nothing_is_taken_any_more(open_log: OpenLog) -> None:
    """The pages may be gone, and a second sync would not say so: only a restart helps, which reads what is on disk."""
    disk = FaultyDisk()
    writer = open_log(testing_only_disk=disk)
    fill(writer, 3)
    disk.fail_sync = True
    writer.append([make_record(3)])
    with pytest.raises(StorageFailed, match="Input/output"):
        writer.commit()
    disk.fail_sync = False
    for call in (writer.commit, writer.publish, lambda: writer.append([b"x"])):
        with pytest.raises(StorageFailed):
            call()
    writer.close()
    assert open_log().size in (3, 4)


def test_a_full_disk_whose_torn_end_cannot_be_cut_off_ends_the_writer(open_log: OpenLog) -> None:
    """Otherwise the next commit would stand behind rubbish."""
    disk = FaultyDisk()
    writer = open_log(testing_only_disk=disk)
    disk.bytes_left, disk.fail_truncate = 5, True
    writer.append([make_record(0)])
    with pytest.raises(StorageFailed):
        writer.commit()
    with pytest.raises(StorageFailed):
        writer.append([make_record(0)])


def test_a_torn_end_is_cut_off_and_told(open_log: OpenLog, tmp_path: Path) -> None:
    """What an interrupted commit left was acknowledged to nobody."""
    writer = open_log()
    fill(writer, 3)
    writer.close()
    segment = next((tmp_path / "log/.state/wal").iterdir())
    with segment.open("ab") as file:
        file.write(b"\xffCB\xfe rubbish")
    writer = open_log()
    assert (writer.size, writer.torn_bytes) == (3, 12)
    fill(writer, 1)
    writer.close()
    assert open_log().size == 4


def test_a_start_syncs_what_it_found(open_log: OpenLog) -> None:
    """A killed process may have written a whole batch without syncing it; nothing is built on that before it is synced."""
    writer = open_log()
    fill(writer, 3)
    writer.close()
    synced: list[str] = []

    class WatchedDisk(Disk):
        def sync(self, fd: int, path: Path) -> None:
            synced.append(path.name)
            super().sync(fd, path)

    open_log(testing_only_disk=WatchedDisk())
    assert synced == [f"{0:020d}.wal"]


def test_a_removed_segment_that_came_back_is_removed_again(open_log: OpenLog, tmp_path: Path) -> None:
    """Its records are in the signed tree."""
    writer = open_log(segment_bytes=1)
    first = tmp_path / "log/.state/wal" / f"{0:020d}.wal"
    fill(writer, 10)
    kept = first.read_bytes()
    writer.publish()
    fill(writer, 10)
    writer.publish()
    fill(writer, 10)
    writer.close()
    first.write_bytes(kept)
    assert verify_log(tmp_path / "log", writer.key).num_unsigned == 10
    assert open_log().size == 30
    assert not first.exists()


def prepare(open_log: OpenLog, size: int = 300, behind: int = 5) -> None:
    writer = open_log()
    fill(writer, size)
    writer.publish()
    fill(writer, behind)
    writer.close()


def flip(path: Path, position: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


@control("SI-7(5)")
def test_a_start_on_a_tile_that_was_changed_is_refused(open_log: OpenLog, tmp_path: Path) -> None:
    """The frontier must have the root that was signed."""
    prepare(open_log)
    flip(tmp_path / "log/tile/0/001.p/44")
    with pytest.raises(StateMismatch, match="another root"):
        open_log()


def test_a_start_on_a_shorter_signed_tree_is_refused(open_log: OpenLog, tmp_path: Path) -> None:
    """`.state/signed` of an earlier day, with the checkpoint of today."""
    writer = open_log()
    fill(writer, 10)
    writer.publish()
    early = (tmp_path / "log/.state/signed").read_bytes()
    writer.close()
    prepare(open_log)
    (tmp_path / "log/.state/signed").write_bytes(early)
    with pytest.raises(StateMismatch, match="checkpoint"):
        open_log()


def test_a_start_without_the_signed_state_is_refused(open_log: OpenLog, tmp_path: Path) -> None:
    """Its absence beside a log or a key is no new log."""
    prepare(open_log)
    (tmp_path / "log/.state/signed").unlink()
    with pytest.raises(StateMismatch, match="signed"):
        open_log()
    (tmp_path / "log.key").unlink()
    with pytest.raises(StateMismatch, match="signed"):
        open_log()


@pytest.mark.parametrize(("left", "words"), [("tile", "the folder holds a log"), (".state", "holds records")])
def test_what_is_left_of_a_log_is_no_new_one(open_log: OpenLog, tmp_path: Path, left: str, words: str) -> None:
    """Its tiles without the private state, or records in the write-ahead log alone; the key is gone as well."""
    prepare(open_log)
    (tmp_path / "log.key").unlink()
    (tmp_path / "log/.state/signed").unlink()
    (tmp_path / "log/checkpoint").unlink()
    shutil.rmtree(tmp_path / "log" / ("tile" if left == ".state" else ".state/wal"))
    with pytest.raises(StateMismatch, match=words):
        open_log()


def test_a_start_on_a_bundle_that_was_changed_is_refused(open_log: OpenLog, tmp_path: Path) -> None:
    """The records of the last bundle go into the next ones: they must be those under the tree."""
    prepare(open_log)
    flip(tmp_path / "log/tile/entries/001.p/44", 10)
    with pytest.raises(StateMismatch, match="bundle of entry 256 does not hash"):
        open_log()


def test_a_start_with_a_checkpoint_of_another_tree_is_refused(open_log: OpenLog, tmp_path: Path) -> None:
    """Smaller than what was signed, by the same key, and not its beginning: somebody was shown another history."""
    prepare(open_log)
    forged = Checkpoint(ORIGIN, 200, root_of([leaf_hash(b"other %d" % index) for index in range(200)]))
    (tmp_path / "log/checkpoint").write_bytes(load_signer(tmp_path / "log.key", ORIGIN).sign(forged.encode()))
    with pytest.raises(StateMismatch, match="is not a prefix of the tree of size 300"):
        open_log()


def test_a_start_on_a_rewritten_write_ahead_log_is_refused(open_log: OpenLog, tmp_path: Path) -> None:
    """Where it overlaps with the signed tree, it must hold the same records, though its checksums are right."""
    prepare(open_log)
    (segment,) = (tmp_path / "log/.state/wal").iterdir()
    forged = [make_record(index, "forged" if index == 7 else "") for index in range(305)]
    segment.write_bytes(segment.read_bytes()[:SEGMENT_HEADER_BYTES] + encode_batch(0, forged))
    with pytest.raises(StateMismatch, match="record 7 is not the one under the signed tree"):
        open_log()


def test_an_empty_folder_under_a_known_key_is_refused(open_log: OpenLog, tmp_path: Path) -> None:
    """A second history would begin under the same name."""
    prepare(open_log)
    shutil.rmtree(tmp_path / "log")
    with pytest.raises(StateMismatch, match="second history"):
        open_log()


def test_a_log_without_its_key_is_refused(open_log: OpenLog, tmp_path: Path) -> None:
    """The error names the key; no new one is made."""
    prepare(open_log)
    (tmp_path / "log.key").unlink()
    with pytest.raises(KeyUnusable, match=r"log\.key"):
        open_log()
    assert not (tmp_path / "log.key").exists()


def test_a_start_without_the_write_ahead_log_is_refused(open_log: OpenLog, tmp_path: Path) -> None:
    """Acknowledged records may have been in it."""
    prepare(open_log)
    for segment in (tmp_path / "log/.state/wal").iterdir():
        segment.unlink()
    with pytest.raises(StateMismatch, match="missing"):
        open_log()


def test_a_start_under_another_name_is_refused(open_log: OpenLog, tmp_path: Path) -> None:
    """The origin is signed and cannot change."""
    prepare(open_log)
    with pytest.raises(StateMismatch, match=r"\[audit\] origin says 'log\.example/other'"):
        LogWriter(tmp_path / "log", tmp_path / "log.key", origin="log.example/other")


def test_a_start_with_a_checkpoint_of_another_key_is_refused(open_log: OpenLog, tmp_path: Path) -> None:
    """A key that was exchanged does not go unnoticed."""
    prepare(open_log)
    shutil.copytree(tmp_path, tmp_path / "other")
    shutil.rmtree(tmp_path / "other" / "log")
    (tmp_path / "other" / "log.key").unlink()
    other = LogWriter(tmp_path / "other" / "log", tmp_path / "other" / "log.key", origin=ORIGIN)
    other.close()
    shutil.copy(tmp_path / "other" / "log.key", tmp_path / "log.key")
    with pytest.raises(StateMismatch, match="signature"):
        open_log()


def test_a_refused_start_leaves_the_folder_free(open_log: OpenLog, tmp_path: Path) -> None:
    """The lock is let go, so that the repaired folder can be opened."""
    prepare(open_log)
    tile = tmp_path / "log/tile/0/001.p/44"
    flip(tile)
    with pytest.raises(StateMismatch):
        open_log()
    flip(tile)
    assert open_log().size == 305


def test_an_unreadable_file_is_named(open_log: OpenLog, tmp_path: Path) -> None:
    """A folder where a file should be: one error that names it."""
    prepare(open_log)
    segment = next((tmp_path / "log/.state/wal").iterdir())
    segment.unlink()
    segment.mkdir()
    with pytest.raises(AuditMisconfigured, match=segment.name):
        open_log()


def test_a_crash_between_signing_and_publishing_is_repaired(open_log: OpenLog, tmp_path: Path) -> None:
    """The old checkpoint with the new signed state: the next publication is of at least that size, with the same root."""
    writer = open_log()
    fill(writer, 10)
    writer.publish()
    early = (tmp_path / "log/checkpoint").read_bytes()
    fill(writer, 300)
    signed = writer.publish()
    writer.close()
    (tmp_path / "log/checkpoint").write_bytes(early)
    writer = open_log()
    assert writer.checkpoint.size == 10
    assert writer.publish_if_due(0.0) == signed


def test_the_reserve_is_held_and_given_up(tmp_path: Path) -> None:
    """Its space is really allocated, and really free afterwards."""
    path = tmp_path / "reserve"
    reserve = Reserve(path, 1 << 20)
    reserve.hold()
    reserve.hold()
    assert os.stat(path).st_blocks * 512 >= 1 << 20
    reserve.release()
    assert not path.exists()
    assert not reserve.is_held


def test_a_writer_that_is_closed_twice_closes_nobody_elses_files(open_log: OpenLog) -> None:
    """The numbers of its files are others' by then."""
    writer = open_log()
    fill(writer, 3)
    writer.close()
    others = [os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC) for _ in range(8)]
    writer.close()
    for other in others:
        os.fstat(other)
        os.close(other)
