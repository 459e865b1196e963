"""A start that is refused leaves word of it, and of the same refusal once."""

from pathlib import Path

import pytest

from appliance.cli import refusals
from appliance.cli.refusals import noting_refusal
from appliance.errors import StartRefused
from appliance.models.places import open_outbox
from security.errors import KeyUnusable
from tests.support.controls import control


def live(state: Path, refused: Exception, *, is_ready: bool) -> None:
    with noting_refusal(state, b"[gateway]") as note_ready:
        if is_ready:
            note_ready()
        raise refused


def refuse(state: Path, refused: Exception, *, is_ready: bool = False) -> None:
    """A start, or a life, that ends with this."""
    with pytest.raises(type(refused)):
        live(state, refused, is_ready=is_ready)


def reasons(state: Path) -> list[object]:
    notices = [notice for _, notice in open_outbox(state).waiting()]
    assert {notice.kind for notice in notices} <= {"start_refused"}
    return [notice.facts["reason"] for notice in notices]


@control("AU-12", "SI-7(5)", "3.3.1")
def test_a_refused_start_leaves_word_of_it(tmp_path: Path) -> None:
    """Of one reason once, as a service manager tries again and again; none where it had been ready, or is our own bug."""
    for _ in range(3):
        refuse(tmp_path, StartRefused("model tiny:\n extra.json: not listed"))
    refuse(tmp_path, KeyUnusable("log.key: is missing"))
    refuse(tmp_path, StartRefused("an address answered"), is_ready=True)
    refuse(tmp_path, ZeroDivisionError())
    assert reasons(tmp_path) == ["model tiny: extra.json: not listed", "log.key: is missing"]


def test_what_waits_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many reasons there are; and a folder that takes none is not what the start is refused for."""
    monkeypatch.setattr(refusals, "MAX_WAITING", 3)
    for number in range(5):
        refuse(tmp_path, StartRefused(f"reason {number}"))
    assert reasons(tmp_path) == ["reason 0", "reason 1", "reason 2"]
    (tmp_path / "file").touch()
    refuse(tmp_path / "file", StartRefused("no folder"))
