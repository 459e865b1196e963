"""The demonstration before anything is started."""

from pathlib import Path

import pytest

from appliance.cli.main import EXIT_MISCONFIGURED, main
from appliance.cli.state_lock import hold_state


def test_a_demo_leaves_alone_the_state_that_another_runs_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It wrote over the other's configuration and log, and showed the other's answer as its own."""
    (tmp_path / "demo.toml").write_text("the other's")
    (tmp_path / "casemate.log").write_text("the other's")
    with hold_state(tmp_path):
        assert main(["demo", "--once", "--state", str(tmp_path)]) == EXIT_MISCONFIGURED
    assert f"another casemate runs on {tmp_path}" in capsys.readouterr().err
    assert {path.name: path.read_text() for path in tmp_path.iterdir() if path.name != "lock"} == {
        "demo.toml": "the other's",
        "casemate.log": "the other's",
    }
