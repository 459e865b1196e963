"""A disk that runs full: everything is refused with the reason, the failure itself is recorded, and it works again."""

from pathlib import Path

import pytest

from appliance.messages.audit import AppendEvent, AppendRefused, AuditorStatus, FetchReceipt, IntentRecorded, Recorded
from audit.entry import encode_event
from audit.errors import NotDurable, StorageFailed
from audit.events import process_event
from audit.fsck import verify_log
from audit.storage import Disk
from tests.support.controls import control
from tests.unit.appliance.auditor.conftest import Auditor, FakePeer, count, intent, outcome

EVENT = AppendEvent(5, encode_event(process_event("process_started", role="engine", instance=0, pid=1)))


class SmallDisk(Disk):
    """A disk of a fixed size: what is written and allocated counts, what is removed or cut off comes back."""

    def __init__(self, home: Path, size_bytes: int) -> None:
        self.home = home
        self.size_bytes = size_bytes
        self.fail_sync = False

    def used(self) -> int:
        return sum(path.stat().st_size for path in self.home.rglob("*") if path.is_file())

    def write(self, fd: int, data: bytes, path: Path) -> None:
        left = max(0, self.size_bytes - self.used())
        super().write(fd, data[:left], path)
        if len(data) > left:
            raise NotDurable(f"{path}: write: No space left on device")

    def allocate(self, path: Path, size: int) -> None:
        if self.used() + size > self.size_bytes:
            raise NotDurable(f"{path}: allocate: No space left on device")
        super().allocate(path, size)

    def sync(self, fd: int, path: Path) -> None:
        if self.fail_sync:
            raise StorageFailed(f"{path}: cannot be synced: Input/output error")
        super().sync(fd, path)


@pytest.fixture
def disk(tmp_path: Path) -> SmallDisk:
    return SmallDisk(tmp_path, 120 * 1024)


@pytest.fixture
def auditor(tmp_path: Path, disk: SmallDisk) -> Auditor:
    return Auditor(tmp_path, disk)


def fill(auditor: Auditor, supervisor: FakePeer) -> int:
    """Append until it is refused; how many were taken."""
    taken = 0
    while True:
        auditor.tell(supervisor, EVENT)
        answer = supervisor.take(Recorded, AppendRefused)[0]
        if isinstance(answer, AppendRefused):
            assert answer.code == "not_durable"
            return taken
        taken += 1


@control("3.3.4", "AU-4", "AU-5", "AU-5(2)", "SI-4(5)", "SI-4(12)")
def test_a_full_disk_is_told_recorded_and_survived(auditor: Auditor, disk: SmallDisk, tmp_path: Path) -> None:
    """Refused with the reason, `can_append` false; with space again one record tells for how long and how many."""
    supervisor, gateway = auditor.connect("supervisor"), auditor.connect("gateway")
    taken = fill(auditor, supervisor)
    assert taken > 10
    status = gateway.last(AuditorStatus)
    assert not status.can_append
    assert "No space left on device" in status.detail
    assert auditor.kinds()[-1] == "log_full"
    for _ in range(10):
        auditor.tell(supervisor, EVENT)
    assert {answer.code for answer in supervisor.take(AppendRefused)} == {"not_durable"}
    disk.size_bytes *= 10
    auditor.pass_time(1.1)
    assert gateway.last(AuditorStatus).can_append
    auditor.tell(supervisor, EVENT)
    assert isinstance(supervisor.inbox[-1], Recorded)
    full, writable = auditor.records()[-3:-1]
    assert full["unmapped"]["casemate"]["kind"] == "log_full"
    assert writable["unmapped"]["casemate"] | {"full_ms": 0} == {
        "kind": "log_writable",
        "num_refused": 11,
        "full_ms": 0,
    }
    auditor.pass_time(1.1)
    auditor.die()
    verified = verify_log(tmp_path / "log", auditor.writer.key)
    assert verified.checkpoint.size == taken + 4
    assert not (tmp_path / "log/.state/reserve").stat().st_size < 64 * 1024


class PreparedDisk(SmallDisk):
    """One whose write-ahead log was filled with zeroes before, as it is: only what is published needs new space."""

    def used(self) -> int:
        return sum(path.stat().st_size for path in self.home.rglob("*") if path.is_file() and path.suffix != ".wal")

    def write(self, fd: int, data: bytes, path: Path) -> None:
        if path.suffix == ".wal":
            Disk.write(self, fd, data, path)
        else:
            super().write(fd, data, path)

    def free_bytes(self, folder: Path) -> int:
        return max(0, self.size_bytes - self.used())


