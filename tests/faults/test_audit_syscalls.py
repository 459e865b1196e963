"""EIO, ENOSPC and SIGKILL at each system call of opening, appending and publishing, injected by strace; then the product's fsck."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from audit.append import LogWriter
from audit.errors import EntryNotFound
from audit.fsck import verify_log
from tests.faults.audit_script import ORIGIN, make_record

ROOT = Path(__file__).parents[2]
STRACE = shutil.which("strace")
CALLS = ("fdatasync", "fsync", "rename", "mkdir", "write", "unlink")
FAULTS = ("error=EIO", "error=ENOSPC", "signal=KILL")


def run_script(home: Path, *strace: str) -> tuple[int, list[str]]:
    """Run the script, under strace if arguments for it are given; its status and what it acknowledged."""
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "tests.faults.audit_script", str(home)]
    if strace:
        command = [str(STRACE), "-f", "-qq", *strace, *command]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    if strace and "not permitted" in done.stderr:
        pytest.skip(f"strace may not trace here: {done.stderr.strip()[:200]}")
    return done.returncode, done.stdout.split("\n")


def count_calls(folder: Path) -> dict[str, int]:
    """How often the undisturbed script makes each call."""
    trace = folder / "trace"
    status, said = run_script(folder / "counted", "-e", f"trace={','.join(CALLS)}", "-o", str(trace))
    assert status == 0, said
    lines = trace.read_text().split("\n")
    return {call: sum(1 for line in lines if re.search(rf"\b{call}\(", line)) for call in CALLS}


def verify_after(home: Path, said: list[str]) -> None:
    """Whatever happened: what was acknowledged is there, the folder verifies, and the log goes on."""
    acknowledged = [int(line.split()[1]) for line in said if line.startswith("durable ")]
    writer = LogWriter(home / "log", home / "log.key", origin=ORIGIN)
    try:
        assert writer.size >= len(acknowledged)
        for index in range(writer.size):
            assert writer.read(index) == make_record(index)
        published = [int(line.split()[1]) for line in said if line.startswith("published ")]
        assert writer.checkpoint.size >= max(published, default=0)
        writer.append([make_record(writer.next_index)])
        writer.commit()
    finally:
        writer.close()
    try:
        verified = verify_log(home / "log", writer.key)
    except EntryNotFound:
        return
    assert verified.checkpoint.size + verified.num_unsigned == writer.size


def inject(folder: Path, call: str, fault: str, number: int) -> str:
    """One run with one fault; how it ended."""
    home = folder / f"{call}-{fault.partition('=')[2]}-{number}"
    home.mkdir()
    status, said = run_script(
        home, "-e", f"trace={call}", "-e", f"inject={call}:{fault}:when={number}", "-o", "/dev/null"
    )
    verify_after(home, said)
    shutil.rmtree(home)
    return "killed" if status in (-9, 137) else {0: "went on", 3: "gave up", 4: "refused"}.get(status, "ended")


def cases(counts: dict[str, int], step: int) -> Iterator[tuple[str, str, int]]:
    """Every `step`-th call of each kind with one fault after the other."""
    turn = 0
    for call in CALLS:
        for number in range(1, counts[call] + 1):
            for fault in FAULTS:
                turn += 1
                if turn % step == 0:
                    yield call, fault, number


@pytest.fixture
def counts(tmp_path: Path) -> dict[str, int]:
    if STRACE is None:
        pytest.skip("strace is not installed")
    tmp_path.joinpath("counted").mkdir()
    return count_calls(tmp_path)


def test_faults_at_system_calls_lose_nothing(counts: dict[str, int], tmp_path: Path) -> None:
    """A sample over all calls and faults: each is survived, or ends the writer so that the next start finds everything."""
    assert counts["fdatasync"] > 20
    assert counts["rename"] > 15
    step = sum(counts.values()) * len(FAULTS) // 12
    step += step % len(FAULTS) == 0  # Else every sample would be of the same fault.
    assert {inject(tmp_path, *case) for case in cases(counts, step)} >= {"killed", "gave up"}


@pytest.mark.parametrize("number", [1, 12])
def test_a_failed_sync_is_never_tried_again(counts: dict[str, int], tmp_path: Path, number: int) -> None:
    """The kernel reports it once, and may have dropped the pages: the writer gives up."""
    assert inject(tmp_path, "fdatasync", "error=EIO", number) in ("gave up", "ended")
    assert inject(tmp_path, "fdatasync", "error=ENOSPC", number) in ("gave up", "ended")


@pytest.mark.long
@pytest.mark.timeout(7_200)
def test_every_fault_at_every_system_call_loses_nothing(counts: dict[str, int], tmp_path: Path) -> None:
    """All calls, all faults."""
    assert {inject(tmp_path, *case) for case in cases(counts, step=1)} >= {"killed", "gave up"}
