"""`casemate bench serve` against the product: client credentials, TLS, both APIs, the server's own counts."""

import json
import subprocess
import sys
from pathlib import Path

from tests.support.appliance import Appliance


def test_own_server_is_measured_by_client_credentials(appliance: Appliance, tmp_path: Path) -> None:
    """Prompts of token ids with shared heads, and conversations: no errors, all tokens, and prefixes from the cache."""
    credentials = appliance.create_client("bench")
    secret = tmp_path / "secret"
    secret.write_text(credentials.client_secret)
    command = [sys.executable, "-m", "appliance.cli.main", "bench", "serve", "--url", appliance.url]
    command += ["--model", "casemate-demo", "--vocab", "2000", "--ca-file", str(appliance.ca_file)]
    command += ["--authority", f"https://127.0.0.1:{appliance.authority_port}", "--client-id", credentials.client_id]
    command += ["--client-secret-file", str(secret), "--requests", "8", "--output-tokens", "8"]
    command += ["--workload", "small_prefix", "turns", "--html", str(tmp_path / "page.html")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    prefix, turns = (json.loads(line) for line in done.stdout.splitlines())
    assert (prefix["requests"], prefix["errors"], turns["requests"], turns["errors"]) == (8, 0, 8, 0)
    assert prefix["cached_share"] > 0.2
    assert turns["cached_share"] > 0.2
    assert "small_prefix" in (tmp_path / "page.html").read_text()
