"""`casemate doctor`: the healthy machine, and each thing that can be wrong, in words."""

import json
import os
import shutil
import socket
from pathlib import Path

import pytest

from appliance.cli.main import EXIT_FAILED, EXIT_OK, main
from appliance.config import Configuration, parse_configuration
from appliance.config.defaults import DEMO_MODEL_DIR
from appliance.health import machine
from appliance.health.examination import examine
from appliance.health.finding import Finding
from appliance.models.places import open_trust, utc_now
from tests.support.controls import control


def configure(place: Path, text: str = "") -> Configuration:
    """A configuration with the demo model on ports of its own choice."""
    head = f'state_dir = "{place}/state"\n'
    ports = "" if "[gateway]" in text else "[gateway]\nport = 0\n"
    tail = f'[authority]\nport = 0\n[[engines]]\nmodel_path = "{DEMO_MODEL_DIR}"\n'
    return parse_configuration(f"{head}{text}\n{ports}{tail}".encode(), place)


def find(configuration: Configuration, subject: str) -> list[Finding]:
    """What was found of one subject."""
    return [finding for finding in examine(configuration) if finding.subject == subject]


@control("SI-6")
def test_everything_is_looked_at_once(tmp_path: Path) -> None:
    """Each subject of the documentation, with a grade and words; nothing is written."""
    findings = examine(configure(tmp_path))
    assert {finding.subject for finding in findings} >= {
        "processor", "memory", "gpu", "clock", "entropy", "disk", "kernel", "sandbox", "cryptography", "certificate",
        "model", "port", "egress", "protection",
    }  # fmt: skip
    assert all(finding.words for finding in findings)
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stops the log, and so answers."""
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _path: usage._replace(free=100))
    (finding,) = find(configure(tmp_path), "disk")
    assert finding.grade == "bad"
    assert "stops the log" in finding.words


def test_clock_behind_the_log_is_bad(tmp_path: Path) -> None:
    """The auditor would refuse to start: records would be out of order."""
    checkpoint = tmp_path / "state" / "audit" / "log" / "checkpoint"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    assert [finding.grade for finding in find(configure(tmp_path), "clock")] == ["ok"]
    os.utime(checkpoint, (4_102_444_800, 4_102_444_800))
    (finding,) = find(configure(tmp_path), "clock")
    assert finding.grade == "bad"
    assert "the log was written to until 2100-01-01 00:00 UTC; set the clock" in finding.words


@control("3.3.7")
def test_clock_that_went_back_is_bad(tmp_path: Path) -> None:
    """Behind what this host has seen."""
    (tmp_path / "state" / "trust").mkdir(parents=True)
    open_trust(tmp_path / "state").note_time(utc_now().replace(year=2099, month=1, day=1))
    (finding,) = find(configure(tmp_path), "clock")
    assert finding.grade == "bad"
    assert "2099-01-01" in finding.words


def test_unusable_certificate_is_bad(tmp_path: Path) -> None:
    """One that is no certificate."""
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).write_text("nonsense")
    tls = f'[tls]\ncertificate = "{tmp_path}/cert.pem"\nkey = "{tmp_path}/key.pem"\n'
    (finding,) = find(configure(tmp_path, tls), "certificate")
    assert finding.grade == "bad"


def test_address_that_answers_is_bad(tmp_path: Path) -> None:
    """And one that does not is good."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        (finding,) = find(configure(tmp_path, f'[segments]\nprobes = ["127.0.0.1:{port}"]\n'), "egress")
        assert finding.grade == "bad"
    (finding,) = find(configure(tmp_path, f'[segments]\nprobes = ["127.0.0.1:{port}"]\n'), "egress")
    assert finding.grade == "ok"


def test_port_in_use_is_noted(tmp_path: Path) -> None:
    """It may be our own appliance."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        text = f"[gateway]\nport = {listening.getsockname()[1]}\n"
        gateway = find(configure(tmp_path, text), "port")[0]
    assert gateway.grade == "note"
    assert "in use" in gateway.words


def test_fips_makes_other_cryptography_bad(tmp_path: Path) -> None:
    """Where it was asked for."""
    grades = {finding.grade for finding in find(configure(tmp_path, "fips = true\n"), "cryptography")}
    assert grades <= {"bad", "ok"}
    assert {finding.grade for finding in find(configure(tmp_path), "cryptography")} == {"ok"}


def test_command_fails_if_something_is_bad(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit status for scripts, words for people."""
    config = tmp_path / "casemate.toml"
    body = f'[gateway]\nport = 0\n[authority]\nport = 0\n[[engines]]\nmodel_path = "{DEMO_MODEL_DIR}"\n'
    config.write_text(body)
    main(["doctor", "--config", str(config), "--json"])
    grades = [one["grade"] for one in json.loads(capsys.readouterr().out)]
    assert main(["doctor", "--config", str(config)]) == (EXIT_FAILED if "bad" in grades else EXIT_OK)
    assert f"{grades.count('note')} note" in capsys.readouterr().out
    monkeypatch.setattr(machine, "_LEAST_YEAR", 3000)
    assert main(["doctor", "--config", str(config)]) == EXIT_FAILED


def test_configuration_that_is_refused_does_not_hide_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each problem of it, and then all the rest."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "casemate.toml").write_text('mode = "prodaction"\n')
    assert main(["doctor", "--config", "casemate.toml"]) == EXIT_FAILED
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("bad   configuration casemate.toml")
    assert any(line.startswith("ok    kernel") for line in lines)
