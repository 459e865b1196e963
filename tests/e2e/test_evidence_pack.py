"""An evidence pack of a running appliance: made by command while it serves, verified offline, and itself in the log."""

import csv
import json
from pathlib import Path

import openai
import pytest

from appliance.cli.main import EXIT_OK, main
from appliance.statement.measuring import measure_software
from audit.index import LogIndex, Query
from audit.signing_key import load_verifier_key
from tests.support.appliance import Appliance
from tests.support.evidence import make_results
from tests.support.folders import contents_below
from tests.support.waiting import wait_until


@pytest.fixture
def pack(appliance: Appliance, sdk: openai.OpenAI, tmp_path: Path) -> Path:
    """A pack over all that was recorded until now, a request of ours among it."""
    answer = sdk.chat.completions.create(
        model="casemate-demo", messages=[{"role": "user", "content": "Hello"}], max_tokens=4
    )
    wait_until(lambda: find(appliance, tmp_path, Query(request=answer.id)) == 2)  # intent and outcome
    (tmp_path / "results.json").write_bytes(make_results(software=f"sha256:{measure_software()}"))
    words = [
        "compliance",
        "export",
        "--config",
        str(appliance.config_file),
        "--framework",
        "cmmc-l2",
        "--from",
        "2020-01-01",
        "--to",
        "2100-01-01",  # By default it ends with the last whole second, and the request's may still go on.
    ]
    words += ["--out", str(tmp_path / "pack"), "--test-results", str(tmp_path / "results.json"), "--records"]
    assert main(words) == EXIT_OK
    return tmp_path / "pack"


def find(appliance: Appliance, place: Path, query: Query) -> int:
    """How many records match."""
    log = appliance.state / "audit"
    index = LogIndex(place / "index.sqlite", log / "log", load_verifier_key(str(log / "log.vkey")))
    try:
        index.update()
        return len(index.find(query))
    finally:
        index.close()


def test_a_pack_of_a_running_appliance_verifies_and_is_recorded(
    appliance: Appliance, pack: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each record by itself and all as a range; who is registered; what runs; and then the record that it was taken."""
    keys = ["--key", str(appliance.state / "audit" / "log.vkey")]
    keys += ["--signer", str(appliance.state / "compliance" / "evidence.vkey")]
    assert main(["compliance", "verify", str(pack), *keys]) == EXIT_OK
    assert "verified: signed, whole" in capsys.readouterr().out
    facts = json.loads((pack / "facts.json").read_text())
    assert facts["statement"]["answer"] == "yes", "what runs is what made the pack"
    assert facts["witness"]["answer"] == "no"
    with (pack / "identity" / "programs.csv").open() as file:
        assert any(row["role"] == "user" for row in csv.DictReader(file))
    summary = json.loads((pack / "log" / "summary.json").read_text())
    assert summary["kinds"]["inference_outcome"] >= 1
    assert summary["unreadable"] == 0
    wait_until(lambda: find(appliance, pack.parent, Query(kind="log_exported")))


def test_no_secret_of_the_state_is_in_a_pack(appliance: Appliance, pack: Path) -> None:
    """The bytes of every key file, and their PEM bodies."""
    files = [path.read_bytes() for path in pack.rglob("*") if path.is_file()]
    kept = dict(contents_below(appliance.state))
    keys = [path for path in kept if path.suffix == ".key" or path.parent.name == "signing"]
    assert len(keys) > 4
    for path in keys:
        secret = kept[path]
        body = secret.splitlines()[1] if secret.startswith(b"-----BEGIN") else secret
        assert len(body) >= 32
        assert not any(body in data for data in files), path
