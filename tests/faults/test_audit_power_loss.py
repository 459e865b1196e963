"""Loss of power: the blocks of a mounted file system are copied while an auditor writes, and the copy is mounted and opened.

What was not synced is not in the copy, nor is what the file system had not committed. Every record that was acknowledged before the
copy was begun must be in it, and the log must verify and go on. The writer is stopped for the moment of the copy, so that it
is of one instant.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from audit.append import LogWriter
from audit.errors import EntryNotFound
from audit.fsck import verify_log
from audit.reader import LogReader
from audit.tiles import TILE_WIDTH
from tests.faults.audit_power_script import NUM_RECORDS, ORIGIN, make_record

ROOT = Path(__file__).parents[2]
DISK_BYTES = 48 << 20


@contextmanager
def mounted(image: Path, at: Path) -> Iterator[Path]:
    """The file system in a file; the test is skipped where it may not be mounted."""
    at.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-o", "loop", str(image), str(at)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount a loop file: {done.stderr.strip()}")
    try:
        yield at
    finally:
        subprocess.run(["umount", str(at)], check=True)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An empty ext4 in a file."""
    tool = shutil.which("mkfs.ext4") or ("/sbin/mkfs.ext4" if Path("/sbin/mkfs.ext4").exists() else None)
    if tool is None:
        pytest.skip("mkfs.ext4 is not installed")
    path = tmp_path / "disk"
    path.write_bytes(b"")
    os.truncate(path, DISK_BYTES)
    subprocess.run([tool, "-q", "-F", str(path)], check=True)
    return path


class Victim:
    """A process that appends, commits and publishes as fast as it can, and says what is durable."""

    def __init__(self, home: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.audit_power_script", str(home)], cwd=ROOT, stdout=subprocess.PIPE
        )
        assert self.process.stdout is not None
        self._pipe = self.process.stdout.fileno()
        os.set_blocking(self._pipe, False)
        self._rest = b""
        self.acknowledged = 0

    def hear(self) -> int:
        """How many records it has acknowledged."""
        while True:
            try:
                data = os.read(self._pipe, 1 << 16)
            except BlockingIOError:
                return self.acknowledged
            if not data:
                return self.acknowledged
            *lines, self._rest = (self._rest + data).split(b"\n")
            if lines:
                self.acknowledged = int(lines[-1])

    def run_for(self, seconds: float) -> None:
        """Let it work."""
        self.process.send_signal(signal.SIGCONT)
        deadline = time.monotonic() + 60
        before = self.hear()
        time.sleep(seconds)
        while self.hear() == before:
            assert time.monotonic() < deadline, "nothing was acknowledged in a minute"
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop it, and wait until none of its threads is in a system call any more."""
        self.process.send_signal(signal.SIGSTOP)
        tasks = Path(f"/proc/{self.process.pid}/task")
        while any(stat.read_text().rpartition(")")[2].split()[0] != "T" for stat in tasks.glob("*/stat")):
            time.sleep(0.001)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def lose_power(image: Path, folder: Path, rounds: int, seed: int) -> None:
    """Run the victim, and copy its disk so often."""
    chance = random.Random(seed)
    with mounted(image, folder / "mounted") as disk:
        victim = Victim(disk)
        try:
            for number in range(rounds):
                if victim.hear() >= NUM_RECORDS:
                    victim.end()
                    victim = begin_anew(disk)
                victim.run_for(chance.uniform(0.01, 0.2))
                victim.stop()
                acknowledged = victim.hear()
                # A file of its own each time: the loop device of the last one may not be detached yet.
                copy = folder / f"copy-{number}"
                shutil.copyfile(image, copy)
                verify_copy(folder, copy, acknowledged)
                copy.unlink()
        finally:
            victim.end()


def begin_anew(disk: Path) -> Victim:
    """Another victim, with another log."""
    shutil.rmtree(disk / "log")
    for path in disk.glob("log.*"):
        path.unlink()
    return Victim(disk)


def verify_copy(folder: Path, copy: Path, acknowledged: int) -> None:
    """What a start after the loss of power finds."""
    with mounted(copy, folder / "checked") as disk:
        writer = LogWriter(disk / "log", disk / "log.key", origin=ORIGIN)
        try:
            assert writer.size >= acknowledged > 0
            for index in range(
                max(0, writer.size - 300), writer.size
            ):  # Those of the write-ahead log, as it was found.
                assert writer.read(index) == make_record(index)
            writer.append([make_record(writer.size)])
            writer.commit()
            writer.publish()
            verified = verify_log(disk / "log", writer.key)
            assert verified.checkpoint.size == writer.size
            for first in range(0, writer.size, TILE_WIDTH):
                found = LogReader(disk / "log").read_bundle(first // TILE_WIDTH, writer.size)
                assert found == [make_record(first + i) for i in range(len(found))]
        except EntryNotFound:
            pytest.fail("an acknowledged record is gone")
        finally:
            writer.close()


def test_acknowledged_records_survive_a_loss_of_power(image: Path, tmp_path: Path) -> None:
    """Three times."""
    lose_power(image, tmp_path, rounds=3, seed=int(time.time()))


@pytest.mark.long
@pytest.mark.timeout(1_800)
def test_acknowledged_records_survive_many_losses_of_power(image: Path, tmp_path: Path) -> None:
    """Sixty times."""
    lose_power(image, tmp_path, rounds=60, seed=int(time.time()))
