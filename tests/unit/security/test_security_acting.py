"""Root in somebody else's folder has no more power over files than its owner, but for reading."""

import os
from pathlib import Path

import pytest

from security.acting import acting_as_owner
from security.errors import KeyUnusable
from security.stewards.outbox import Outbox

THEIRS = 60_900
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root acts as others")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One that somebody else owns, below one that nobody else may enter."""
    (tmp_path / "theirs").mkdir(mode=0o700)
    os.chown(tmp_path / "theirs", THEIRS, THEIRS)
    tmp_path.chmod(0o700)
    return tmp_path / "theirs"


def test_what_is_made_there_is_the_owners(folder: Path) -> None:
    """Also through folders that are closed to the owner; and afterwards we are who we were."""
    before = (os.geteuid(), os.getegid(), os.getgroups())
    with acting_as_owner(folder):
        (folder / "made").write_text("x")
    assert (folder / "made").stat().st_uid == THEIRS
    assert (os.geteuid(), os.getegid(), os.getgroups()) == before
    (folder.parent / "roots").write_text("x")
    assert (folder.parent / "roots").stat().st_uid == 0


def test_a_link_leads_root_to_nothing_that_its_maker_could_not_write(folder: Path) -> None:
    """SQLite opens its journals by name; a swap of a name behind a check must be worth nothing."""
    target = folder.parent / "roots"
    target.write_text("kept")
    (folder / "link").symlink_to(target)
    with acting_as_owner(folder), pytest.raises(PermissionError):
        (folder / "link").write_text("overwritten")
    assert target.read_text() == "kept"


def test_root_is_root_again_after_a_fault(folder: Path) -> None:
    """Whatever ended the block."""
    with pytest.raises(RuntimeError), acting_as_owner(folder):
        raise RuntimeError
    assert os.geteuid() == 0
    (folder.parent / "roots").write_text("x")


def test_in_a_folder_of_roots_nothing_changes(tmp_path: Path) -> None:
    """Nor in one that is not there yet, below one."""
    with acting_as_owner(tmp_path / "none" / "yet"):
        (tmp_path / "made").write_text("x")
    assert (tmp_path / "made").stat().st_uid == 0


def test_who_cannot_become_the_owner_refuses(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a user namespace without that id; the message names whom to be."""

    be = os.seteuid

    def refuse(uid: int) -> None:
        if uid:
            raise OSError(22, "Invalid argument")
        be(uid)

    monkeypatch.setattr(os, "seteuid", refuse)
    with pytest.raises(KeyUnusable, match=f"belongs to uid {THEIRS}.*run this as that user"), acting_as_owner(folder):
        pytest.fail("the block ran")
    assert os.getegid() == 0


def test_a_link_for_an_outbox_gives_nobody_another_folder(folder: Path) -> None:
    """Root once gave the folder behind the link to the state's owner, so that the appliance could take notices away."""
    target = folder.parent / "roots"
    target.mkdir(mode=0o755)
    (folder / "outbox").symlink_to(target)
    with pytest.raises(KeyUnusable, match="Permission denied"):
        Outbox(folder / "outbox").put("model_imported", name="a", digest="d", actor="os:root", facts={})
    assert target.stat().st_uid == 0
    assert list(target.iterdir()) == []
