"""`casemate demo --once` does what the README shows, in a folder with a space in its name."""

import subprocess
import sys
from pathlib import Path

import psutil

from tests.support.appliance import STOP_TIMEOUT_S
from tests.support.ports import free_port


def test_demo_shows_answer_and_verified_record_and_exits_zero(tmp_path: Path) -> None:
    """Five numbered steps, a proven record, exit status 0, and the log verifies afterwards without the appliance."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    command = [sys.executable, "-m", "appliance.cli.main"]
    shown = subprocess.run(
        [*command, "demo", "--once", "--port", str(free_port()), "--authority-port", str(free_port())],
        cwd=folder, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert shown.returncode == 0, shown.stdout + shown.stderr
    for step in (
        "[1/5]",
        "[2/5]",
        "[3/5]",
        "[4/5] What is Casemate?",
        "[5/5] Audit record",
        "inclusion proven",
        "acceptance length",
    ):
        assert step in shown.stdout
    audit = folder / "state" / "audit"
    verified = subprocess.run(
        [*command, "audit", "verify", str(audit / "log"), "--key", str(audit / "log.vkey")],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert verified.returncode == 3
    assert "rollback not excluded" in verified.stdout


def test_an_ended_demo_leaves_nothing_running(tmp_path: Path) -> None:
    """SIGTERM to the demonstration drains the appliance that it started."""
    command = [sys.executable, "-m", "appliance.cli.main", "demo"]
    ports = ["--port", str(free_port()), "--authority-port", str(free_port())]
    with subprocess.Popen([*command, *ports], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "Three things to try" in line:
                break
        started = psutil.Process(demo.pid).children(recursive=True)
        assert len(started) > 5
        demo.terminate()
        assert demo.wait(STOP_TIMEOUT_S) == 0
    assert not psutil.wait_procs(started, timeout=30)[1]


def test_demo_says_what_is_in_the_way(tmp_path: Path) -> None:
    """A port in use is one clear line that names it, and no traceback."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as occupied:
        port = occupied.getsockname()[1]
        shown = subprocess.run(
            [sys.executable, "-m", "appliance.cli.main", "demo", "--once", "--port", str(port)],
            cwd=tmp_path, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
    assert shown.returncode != 0
    assert f"port {port} is in use" in shown.stderr
    assert "Traceback" not in shown.stderr