@control("AU-5", "AU-5(2)")
def test_a_disk_that_stays_full_is_told_once(tmp_path: Path) -> None:
    """The reserve that was given up is not taken for new space; what is durable is published with it; then nothing moves."""
    disk = PreparedDisk(tmp_path, 1 << 20)
    auditor = Auditor(tmp_path, disk)
    supervisor, gateway = auditor.connect("supervisor"), auditor.connect("gateway")
    disk.size_bytes = disk.used()
    auditor.tell(supervisor, EVENT)
    auditor.pass_time(1.1)
    for _ in range(10):
        auditor.pass_time(1.1)
        auditor.tell(supervisor, EVENT)
        assert not gateway.last(AuditorStatus).can_append
    assert auditor.kinds().count("log_full") == 1
    assert "log_writable" not in auditor.kinds()
    assert auditor.writer.checkpoint.size == auditor.writer.size
    disk.size_bytes = disk.used() + 3 * 64 * 1024
    auditor.pass_time(1.1)
    assert gateway.last(AuditorStatus).can_append
    assert auditor.kinds()[-1] == "log_writable"


def test_ten_thousand_appends_after_the_disk_was_freed(auditor: Auditor, disk: SmallDisk, tmp_path: Path) -> None:
    """Nothing of the failure is left."""
    supervisor = auditor.connect("supervisor")
    fill(auditor, supervisor)
    disk.size_bytes = 1 << 40
    auditor.pass_time(1.1)
    disk.used = lambda: 0  # type: ignore[method-assign]
    for _ in range(100):
        for _ in range(100):
            auditor.service.received(supervisor, EVENT)
        auditor.service.turn()
    assert len(supervisor.take(Recorded)) == 10_000
    auditor.pass_time(1.1)
    auditor.die()
    verify_log(tmp_path / "log", auditor.writer.key)


def test_requests_that_were_open_when_the_disk_filled_are_closed_later(auditor: Auditor, disk: SmallDisk) -> None:
    """Their outcomes were refused; the auditor closes them itself when there is space."""
    engine, gateway, supervisor = auditor.connect("engine"), auditor.connect("gateway"), auditor.connect("supervisor")
    auditor.tell(gateway, intent())
    fill(auditor, supervisor)
    auditor.tell(engine, count(1))
    auditor.tell(gateway, outcome(1))
    assert gateway.last(AppendRefused).code == "not_durable"
    auditor.tell(gateway, intent("req-2", 3))
    assert gateway.last(AppendRefused).code == "not_durable"
    disk.size_bytes *= 10
    auditor.pass_time(1.1)
    auditor.pass_time(0.1)
    closed = auditor.records()[-1]
    assert closed["status_code"] == "outcome_not_durable"
    assert closed["message_context"]["completion_tokens"] == 7
    assert auditor.service.num_open == 0


def test_receipts_are_refused_while_no_checkpoint_can_be_made(auditor: Auditor, disk: SmallDisk) -> None:
    """The reason is told; nobody waits for ever."""
    auditor.connect("engine")
    gateway, supervisor = auditor.connect("gateway"), auditor.connect("supervisor")
    auditor.tell(gateway, intent())
    auditor.service.received(gateway, FetchReceipt(9, "req-1", "demo"))
    fill(auditor, supervisor)
    refused = [message for message in gateway.take(AppendRefused) if message.correlation == 9]
    assert [message.code for message in refused] == ["not_durable"]


def test_a_start_on_a_full_disk_says_so_and_begins_when_there_is_space(
    auditor: Auditor, disk: SmallDisk, tmp_path: Path
) -> None:
    """The auditor is up, takes nothing, and records its start later."""
    supervisor = auditor.connect("supervisor")
    fill(auditor, supervisor)
    auditor.die()
    disk.size_bytes = disk.used()
    again = Auditor(tmp_path, disk)
    gateway = again.connect("gateway")
    assert not gateway.last(AuditorStatus).can_append
    assert again.kinds()[-1] != "log_started"
    disk.size_bytes *= 10
    again.pass_time(1.1)
    again.pass_time(0.1)
    assert again.kinds()[-2:] == ["log_writable", "log_started"]
    assert gateway.last(AuditorStatus).can_append
    again.die()


