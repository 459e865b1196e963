"""The rendered rules in network namespaces: each arrow opens, every other pair is refused and counted."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.cli.main import main
from security.segmentation.model import Ports, build_arrows
from security.segmentation.rehearsal import rehearse
from security.segmentation.settings import SegmentsSettings
from security.stewards.outbox import Outbox
from tests.support.controls import control

PORTS = Ports(18443, 18444, console=18446, administration=18445)
SITE = SegmentsSettings(
    clients=("10.201.0.0/16", "fd00:201::/64"),
    admin=("10.209.0.0/24",),
    telemetry=("10.205.0.9",),
    collectors=("10.205.0.9:4318",),
    witnesses=("10.207.0.1:1443", "10.207.0.2:2443"),
    providers=("10.208.0.1:8443",),
    issuers=("[fd00:206::1]:443",),
    databases=("10.204.0.1:5432",),
    receivers=("10.203.0.1:6514",),
)


def _why_not() -> str:
    if os.geteuid() != 0:
        return "needs root"
    for program in ("ip", "nft"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    name = f"probe-{os.getpid()}"  # Every process that collects tests makes one.
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)
    return "" if made.returncode == 0 else f"network namespaces cannot be made: {made.stderr.strip()}"


def write_site(folder: Path, segments: str) -> Path:
    """A configuration with these zones."""
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    (folder / "casemate.toml").write_text(f'{segments}\n[[engines]]\nmodel_path = "model"\n')
    return folder / "casemate.toml"


pytestmark = pytest.mark.skipif(bool(_why_not()), reason=f"a rehearsal: {_why_not()}")


@control("3.13.1", "3.13.6", "3.14.6", "SC-7", "SC-7(5)", "SI-4", "SI-4(4)", "SI-4(22)")
def test_arrows_open_and_everything_else_is_refused_and_counted() -> None:
    """Every zone, both families, two witnesses, a machine in two zones, strangers; every port of the host and of every zone."""
    result = rehearse(build_arrows(SITE, PORTS), PORTS, admin_port=22)
    assert not result.wrong
    opened = {(one.source, one.target, one.port) for one in result.attempts if one.opened}
    assert opened == {
        ("clients", "host", 18443),
        ("clients", "host", 18444),
        ("clients fd00:201::1", "host", 18443),
        ("clients fd00:201::1", "host", 18444),
        ("telemetry+collectors", "host", 18443),
        ("admin", "host", 22),
        ("admin", "host", 18444),
        ("admin", "host", 18445),
        ("admin", "host", 18446),
        ("host", "telemetry+collectors", 4318),
        ("host", "witnesses", 1443),
        ("host", "witnesses 10.207.0.2", 2443),
        ("host", "providers", 8443),
        ("host", "issuers", 443),
        ("host", "databases", 5432),
        ("host", "receivers", 6514),
    }
    num_places, incoming_ports, outgoing_ports = 12, 6, 8
    between = [one for one in result.attempts if "host" not in (one.source, one.target)]
    assert len(result.attempts) - len(between) == num_places * (incoming_ports + outgoing_ports)
    assert {("clients", "databases"), ("stranger", "admin"), ("clients fd00:201::1", "issuers")} <= {
        (one.source, one.target) for one in between
    }
    assert result.refused["refused_in"] >= num_places * incoming_ports - 9
    assert result.refused["refused_out"] >= num_places * outgoing_ports - 7
    assert result.refused["refused_through"] >= len(between)


def test_site_of_the_documentation_can_be_rehearsed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It has one machine in two zones, and names a console's arrows only where there is a console."""
    operations = (Path(__file__).parents[2] / "docs/operations.md").read_text()
    (site,) = re.findall(r"```toml\n(\[segments\].*?)```", operations, re.DOTALL)
    assert main(["segments", "test", "--config", str(write_site(tmp_path, site))]) == 0
    out = capsys.readouterr().out
    assert "host -> telemetry+collectors:4318   opened" in out
    assert "8446" not in out


def test_apply_loads_our_table_and_leaves_others_alone(tmp_path: Path) -> None:
    """`casemate segments apply`, twice, on a machine of its own: an empty network namespace."""
    config = write_site(tmp_path, '[segments]\nclients = ["10.201.0.0/24"]\n')
    (tmp_path / "state").mkdir()
    script = (
        "set -e; nft add table ip others; nft add chain ip others kept; "
        'for _ in 1 2; do "$0" -m appliance.cli.main segments apply --config "$1"; done; nft -j list ruleset'
    )
    command = ["unshare", "--net", "bash", "-c", script, sys.executable, str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said, _, listed = done.stdout.partition("{")
    assert said.count("applied    2 arrows") == 2
    entries = json.loads("{" + listed)["nftables"]
    tables = [(entry["table"]["family"], entry["table"]["name"]) for entry in entries if "table" in entry]
    assert tables == [("ip", "others"), ("inet", "casemate")]
    counters = {entry["counter"]["name"] for entry in entries if "counter" in entry}
    assert counters == {
        "clients_to_gateway",
        "clients_to_authority",
        "refused_in",
        "refused_out",
        "refused_through",
    }
    assert any(entry.get("chain", {}).get("name") == "kept" for entry in entries)
    told = [notice for _, notice in Outbox(tmp_path / "state" / "outbox").waiting()]
    assert [notice.kind for notice in told] == ["segments_applied"] * 2


def test_rehearsal_finds_a_rule_that_is_missing() -> None:
    """It would not be a test if it could not fail: an arrow that the rules do not have."""
    arrows = build_arrows(SITE, PORTS)
    wrong_port = tuple(replace(arrow, port=9999) if arrow.name == "clients_to_gateway" else arrow for arrow in arrows)
    result = rehearse(wrong_port, PORTS, admin_port=22)
    assert not result.wrong
    assert ("clients", "host", 9999) in {(one.source, one.target, one.port) for one in result.attempts if one.opened}


def test_command_says_what_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`casemate segments test`, and nothing is left behind; others on this machine may rehearse as well."""
    tag = f"{os.getpid() % (1 << 24):06x}"
    monkeypatch.setattr("secrets.token_hex", lambda _size: tag)
    config = write_site(tmp_path, '[segments]\nclients = ["10.201.0.0/24"]\n')
    assert main(["segments", "test", "--config", str(config)]) == 0
    out = capsys.readouterr().out
    assert "clients -> host:8443   opened" in out
    assert "clients -> stranger:9999   refused" in out
    assert "stranger -> host:8443   refused" in out
    left = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert f"cm{tag}" not in left
