"""The rendered rules in network namespaces: each arrow opens, every other pair is refused and counted."""

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.cli.main import main
from security.segmentation.model import Ports, build_arrows
from security.segmentation.rehearsal import rehearse
from security.segmentation.settings import SegmentsSettings
from tests.support.controls import control

PORTS = Ports(18443, 18444)
SITE = SegmentsSettings(
    clients=("10.201.0.0/16",),
    admin=("10.209.0.0/24",),
    telemetry=("10.205.0.9",),
    witnesses=("10.207.0.1:1443",),
    providers=("10.208.0.1:8443",),
    issuers=("10.206.0.1:443",),
)


def _why_not() -> str:
    if os.geteuid() != 0:
        return "needs root"
    for program in ("ip", "nft"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    made = subprocess.run(["ip", "netns", "add", "cm-probe"], capture_output=True, text=True, check=False)
    subprocess.run(["ip", "netns", "delete", "cm-probe"], capture_output=True, check=False)
    return "" if made.returncode == 0 else f"network namespaces cannot be made: {made.stderr.strip()}"


pytestmark = pytest.mark.skipif(bool(_why_not()), reason=f"a rehearsal: {_why_not()}")


@control("3.13.1", "3.13.6", "3.14.6", "SC-7", "SC-7(5)", "SI-4", "SI-4(4)", "SI-4(22)")
def test_arrows_open_and_everything_else_is_refused_and_counted() -> None:
    """Seven zones, a stranger among them; every port of the host and of every zone."""
    result = rehearse(build_arrows(SITE, PORTS), PORTS, admin_port=22)
    assert not result.wrong
    opened = {(one.source, one.target, one.port) for one in result.attempts if one.opened}
    assert opened == {
        ("clients", "host", 18443),
        ("clients", "host", 18444),
        ("telemetry", "host", 18443),
        ("admin", "host", 22),
        ("host", "witnesses", 1443),
        ("host", "providers", 8443),
        ("host", "issuers", 443),
    }
    assert len(result.attempts) == 7 * 4 + 7 * 4
    assert result.refused_in >= 16
    assert result.refused_out >= 9


def test_rehearsal_finds_a_rule_that_is_missing() -> None:
    """It would not be a test if it could not fail: an arrow that the rules do not have."""
    arrows = build_arrows(SITE, PORTS)
    wrong_port = tuple(replace(arrow, port=9999) if arrow.name == "clients_to_gateway" else arrow for arrow in arrows)
    result = rehearse(wrong_port, PORTS, admin_port=22)
    assert not result.wrong
    assert ("clients", "host", 9999) in {(one.source, one.target, one.port) for one in result.attempts if one.opened}


def test_command_says_what_opened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`casemate segments test`, and nothing is left behind."""
    config = tmp_path / "casemate.toml"
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    config.write_text('[segments]\nclients = ["10.201.0.0/24"]\n[[engines]]\nmodel_path = "model"\n')
    assert main(["segments", "test", "--config", str(config)]) == 0
    out = capsys.readouterr().out
    assert "clients -> host:8443   opened" in out
    assert "stranger -> host:8443   refused" in out
    left = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert "cm" not in left.replace("cm-probe", "")
