"""`casemate segments apply` leaves word for the log of what it opens, whatever becomes of it."""

import hashlib
from pathlib import Path

import pytest

from appliance.cli import segments
from appliance.cli.main import main
from appliance.supervisor.notices import encode_notice
from audit.entry import parse_canonical
from security.errors import SegmentsUnusable
from security.stewards.outbox import Notice, Outbox
from tests.support.controls import control


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration with one zone, and a kernel that takes every ruleset."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "state").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "casemate.toml").write_text(
        '[segments]\nclients = ["10.1.0.0/16"]\n[[engines]]\nmodel_path = "model"\n'
    )
    monkeypatch.setattr(segments, "check_rules", lambda _rules: None)
    monkeypatch.setattr(segments, "apply_rules", lambda _rules: None)
    return tmp_path


def told(site: Path) -> list[Notice]:
    return [notice for _, notice in Outbox(site / "state" / "outbox").waiting()]


@control("3.13.6")
def test_who_opened_what_to_whom_is_recorded_first(
    site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The notice is there when the rules are loaded; its digest is that of what `render` prints."""
    when_loaded: list[list[Notice]] = []
    monkeypatch.setattr(segments, "apply_rules", lambda _rules: when_loaded.append(told(site)))
    assert main(["segments", "render"]) == 0
    digest = hashlib.sha256(capsys.readouterr().out.encode()).hexdigest()
    assert main(["segments", "apply"]) == 0
    ((notice,),) = when_loaded
    event = encode_notice(notice)
    assert event is not None
    record = parse_canonical(event)
    own = record["unmapped"]["casemate"]
    assert (own["kind"], own["digest"]) == ("segments_applied", f"sha256:{digest}")
    assert record["actor"]["user"]["name"].startswith("os:")
    assert own["facts"]["num_arrows"] == 2
    assert "clients_to_gateway from 10.1.0.0/16 port 8443" in own["facts"]["arrows"]


def test_rules_that_the_kernel_does_not_take_are_recorded_as_that(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was said before would else be wrong."""

    def fail(_rules: str) -> None:
        raise SegmentsUnusable("nft: no")

    monkeypatch.setattr(segments, "apply_rules", fail)
    assert main(["segments", "apply"]) == 78
    assert [notice.kind for notice in told(site)] == ["segments_applied", "segments_apply_failed"]
    assert told(site)[1].facts["reason"] == "nft: no"


def test_nothing_is_loaded_that_cannot_be_recorded(
    site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a state folder there is no way into the log."""
    (site / "state").rmdir()
    monkeypatch.setattr(segments, "apply_rules", lambda _rules: pytest.fail("the rules were loaded"))
    assert main(["segments", "apply"]) == 1
    assert "is not there, where the log finds word of this" in capsys.readouterr().err
