"""Root's commands on folders of the roles' users: as those users, so that none of them leads root elsewhere."""

import os
from pathlib import Path

import pytest

from appliance.cli.main import main
from audit.append import LogWriter
from audit.entry import encode_canonical
from audit.events import log_event
from tests.support.controls import control

POLICY, READER, AUDITOR = 60_901, 60_902, 60_903
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root acts as others")


def give(path: Path, uid: int) -> None:
    """As `settle_owners` does at each start."""
    for each in (path, *path.rglob("*")):
        os.chown(each, uid, uid)


def owners(path: Path) -> set[int]:
    return {each.stat().st_uid for each in (path, *path.rglob("*"))}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder below one that is closed to everybody, with definitions and a log whose folders are two roles'."""
    state = tmp_path / "state"
    assert main(["client", "create", "one", "--state", str(state)]) == 0
    give(state / "policy" / "definitions", POLICY)
    audit = state / "audit"
    audit.mkdir(mode=0o700)
    writer = LogWriter(audit / "log", audit / "log.key", origin="log.example/root")
    event = log_event("log_started", log_name="log.example/root", facts={})
    writer.append([encode_canonical(event | {"metadata": event["metadata"] | {"sequence": 0}})])
    writer.commit()
    writer.publish()
    writer.close()
    give(audit, AUDITOR)
    (state / "reader").mkdir(mode=0o700)
    give(state / "reader", READER)
    return state


@control("AC-6", "3.1.5")
def test_definitions_stay_their_owners(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A command reads and changes them; nothing of root's is left that policy could not remove."""
    assert main(["client", "create", "two", "--state", str(state)]) == 0
    assert main(["client", "list", "--state", str(state)]) == 0
    assert "two" in capsys.readouterr().out
    assert owners(state / "policy" / "definitions") == {POLICY}


@control("AC-6", "3.1.5")
@pytest.mark.parametrize("name", ["definitions.sqlite", "definitions.sqlite-journal"])
def test_a_link_in_policys_folder_leads_root_nowhere(
    state: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither to a database of somebody else, nor to a journal that would be played back."""
    theirs = state / "roots"
    theirs.write_bytes((state / "policy/definitions/definitions.sqlite").read_bytes())
    before = theirs.read_bytes()
    (state / "policy/definitions" / name).unlink(missing_ok=True)
    (state / "policy/definitions" / name).symlink_to(theirs)
    assert main(["client", "create", "two", "--state", str(state)]) != 0
    assert theirs.read_bytes() == before
    assert "cannot be" in capsys.readouterr().err


def test_a_search_leaves_the_index_its_readers(state: Path) -> None:
    """It was root's otherwise, and the reader could write into it no more."""
    assert main(["audit", "search", "--dir", str(state / "audit" / "log")]) == 0
    assert owners(state / "reader") == {READER}


def test_a_key_that_root_makes_is_the_auditors(state: Path) -> None:
    """And what it makes of it goes where the auditor could have put it."""
    assert main(["audit", "rotate-key", "--dir", str(state / "audit" / "log")]) == 0
    assert owners(state / "audit") == {AUDITOR}
    assert (state / "outbox").stat().st_uid == 0
