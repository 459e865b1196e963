"""The outbox: notices in order, and rubbish passed over."""

import os
from pathlib import Path

import pytest

from security.stewards.outbox import Outbox


def test_notices_wait_in_order(tmp_path: Path) -> None:
    """Each with who, what and when; in the order in which they were left."""
    outbox = Outbox(tmp_path / "outbox")
    assert list(outbox.waiting()) == []
    for name in ("a", "b", "c"):
        outbox.put("model_imported", name=name, digest="sha256:00", actor="ines", facts={"num_files": 3})
    found = list(outbox.waiting())
    assert [notice.name for _, notice in found] == ["a", "b", "c"]
    assert found[0][1].facts == {"num_files": 3}
    assert found[0][1].at_ms <= found[1][1].at_ms


def test_numbers_go_on_whatever_of_the_counts_is_lost(tmp_path: Path) -> None:
    """What waits, what was left last and what was carried: none of them may come twice."""
    outbox = Outbox(tmp_path / "outbox")

    def put() -> int:
        outbox.put("model_imported", name="a", digest="d", actor="x", facts={})
        return max(notice.number for _, notice in outbox.waiting())

    assert [put(), put()] == [1, 2]
    (outbox.path / "last").unlink()
    assert put() == 3
    outbox.note_carried(7)
    assert put() == 8
    (outbox.path / "last").write_bytes(b"rubbish \xff")
    assert put() == 9
    assert outbox.last == 9


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_notice_of_root_belongs_to_whoever_serves(tmp_path: Path) -> None:
    """The supervisor of another user has to read it, and to take it away."""
    os.chown(tmp_path, 65534, 65534)
    Outbox(tmp_path / "outbox").put("model_imported", name="a", digest="d", actor="x", facts={})
    assert {path.stat().st_uid for path in (tmp_path / "outbox", *(tmp_path / "outbox").iterdir())} == {65534}


def test_rubbish_is_passed_over(tmp_path: Path) -> None:
    """A file that is no notice must not stop those that are."""
    outbox = Outbox(tmp_path)
    for number, content in enumerate((b"", b"{}", b'{"kind": 1}', b"\xff", b'{"kind":"a","kind":"b"}')):
        (tmp_path / f"{number}.json").write_bytes(content)
    outbox.put("model_imported", name="a", digest="d", actor="x", facts={})
    assert [notice.name for _, notice in outbox.waiting()] == ["a"]
