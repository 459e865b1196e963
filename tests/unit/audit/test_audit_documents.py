"""docs/audit.md against the code: the table of events, and the commands that it teaches."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from audit.append import LogWriter
from audit.permissions import KINDS
from tests.support.controls import control
from tests.unit.audit.conftest import ORIGIN, make_record

DOCUMENT = Path(__file__).parents[3] / "docs" / "audit.md"
_ROW = re.compile(r"^\| `(\w+)` \| [A-Za-z ]+ (\d{4}) \| ([\d/]+) \| ([a-z, ]+) \| .+ \|$", re.MULTILINE)


@control("3.3.1", "AU-2", "AU-12(3)", "A.6.2.8", "Article 12(1)")
def test_the_table_of_events_is_the_one_that_is_enforced() -> None:
    """Kind, class, activities and roles, in the same order."""
    documented = [
        (kind, int(class_uid), {int(a) for a in activities.split("/")}, set(roles.split(", ")))
        for kind, class_uid, activities, roles in _ROW.findall(DOCUMENT.read_text())
    ]
    assert documented == [(kind.name, kind.class_uid, kind.activity_ids, kind.roles) for kind in KINDS.values()]


def test_commands_of_the_document_exist() -> None:
    """Every `casemate audit …` that it names is a command."""
    from appliance.cli.main import main

    named = set(re.findall(r"casemate audit\s+([a-z][a-z-]+)", DOCUMENT.read_text()))
    assert {"verify", "fsck", "prove", "verify-receipt"} <= named
    for command in sorted(named):
        with pytest.raises(SystemExit) as ended:
            main(["audit", command, "--help"])
        assert ended.value.code == 0, command


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A log of three bundles and its key, and the program that the document has people type."""
    writer = LogWriter(tmp_path / "log", tmp_path / "log.key", origin=ORIGIN)
    writer.append([make_record(index) for index in range(600)])
    writer.commit()
    writer.publish()
    writer.close()
    (program,) = re.findall(r"```python\n(# python3 byhand\.py.+?)```", DOCUMENT.read_text(), re.DOTALL)
    (tmp_path / "byhand.py").write_text(program)
    return tmp_path


def verify_by_hand(folder: Path) -> "subprocess.CompletedProcess[str]":
    """As the document says it, isolated from our packages."""
    words = [sys.executable, "-I", "-S", "byhand.py", "log", (folder / "log.vkey").read_text()]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=60)


def verify_signature(folder: Path) -> int:
    """By OpenSSL's status."""
    (command,) = re.findall(r"^openssl (pkeyutl .+)$", DOCUMENT.read_text(), re.MULTILINE)
    tool = shutil.which("openssl")
    if tool is None:
        pytest.skip("openssl is not installed")
    return subprocess.run([tool, *command.split()], cwd=folder, capture_output=True, timeout=60).returncode


@control("AU-9(3)", "3.3.8")
def test_the_program_of_the_document_verifies_a_log_without_us(folder: Path) -> None:
    """With Python's own library and OpenSSL; another text under the signature is found."""
    done = verify_by_hand(folder)
    assert done.stdout == "600 records hash to the root that the checkpoint names\n", done.stderr
    assert verify_signature(folder) == 0
    (folder / "text").write_bytes((folder / "text").read_bytes().replace(b"600", b"599"))
    assert verify_signature(folder) != 0


@pytest.mark.parametrize("file", ["tile/entries/001", "checkpoint"])
def test_the_program_of_the_document_finds_a_flipped_bit(folder: Path, file: str) -> None:
    """In a record, or in the root."""
    path = folder / "log" / file
    data = bytearray(path.read_bytes())
    data[data.index(b"\n", 15) + 3 if file == "checkpoint" else 20] ^= 1
    path.write_bytes(data)
    assert verify_by_hand(folder).returncode != 0
