"""A disk that is really full: a small file system, and a limit on the size of files."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.messages.audit import AppendEvent, AppendRefused, AuditorStatus, Recorded
from audit.entry import encode_event
from audit.events import process_event
from audit.fsck import verify_log
from tests.unit.appliance.auditor.conftest import Auditor

ROOT = Path(__file__).parents[2]
EVENT = AppendEvent(5, encode_event(process_event("process_started", role="engine", instance=0, pid=1)))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32m", "casemate-test", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_file_system_is_survived(small_disk: Path) -> None:
    """Filled by somebody else: appends are refused, the failure is in the log, and after space is freed all is well."""
    auditor = Auditor(small_disk)
    supervisor, gateway = auditor.connect("supervisor"), auditor.connect("gateway")
    for _ in range(50):
        auditor.tell(supervisor, EVENT)
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass
    taken = refused = 0
    while not refused:
        for _ in range(20):
            auditor.service.received(supervisor, EVENT)
        auditor.service.turn()
        refused = len(supervisor.take(AppendRefused))
        taken += len(supervisor.take(Recorded))
    assert not gateway.last(AuditorStatus).can_append
    assert auditor.kinds()[-1] == "log_full"
    auditor.pass_time(1.1)
    ballast.unlink()
    auditor.pass_time(1.1)
    assert gateway.last(AuditorStatus).can_append
    supervisor.take()
    for _ in range(40):  # 10,000 records
        for _ in range(249):
            auditor.service.received(supervisor, EVENT)
        auditor.tell(supervisor, EVENT)
    assert len(supervisor.take(Recorded)) == 10_000
    auditor.pass_time(1.1)
    kinds = auditor.kinds()
    auditor.die()
    assert kinds.count("process_started") == 50 + taken + 10_000
    assert kinds.count("log_writable") == kinds.count("log_full") == 1
    assert verify_log(small_disk / "log", auditor.writer.key).checkpoint.size == len(kinds)


def run_with_a_limit(home: str) -> None:
    """Fill the write-ahead log up to the limit on file sizes, lift the limit, go on."""
    soft, hard = 256 * 1024, resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    auditor = Auditor(Path(home))
    supervisor = auditor.connect("supervisor")
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    taken = 0
    while True:
        auditor.tell(supervisor, EVENT)
        if supervisor.take(AppendRefused):
            break
        taken += 1
    assert taken > 100
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    auditor.pass_time(1.1)
    auditor.tell(supervisor, EVENT)
    assert isinstance(supervisor.inbox[-1], Recorded)
    auditor.pass_time(1.1)
    auditor.die()
    verify_log(Path(home) / "log", auditor.writer.key)


def test_a_limit_on_file_sizes_is_survived(tmp_path: Path) -> None:
    """EFBIG is one more way of having no space; works without root."""
    code = f"from tests.faults.test_audit_full_disk import run_with_a_limit; run_with_a_limit({str(tmp_path)!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=dict(os.environ), timeout=120
    )
    assert done.returncode == 0, done.stderr
