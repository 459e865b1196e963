"""`casemate bench gateway` runs a whole appliance with a stand-in for the engine, and says what each process cost."""

import json
import subprocess
import sys
from pathlib import Path


def test_gateway_is_measured_with_everything_around_it(tmp_path: Path) -> None:
    """Every answer comes through TLS, token check, quota and log; the share of each process is told, and what all that adds."""
    command = [
        sys.executable,
        "-m",
        "appliance.cli.main",
        "bench",
        "gateway",
        "requests",
        "--rate",
        "20",
        "--seconds",
        "1",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=True)
    result = json.loads(done.stdout)
    assert (result["scenario"], result["requests"], result["errors"]) == ("requests", 20, 0)
    assert set(result["cores"]) >= {"self", "load", "gateway", "engine", "auditor", "policy", "authority"}
    assert result["ttft_ms"]["p50"] > 0
    assert result["direct_ttft_ms"]["p50"] > 0
    difference = result["ttft_ms"]["p50"] - result["direct_ttft_ms"]["p50"]
    assert abs(result["added_ttft_ms"]["p50"] - difference) < 0.011
    assert list(tmp_path.iterdir()) == [], "it leaves something behind"
