"""A model from import to answers: real processes verify it, and do not start with other bytes than those approved."""

import contextlib
import hashlib
import http.client
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from audit.reader import LogReader
from tests.support.appliance import DEMO_MODEL, START_TIMEOUT_S, Appliance
from tests.support.commands import run_casemate
from tests.support.controls import control
from tests.support.stewardship import Stewardship
from tests.support.waiting import wait_until


def casemate(directory: Path, *words: str) -> str:
    """One command in a folder; it must work."""
    with contextlib.chdir(directory):
        return run_casemate(*words)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """An appliance, not running, with the demo model imported by ines, approved by ada and bob, and promoted."""
    directory = tmp_path_factory.mktemp("host")
    people = Stewardship()
    people.establish(directory / "state")
    for holder in people.people.values():
        holder.write(directory / "keys")
    words = ("--name", "tiny", "--key", "keys/ines.pem", "--licence", "Apache-2.0", "--json")
    root = json.loads(casemate(directory, "model", "import", str(DEMO_MODEL), *words))["root"]
    for name in ("ada", "bob"):
        casemate(directory, "model", "approve", root, "--key", f"keys/{name}.pem")
    casemate(directory, "model", "promote", root)
    appliance = Appliance(directory, model=directory / "state" / "models" / "promoted" / "tiny")
    yield appliance
    appliance.stop()


def read_log(host: Appliance) -> list[dict[str, Any]]:
    """All records under the last checkpoint, at most a bundle of them."""
    reader = LogReader(host.state / "audit" / "log")
    size = int(reader.checkpoint_note().split(b"\n")[1])
    return [json.loads(record) for record in reader.read_bundle(0, size)]


def fetch_statement(host: Appliance, path: str, token: str | None) -> str | None:
    """The statement that an answer names, whatever its status."""
    connection = http.client.HTTPSConnection("127.0.0.1", host.gateway_port, timeout=30, context=host.client.tls)
    try:
        connection.request("GET", path, headers={"authorization": f"Bearer {token}"} if token else {})
        return connection.getresponse().getheader("casemate-statement")
    finally:
        connection.close()


def digest_of_statement(host: Appliance) -> str:
    """Of the file that the launcher kept."""
    return f"sha256:{hashlib.sha256((host.state / 'run' / 'statement.json').read_bytes()).hexdigest()}"


@control("3.4.3", "CM-3", "A.6.2.8", "Article 12(2)")
def test_promoted_model_answers_and_its_life_is_in_the_log(host: Appliance) -> None:
    """Confined gateway and engine verify the evidence for themselves; every step of the stewards is a record."""
    host.start()
    try:
        http_client = openai.DefaultHttpxClient(verify=host.client.tls)
        with openai.OpenAI(base_url=f"{host.url}/v1", api_key=host.token(), http_client=http_client) as sdk:
            assert sdk.completions.create(model="casemate-demo", prompt="Hello", max_tokens=2).usage is not None
        for path, token in (("/ready", None), ("/v1/models", None), ("/no-such-route", host.token())):
            assert fetch_statement(host, path, token) == digest_of_statement(host)
        outbox = host.state / "outbox"
        wait_until(lambda: not list(outbox.glob("*.json")))
    finally:
        assert host.stop() == 0
    records = [record["unmapped"]["casemate"] for record in read_log(host)]
    kinds = [record["kind"] for record in records]
    measured = {record["digest"] for record in records if record["kind"] == "statement_measured"}
    assert measured == {digest_of_statement(host)}
    read = {record["digest"] for record in records if record["kind"] == "configuration_loaded"}
    assert read == {f"sha256:{hashlib.sha256(host.config_file.read_bytes()).hexdigest()}"}
    assert "model_loaded" in kinds
    assert (kinds.count("model_imported"), kinds.count("model_approved"), kinds.count("model_promoted")) == (1, 2, 1)


def refused_start(host: Appliance) -> str:
    """Start, which must be refused; gives what was said."""
    host.start(wait=False)
    assert host.process is not None
    try:
        assert host.process.wait(START_TIMEOUT_S) == 78
    finally:
        host.stop(signal.SIGKILL)  # Nothing, where it has ended; else the next test would find it running.
    return host.log()


@control("3.14.5", "CM-6(2)", "SI-7(1)", "SI-7(2)", "SI-7(5)")
def test_changed_file_stops_the_start(host: Appliance) -> None:
    """Same size, one bit: the engine finds it in what it has loaded, the launcher says which."""
    name = "model.safetensors"
    path = (host.model / name).resolve()
    kept = path.read_bytes()
    path.chmod(0o644)
    changed = bytearray(kept)
    changed[-1] ^= 1
    path.write_bytes(bytes(changed))
    try:
        assert f"{name}: changed" in refused_start(host)
    finally:
        path.write_bytes(kept)


@control("CM-8(3)", "SI-7(5)")
def test_unlisted_file_and_missing_approval_stop_the_start(host: Appliance) -> None:
    """Before anything is started."""
    files = host.model.resolve()
    (files / "extra.json").touch()
    try:
        assert "extra.json: not listed" in refused_start(host)
    finally:
        (files / "extra.json").unlink()
    approval = next((files.parent / "approvals").iterdir())
    kept = approval.read_bytes()
    approval.unlink()
    try:
        assert "approved by 1 stewards" in refused_start(host)
    finally:
        approval.write_bytes(kept)
