"""EIO, ENOSPC and SIGKILL at each system call of a witness, of rotations, of sealing, destruction and rules.

Nothing promised is lost, and it can go on.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from appliance.messages.audit import AuditorStatus
from appliance.messages.stewardship import DecideChange
from audit.append import LogWriter
from audit.errors import AuditFault, EntryNotFound, KeyUnusable
from audit.fsck import verify_log
from audit.governance import load_rules
from audit.note import parse_verifier_key
from audit.rotation import finish_key, load_predecessor, rotate_log
from audit.sealing import KeyContext, open_body
from audit.shares import ShareStore
from tests.faults.audit_fault_scripts import ORIGIN, SIZES, make_request, open_witness, prepare_log
from tests.faults.custody_script import (
    BODIES,
    NEW_DAYS,
    NEW_KEY,
    OLD_KEY,
    RETENTION_DAYS,
    RUDI,
    SECRET,
    TODAY,
    open_auditor,
    prepare_custody,
)

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


def every_fault(
    name: str, folder: Path, template: Path | None, num_sampled: int | None
) -> Iterator[tuple[Path, list[str]]]:
    """Each call with each fault, or so many of them, spread evenly: the folder it leaves, and what was said."""
    calls = find_calls(name, folder / "counted", template)
    cases = [(call, number, fault) for call, number in calls for fault in FAULTS]
    step = 1 if num_sampled is None else len(cases) // num_sampled
    step -= step > 1 and step % len(FAULTS) == 0  # Else every sample would be of the same fault.
    for call, number, fault in cases[step // 2 :: step][:num_sampled]:
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


def verify_custody(home: Path, said: list[str]) -> None:
    """What was kept is there or was destroyed by a record; a rule is in force by a record, or an alarm says that it is not."""
    auditor, gateway = open_auditor(home)
    records = [record["unmapped"]["casemate"] | record.get("entity", {}) for record in auditor.records()]
    kinds = [record["kind"] for record in records]
    recorded = {record["uid"] for record in records if record["kind"] in ("body_key_kept", "hash_root_kept")}
    promised = dict(line.split()[1:] for line in said if line.startswith("kept "))
    present = {path.stem: path for path in home.glob("shares/*/*.json")}
    assert promised.keys() <= recorded
    for key_id in {OLD_KEY, *promised}:
        try:
            share = ShareStore(home / "shares").load(TODAY, key_id).share
            assert promised.get(key_id) in (None, hashlib.sha256(share).hexdigest())
        except (EntryNotFound, KeyUnusable):  # Gone, or overwritten and not removed yet.
            assert "log_bodies_destroyed" in kinds
    assert not {line.split()[1] for line in said if line.startswith("destroyed ")} & present.keys()
    in_force = load_rules(home / "rules.json", RETENTION_DAYS).retention_days == NEW_DAYS
    assert in_force or "in force" not in said
    assert "retention_changed" in kinds or not in_force
    auditor.pass_time(1.0)
    alarms = gateway.last(AuditorStatus).alarms
    assert in_force or "retention_changed" not in kinds or any("is not in force" in alarm for alarm in alarms)
    if not in_force and "retention_changed" in kinds:
        # Nothing is destroyed by rules that are not those of the log; the decision is made again.
        auditor.pass_time(6 * 86_400.0)
        assert {path.stem for path in home.glob("shares/*/*.json")} == present.keys()
        proposal_id = load_rules(home / "rules.json", RETENTION_DAYS).deciding
        auditor.tell(gateway, DecideChange(9, RUDI, "admin", proposal_id, True))
    auditor.pass_time(6 * 86_400.0)
    assert list(home.glob("shares/*/*.json")) == []
    auditor.service.stop()
    auditor.die()
    assert verify_log(home / "log", auditor.writer.key).checkpoint.size == auditor.writer.size


def verify_seal(home: Path, said: list[str]) -> None:
    """Every body that a record may name lies where it says, and opens; what was refused left nothing between."""
    (path, *_) = *home.glob("bodies/*/*.sealed"), home / "none"
    data = path.read_bytes() if path.exists() else b""
    context, end = KeyContext("t", TODAY, NEW_KEY), 0
    for line in (line for line in said if line.startswith("sealed ")):
        number, offset, length = (int(word) for word in line.split()[1:4])
        sealed = data[offset : offset + length]
        assert hashlib.sha256(sealed).hexdigest() == line.split()[4]
        assert open_body(AESGCM(SECRET), context, f"req-{number}", "prompt", sealed) == BODIES[number]
        assert offset == end
        end += length


CASES: dict[str, Callable[[Path, list[str]], None]] = {
    "witness": verify_witness,
    "finish_key": verify_key,
    "rotate_log": verify_log_rotation,
    "custody": verify_custody,
    "seal": verify_seal,
}


PREPARATIONS: dict[str, Callable[[Path], None]] = {
    "finish_key": prepare_log,
    "rotate_log": prepare_log,
    "custody": prepare_custody,
}
NUM_SAMPLED = 3
"""Cases of each script that are run in `make test`."""


def run_cases(name: str, folder: Path, num_sampled: int | None = None) -> int:
    template = None
    if name in PREPARATIONS:
        template = folder / "template"
        template.mkdir()
        PREPARATIONS[name](template)
    num_cases = 0
    for home, said in every_fault(name, folder, template, num_sampled):
        CASES[name](home, said)
        num_cases += 1
    return num_cases


@pytest.mark.parametrize("name", sorted(CASES))
def test_faults_at_some_system_calls_lose_nothing(name: str, tmp_path: Path) -> None:
    """A sample of each."""
    if STRACE is None:
        pytest.skip("strace is not installed")
    assert run_cases(name, tmp_path, NUM_SAMPLED) == NUM_SAMPLED


@pytest.mark.long
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("name", sorted(CASES))
def test_faults_at_every_system_call_lose_nothing(name: str, tmp_path: Path) -> None:
    """All of them."""
    if STRACE is None:
        pytest.skip("strace is not installed")
    assert run_cases(name, tmp_path) > 20
