"""`casemate status`, `casemate recover` beside an upgrade, and the service as two commands with a time for each."""

import json
from pathlib import Path

import pytest

from appliance.cli.main import EXIT_FAILED, EXIT_OK, main
from appliance.cli.service import CommandService
from appliance.cli.software import lock_host
from appliance.errors import HostBusy
from security.bundles.release import Version
from security.bundles.slots import Host, SlotContent, SlotName
from security.errors import SwitchFailed


def test_recovery_leaves_a_switch_in_progress_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The unit recovers before each start, and an upgrade starts the unit: it would wait for itself, or take itself back."""
    host = Host(tmp_path)
    with lock_host(host):
        (tmp_path / "transition.json").write_text("not looked at")
        assert main(["recover", "--host", str(tmp_path)]) == EXIT_OK
        assert "another command works on this host: nothing was interrupted" in capsys.readouterr().out
        with pytest.raises(HostBusy), lock_host(host):
            pass


def service_of(start: str, ready_s: float) -> CommandService:
    """A service that nobody will ever find ready."""
    return CommandService("true", start, "https://127.0.0.1:1/ready", Path("/nonexistent"), stop_s=5.0, ready_s=ready_s)


def test_start_that_says_it_failed_is_not_waited_for() -> None:
    """With a unit of `Type=notify` a release that refuses is taken back at once."""
    with pytest.raises(SwitchFailed, match="false: ended with 1"):
        service_of("false", 600.0).start()


def test_start_and_readiness_share_one_time() -> None:
    """A start that returns when the service is ready may take all of it."""
    with pytest.raises(SwitchFailed, match=r"not done within 0\.05 s"):
        service_of("tail -f /dev/null", 0.05).start()
    service = service_of("true", 1.0)
    service.start()
    with pytest.raises(SwitchFailed, match=r"not ready within 1 s: .*No such file"):
        service.wait_ready()


def fill(host: Host, slot: SlotName, version: Version) -> None:
    """Put a release of no files into a slot."""
    (host.path / "copy").mkdir()
    host.fill(slot, host.path / "copy", SlotContent(slot, version, "ab" * 32, {}))


def status_of(host: Host, capsys: pytest.CaptureFixture[str]) -> str:
    """What `casemate status` prints."""
    assert main(["status", "--host", str(host.path)]) == EXIT_OK
    return capsys.readouterr().out


def test_status_says_what_comes_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From an empty folder to an upgrade that was broken off: each time with the command."""
    host = Host(tmp_path / "host")
    assert main(["status", "--host", str(host.path)]) == EXIT_FAILED
    assert "no release was ever installed here: `casemate bundle install` does" in capsys.readouterr().err
    host.prepare()
    assert "next       `casemate bundle install` fills a slot" in status_of(host, capsys)
    fill(host, "a", (1, 0, 0))
    assert "next       `casemate upgrade` changes to 1.0.0" in status_of(host, capsys)
    host.switch_to("a")
    assert "current" in (status := status_of(host, capsys)).splitlines()[0]
    assert "next" not in status
    fill(host, "b", (1, 1, 0))
    assert "next       `casemate upgrade` changes to 1.1.0" in status_of(host, capsys)
    host.switch_to("b")
    assert "back       `casemate rollback` goes back to 1.0.0" in status_of(host, capsys)
    (host.path / "incoming" / "x").mkdir(parents=True)
    assert "`casemate bundle install` goes on with it" in status_of(host, capsys)
    (host.path / "slots/b.json").unlink()
    assert "broken     the current slot b is empty" in status_of(host, capsys)


def test_status_tells_a_switch_under_way_from_one_broken_off(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who recovers while an upgrade waits for `/ready` would only be confused."""
    host = Host(tmp_path)
    host.prepare()
    record = {"direction": "upgrade", "source": None, "target": "a", "backup": "x"}
    (tmp_path / "transition.json").write_text(json.dumps(record))
    with lock_host(host):
        assert "busy       another command works on this host" in status_of(host, capsys)
    assert "broken off the upgrade to slot a: `casemate recover` takes it back" in status_of(host, capsys)