@control("3.3.4", "AU-5", "AU-5(2)", "AU-5(4)", "SC-24")
def test_after_an_io_error_nothing_is_answered(auditor: Auditor, disk: SmallDisk) -> None:
    """The error ends the process: nobody is told an index, and nobody that it was refused."""
    auditor.connect("engine")
    gateway = auditor.connect("gateway")
    auditor.service.received(gateway, intent())
    disk.fail_sync = True
    with pytest.raises(StorageFailed):
        auditor.service.turn()
    assert gateway.take(IntentRecorded, AppendRefused) == []
    with pytest.raises(StorageFailed):
        auditor.service.received(gateway, intent("req-2"))


def test_a_disk_that_fills_while_publishing_beside_waiting_records(
    auditor: Auditor, disk: SmallDisk, tmp_path: Path
) -> None:
    """What the auditor itself had added meanwhile is recorded with the failure, or lost with it; nothing breaks."""
    auditor.connect("engine")
    gateway, supervisor = auditor.connect("gateway"), auditor.connect("supervisor")
    auditor.tell(gateway, intent())
    auditor.pass_time(1.1)
    for _ in range(20):
        auditor.service.received(supervisor, EVENT)
    auditor.service._ledger.commit()
    auditor.service._ledger.add_own(auditor.service._ledger.describe("log_marked", {"scan_from": 1}))
    disk.size_bytes = disk.used()
    auditor.now_s += 1.1
    auditor.service._ledger.publish_if_due()
    assert auditor.kinds()[-2:] == ["log_marked", "log_full"]
    disk.size_bytes *= 10
    auditor.pass_time(1.1)
    auditor.pass_time(1.1)
    kinds = auditor.kinds()
    assert kinds[-1] == "log_writable"
    auditor.die()
    assert verify_log(tmp_path / "log", auditor.writer.key).checkpoint.size == len(kinds)


class FewFilesDisk(Disk):
    """A disk with space, on which no more than so many files and folders can be made, as on a file system without free inodes."""

    def __init__(self, home: Path, num_files: int) -> None:
        self.home = home
        self.num_files = num_files

    def free_files(self, folder: Path) -> int:
        return max(0, self.num_files - sum(1 for _ in self.home.rglob("*")))

    def take(self, path: Path, count: int = 1) -> None:
        if not path.exists() and self.free_files(path) < count:
            raise NotDurable(f"{path}: open: No space left on device")

    def write_file(self, path: Path, data: bytes, temporary: Path) -> None:
        self.take(temporary)
        super().write_file(path, data, temporary)

    def make_folder(self, path: Path) -> None:
        self.take(path)
        super().make_folder(path)

    def make_files(self, folder: Path, count: int) -> None:
        self.take(folder, count + 1)
        super().make_files(folder, count)

    def allocate(self, path: Path, size: int) -> None:
        self.take(path)
        super().allocate(path, size)


@control("3.3.4", "AU-4", "AU-5", "AU-5(2)")
def test_a_disk_without_files_left_is_told_once_and_what_is_durable_is_published(tmp_path: Path) -> None:
    """It has space by the gigabyte, so only the files that can be made tell that it is full, and that it is well again."""
    disk = FewFilesDisk(tmp_path, 60)
    auditor = Auditor(tmp_path, disk)
    supervisor, gateway = auditor.connect("supervisor"), auditor.connect("gateway")
    while gateway.last(AuditorStatus).can_append:
        assert auditor.writer.size < 20_000
        for _ in range(100):
            auditor.tell(supervisor, EVENT)
        auditor.pass_time(1.1)
    for _ in range(30):
        auditor.pass_time(1.1)
    assert (auditor.kinds().count("log_full"), auditor.kinds().count("log_writable")) == (1, 0)
    assert auditor.kinds()[-1] == "log_full"
    assert auditor.writer.checkpoint.size == auditor.writer.size
    disk.num_files *= 10
    auditor.pass_time(1.1)
    assert gateway.last(AuditorStatus).can_append
    assert auditor.kinds()[-1] == "log_writable"
    auditor.pass_time(1.1)
    auditor.die()
    assert verify_log(tmp_path / "log", auditor.writer.key).checkpoint.size == auditor.writer.size
