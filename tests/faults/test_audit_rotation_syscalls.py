"""EIO, ENOSPC and SIGKILL at each system call of a witness and of a rotation: nothing promised is lost, and it can go on."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from audit.append import LogWriter
from audit.errors import AuditFault
from audit.fsck import verify_log
from audit.note import parse_verifier_key
from audit.rotation import finish_key, load_predecessor, rotate_log
from tests.faults.audit_fault_scripts import ORIGIN, SIZES, make_request, open_witness, prepare_log

ROOT = Path(__file__).parents[2]
STRACE = shutil.which("strace")
CALLS = ("fdatasync", "fsync", "rename", "write", "unlink", "mkdir", "ftruncate", "openat")
FAULTS = ("error=EIO", "error=ENOSPC", "signal=KILL")


def run_script(name: str, home: Path, *strace: str) -> tuple[int, list[str]]:
    """Run a script under strace; its status and what it said."""
    command = [
        str(STRACE),
        "-f",
        "-qq",
        *strace,
        sys.executable,
        "-m",
        "tests.faults.audit_fault_scripts",
        name,
        str(home),
    ]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    if "not permitted" in done.stderr:
        pytest.skip(f"strace may not trace here: {done.stderr.strip()[:200]}")
    return done.returncode, done.stdout.split("\n")


def find_calls(name: str, home: Path, template: Path | None) -> list[tuple[str, int]]:
    """Each call that the undisturbed script makes after it has said `start`: which, and the how-manieth of its kind."""
    copy(template, home)
    trace = home.parent / f"{home.name}.trace"
    run_script(name, home, "-e", f"trace={','.join(CALLS)}", "-o", str(trace))
    lines = trace.read_text().splitlines()
    begin = next(number for number, line in enumerate(lines) if '"start\\n"' in line)
    seen: dict[str, int] = {}
    found = []
    for number, line in enumerate(lines):
        if (match := re.search(r"\b(\w+)\(", line)) and match[1] in CALLS:
            seen[match[1]] = seen.get(match[1], 0) + 1
            if number > begin and f'"{home.name}' not in line:
                found.append((match[1], seen[match[1]]))
    return found


def copy(template: Path | None, home: Path) -> None:
    if template is None:
        home.mkdir()
    else:
        shutil.copytree(template, home)


def every_fault(name: str, folder: Path, template: Path | None, step: int) -> Iterator[tuple[Path, list[str]]]:
    """Each call with each fault, every `step`-th of them: the folder it leaves, and what was said."""
    turn = 0
    for call, number in find_calls(name, folder / "counted", template):
        for fault in FAULTS:
            turn += 1
            if turn % step:
                continue
            home = folder / f"{call}-{number}-{fault[-4:]}"
            copy(template, home)
            _, said = run_script(
                name, home, "-e", f"trace={call}", "-e", f"inject={call}:{fault}:when={number}", "-o", "/dev/null"
            )
            yield home, said
            shutil.rmtree(home)


def verify_witness(home: Path, said: list[str]) -> None:
    """It remembers at least what it cosigned, and cosigns what extends that."""
    cosigned = max((int(line.split()[1]) for line in said if line.startswith("cosigned ")), default=0)
    witness = open_witness(home)
    try:
        answer = witness.add_checkpoint(make_request(0, 30))
        known = int(answer.body) if answer.status == 409 else 0
        assert known >= cosigned
        assert known in (0, *SIZES)
        if answer.status == 409:
            assert witness.add_checkpoint(make_request(known, 30)).status == 200
    finally:
        witness.close()


def verify_key(home: Path, _said: list[str]) -> None:
    """One of the two keys signs, and the log goes on; the step can be made again where it was not made."""
    try:
        finish_key(home / "log", home / "log.key", ORIGIN)
    except AuditFault:
        pass  # It had been finished.
    writer = LogWriter(home / "log", home / "log.key", origin=ORIGIN)
    assert writer.size == 10
    writer.append([b'{"metadata":{"sequence":10}}'])
    writer.commit()
    writer.publish()
    writer.close()
    assert not (home / "log-next.key").exists()
    assert (home / "log.vkey").read_text().strip() == writer.key.encode()
    assert verify_log(home / "log", writer.key).checkpoint.size == 11


def verify_log_rotation(home: Path, _said: list[str]) -> None:
    """It can be made again where it was not finished; then the old log stands aside, whole, and its key is gone."""
    try:
        rotate_log(home / "log", home / "log.key")
    except (AuditFault, OSError):
        pass  # It had been finished.
    (old,) = (path for path in home.iterdir() if path.name.startswith("log-") and path.is_dir())
    key = parse_verifier_key(old.with_suffix(".vkey").read_text().strip())
    checkpoint = verify_log(old, key).checkpoint
    predecessor = load_predecessor(home / "log")
    assert predecessor is not None
    assert (predecessor.key, predecessor.checkpoint) == (key, checkpoint)
    assert not (home / "log.key").exists()
    LogWriter(home / "log", home / "log.key", origin="log.example/second").close()


CASES: dict[str, Callable[[Path, list[str]], None]] = {
    "witness": verify_witness,
    "finish_key": verify_key,
    "rotate_log": verify_log_rotation,
}


def run_cases(name: str, folder: Path, step: int) -> int:
    template = None
    if name != "witness":
        template = folder / "template"
        template.mkdir()
        prepare_log(template)
    num_cases = 0
    for home, said in every_fault(name, folder, template, step):
        CASES[name](home, said)
        num_cases += 1
    return num_cases


@pytest.mark.parametrize("name", sorted(CASES))
def test_faults_at_some_system_calls_lose_nothing(name: str, tmp_path: Path) -> None:
    """A sample of each."""
    if STRACE is None:
        pytest.skip("strace is not installed")
    assert run_cases(name, tmp_path, step=13) >= 2


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(CASES))
def test_faults_at_every_system_call_lose_nothing(name: str, tmp_path: Path) -> None:
    """All of them."""
    if STRACE is None:
        pytest.skip("strace is not installed")
    assert run_cases(name, tmp_path, step=1) > 20
