"""`casemate recover` beside an upgrade, and the service as two commands with a time for each."""

from pathlib import Path

import pytest

from appliance.cli.main import EXIT_OK, main
from appliance.cli.service import CommandService
from appliance.cli.software import lock_host
from appliance.errors import HostBusy
from security.bundles.slots import Host
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
    with pytest.raises(SwitchFailed, match="not ready within 1 s"):
        service.wait_ready()
