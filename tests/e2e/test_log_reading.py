"""Auditors and monitors against the running appliance: search, tail and tiles, out of a process that cannot write the log."""

import datetime
import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from appliance.auditor.witness_listener import build_server
from appliance.cli.main import EXIT_FAILED, EXIT_OK
from audit.cosignature import verify_cosignatures
from audit.courier import ask_witness
from audit.entry import parse_canonical
from audit.note import VerifierKey, parse_verifier_key
from audit.reader import LogReader
from audit.signing_key import open_cosigners
from audit.witness import Witness
from security.sandbox.platform import probe_platform
from tests.support import tile_client
from tests.support.appliance import Appliance, running_appliance
from tests.support.commands import run_casemate
from tests.support.controls import control
from tests.support.folders import contents_below
from tests.support.ports import free_port
from tests.support.sdk import open_sdk
from tests.support.waiting import stay_within_a_day, wait_until

WITNESS = "witness.example/asked"


class Auditor:
    """Somebody with an auditor's token."""

    def __init__(self, appliance: Appliance, home: Path, tenant: str = "default", role: str = "auditor") -> None:
        self.appliance = appliance
        created = appliance.create_client(f"{role}-{tenant}", "--role", role, "--tenant", tenant)
        self.client_id = created.client_id
        self.token = appliance.token(created)
        self.token_file = home / f"{role}-{tenant}.token"
        self.token_file.write_text(self.token)

    def get(self, path: str, body: dict[str, object] | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.appliance.gateway_port, timeout=20, context=self.appliance.client.tls
        )
        try:
            headers = {"Authorization": f"Bearer {self.token}"}
            if body is None:
                connection.request("GET", path, headers=headers)
            else:
                headers["Content-Type"] = "application/json"
                connection.request("POST", path, json.dumps(body), headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def run(self, *words: str, status: int = EXIT_OK) -> str:
        """A command of `casemate audit` over the API."""
        options = ["--url", self.appliance.url, "--token-file", str(self.token_file), "--ca", str(self.appliance.ca_file)]  # fmt: skip  # noqa: E501
        return run_casemate("audit", *words, *options, status=status)

    def search(self, **terms: object) -> list[dict[str, Any]]:
        status, data = self.get("/audit/search", terms)
        assert status == 200, data
        return [one["record"] for one in json.loads(data)["records"]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reading")


@pytest.fixture(scope="module")
def witness_port() -> int:
    """Where the witness is asked, which serves in one test only."""
    return free_port()


@pytest.fixture(scope="module")
def appliance(home: Path, witness_port: int) -> Iterator[Appliance]:
    """One of our own: its reader is killed. It knows a witness, which comes later."""
    (cosigner,) = open_cosigners(home / "asked-witness", WITNESS, with_mldsa=False)
    witness = f"{cosigner.key.encode()} http://127.0.0.1:{witness_port}"
    run_casemate("audit", "recipient-key", str(home / "ada.key"))
    extra = f"""[audit]
witnesses = [{json.dumps(witness)}]
witness_interval_s = 1
sealed_tenants = ["default"]
body_recipients = [{json.dumps(str(home / "ada.key.pub"))}]"""
    with running_appliance(home / "appliance", extra=extra) as running:
        yield running


@pytest.fixture(scope="module")
def auditor(appliance: Appliance, home: Path) -> Auditor:
    return Auditor(appliance, home)


@pytest.fixture(scope="module")
def asked(appliance: Appliance, auditor: Auditor) -> str:
    """The request id of an answer whose two records, intent and outcome, the reader has indexed."""
    with open_sdk(appliance) as sdk:
        request_id = sdk.completions.create(model="casemate-demo", prompt="Hello", max_tokens=3).id
    wait_until(lambda: len(auditor.search(request=request_id)) == 2)
    return request_id


def test_an_auditor_finds_a_request_and_shows_it(auditor: Auditor, asked: str) -> None:
    """By the API: intent and outcome, and the record's very bytes; that somebody looked is in the log before."""
    found = auditor.search(request=asked)
    kinds = {record["unmapped"]["casemate"]["kind"] for record in found}
    assert kinds == {"inference_intent", "inference_outcome"}
    index = found[0]["metadata"]["sequence"]
    assert json.loads(auditor.run("show", str(index))) == found[0]
    assert json.loads(auditor.run("search", "--request", asked, "--json", "--limit", "1")) == found[0]

    def readings(what: str) -> list[dict[str, Any]]:
        found = auditor.search(kind="log_searched", client=auditor.client_id)
        own = (record["unmapped"]["casemate"] for record in found)
        return [facts["asked"] for facts in own if facts["what"] == what]

    # Found once a checkpoint covers them; not asked too often, as each search is a record that is found itself.
    wait_until(lambda: {"index": index} in readings("record"), poll_s=0.5)
    assert any(searched.get("request") == asked for searched in readings("search"))
    assert "log_searched" in auditor.run("tail", "-n", "50")


def look_up(appliance: Appliance, *words: str, status: int = EXIT_OK) -> str:
    """`casemate audit lookup` on the host, of today."""
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    folder = str(appliance.state / "audit" / "log")
    return run_casemate("audit", "lookup", "--dir", folder, "--tenant", "default", "--day", day, *words, status=status)


@control("SC-12", "3.13.16")
def test_a_known_prompt_is_looked_up_by_the_days_root_and_by_its_escrow(
    appliance: Appliance, auditor: Auditor, home: Path
) -> None:
    """The gateway hashes as the command does, which takes the host's root or an auditor's key; each look-up is a record."""
    stay_within_a_day()
    with open_sdk(appliance) as sdk:
        prompt = [11, 12, 13, 14]
        request_id = sdk.completions.create(model="casemate-demo", prompt=prompt, max_tokens=1).id
    wait_until(lambda: len(auditor.search(request=request_id)) == 2)
    (home / "ids.json").write_text(json.dumps(prompt))
    ids = ("--token-ids", str(home / "ids.json"))
    before = len(auditor.search(kind="hash_looked_up"))
    assert request_id in look_up(appliance, *ids)
    assert request_id in look_up(appliance, *ids, "--recipient-key", str(home / "ada.key"))
    (home / "others.json").write_text("[11, 12, 13, 15]")
    assert look_up(appliance, "--token-ids", str(home / "others.json"), status=EXIT_FAILED) == ""
    # Or more: those of an earlier test may be found as late.
    wait_until(lambda: len(auditor.search(kind="hash_looked_up")) >= before + 3)


@control("AU-10")
def test_an_answer_is_asked_for_again_and_is_the_recorded_one(
    appliance: Appliance, auditor: Auditor, home: Path
) -> None:
    """With the seed of its intent, which the gateway drew, beside other requests: the same hash of the answer, and not without.

    By hand, and by `casemate audit replay`, which tells another request from it.
    """
    stay_within_a_day()
    asked = {"model": "casemate-demo", "prompt": "Once upon a time", "max_tokens": 60, "temperature": 1.5}

    def answer(sdk: openai.OpenAI, **more: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
        given = sdk.completions.create(**asked, **more)  # type: ignore[call-overload]
        wait_until(lambda: len(auditor.search(request=given.id)) == 2)
        facts = [record["unmapped"]["casemate"] for record in auditor.search(request=given.id)]
        intent, outcome = sorted(facts, key=lambda each: str(each["kind"]))
        return given.choices[0].text, intent, outcome

    with open_sdk(appliance) as sdk:
        text, intent, outcome = answer(sdk)
        others = [threading.Thread(target=answer, args=(sdk,)) for _ in range(3)]
        for other in others:
            other.start()
        again, second_intent, second = answer(sdk, seed=int(intent["parameters"]["seed"]))
        for other in others:
            other.join()
    assert again == text
    assert second["answer_hash"] == outcome["answer_hash"]
    assert second_intent["prompt_hash"] == intent["prompt_hash"]
    index = next(record["metadata"]["sequence"] for record in auditor.search(request=intent["request_uid"])
                 if record["unmapped"]["casemate"]["kind"] == "inference_intent")  # fmt: skip
    (home / "client.token").write_text(appliance.token())
    (home / "request.json").write_text(json.dumps(asked | {"stream": True}))
    words = (
        "replay",
        str(index),
        "--client-token-file",
        str(home / "client.token"),
        "--request",
        str(home / "request.json"),
    )
    said = auditor.run(*words).splitlines()
    assert said == [f"{what}: the same" for what in ("engine", "parameters", "prompt", "ended", "answer")]
    (home / "request.json").write_text(json.dumps(asked | {"prompt": "Once upon a day"}))
    said = auditor.run(*words, status=EXIT_FAILED).splitlines()
    assert "prompt: differs" in said
    assert "answer: differs" in said
    (home / "answer.txt").write_text(text)
    found = look_up(appliance, "--answer", str(home / "answer.txt"))
    assert len(found.splitlines()) >= 2, "the first answer and its repetition, and none of the others"
    assert sum(record["unmapped"]["casemate"].get("answer_hash") == outcome["answer_hash"] for record in auditor.search(
        kind="inference_outcome")) == 3  # fmt: skip


def test_an_auditor_of_another_tenant_sees_its_records_only(appliance: Appliance, auditor: Auditor, asked: str, home: Path) -> None:  # fmt: skip  # noqa: E501
    """Not those of others, not the tiles."""
    other = Auditor(appliance, home, tenant="elsewhere")
    assert other.search(request=asked) == []
    assert other.get("/audit/log/checkpoint")[0] == 403
    index = auditor.search(request=asked)[0]["metadata"]["sequence"]
    assert other.get(f"/audit/record/{index}")[0] == 404


def test_nobody_else_reads(appliance: Appliance, asked: str) -> None:
    """Not a user, whose token has no such scope."""
    user = appliance.token(appliance.create_client("plain-user"))
    connection = http.client.HTTPSConnection("127.0.0.1", appliance.gateway_port, context=appliance.client.tls)
    connection.request("GET", "/audit/log/checkpoint", headers={"Authorization": f"Bearer {user}"})
    assert connection.getresponse().status == 403
    connection.close()


@control("AU-9", "3.3.8", "SC-28")
def test_an_auditor_opens_a_sealed_prompt_and_nobody_else_does(
    appliance: Appliance, auditor: Auditor, asked: str, home: Path
) -> None:
    """By the command, with a key that was never on the appliance; it is in the log; an administrator has not even the scope."""
    records = {record["unmapped"]["casemate"]["kind"]: record for record in auditor.search(request=asked)}
    index = records["inference_intent"]["metadata"]["sequence"]
    prompt = json.loads(auditor.run("open", str(index), "--key", str(home / "ada.key")))
    assert prompt["text"] == "Hello"
    wait_until(lambda: len(auditor.search(kind="body_opened")) == 1)
    assert auditor.search(kind="body_opened")[0]["actor"]["app_uid"] == auditor.client_id
    administrator = Auditor(appliance, home, role="admin")
    assert administrator.get(f"/audit/open/{index}", {})[0] == 403
    assert auditor.get("/audit/rules")[0] == 200
    assert administrator.get("/audit/rules/propose", {"kind": "rotation", "reason": "r"})[0] == 403
    sealed = dict(contents_below(appliance.state / "bodies"))
    assert [path for path, content in sealed.items() if b"Hello" in content] == []
    assert sealed
    shares = dict(contents_below(appliance.state / "audit" / "shares"))
    kept = [json.loads(content) for path, content in shares.items() if path.suffix == ".json"]
    days = [share["day"] for share in kept if share["tenant"] == "default"]
    assert days, "nothing was sealed"
    assert len(days) == 2 * len(set(days)), "each day has a share of its bodies and a root of its keyed hashes"


def test_a_monitor_recomputes_the_root_from_the_tiles(auditor: Auditor, asked: str) -> None:
    """By a client that shares no code with us; while the log grows, the old checkpoint's tiles stay."""
    wait_until(lambda: auditor.search(kind="log_searched"), poll_s=0.5)  # Found once a checkpoint covers it.
    kept: dict[str, bytes] = {}

    def fetch(path: str) -> bytes:
        if path not in kept:
            status, kept[path] = auditor.get(f"/audit/log/{path}")
            assert status == 200, path
        return kept[path]

    entries = tile_client.walk(fetch)
    kinds = [parse_canonical(entry)["unmapped"]["casemate"]["kind"] for entry in entries]
    assert {"log_started", "inference_intent", "log_searched"} <= set(kinds)
    assert auditor.get("/audit/log/tile/0/999")[0] == auditor.get("/audit/log/tile/7/000")[0] == 404
    assert auditor.get("/audit/log/tile/0/%2e%2e/checkpoint")[0] == 404


def test_a_witness_is_satisfied_by_what_the_tile_server_serves(auditor: Auditor, asked: str, home: Path) -> None:
    """A copy made over HTTP is a folder that `audit` proves from, twice, as the log grows."""
    key = log_key(auditor.appliance)
    folder = home / "mirror"
    cosigners = open_cosigners(home / "witness", "witness.example/w", with_mldsa=False)
    witness = Witness(home / "witness", cosigners, [key], time.time)

    def cosign(known_size: int) -> int:
        mirror(auditor, folder)
        cosigned = ask_witness(LogReader(folder), key, cosigners[0].key, witness.add_checkpoint, known_size)
        assert list(verify_cosignatures(cosigned, [cosigners[0].key]))
        return tile_client.parse_head(cosigned)[1]

    size = cosign(0)
    auditor.search(limit=1)  # That is a record, and the next checkpoint covers it.
    wait_until(lambda: tile_client.parse_head(auditor.get("/audit/log/checkpoint")[1])[1] > size)
    assert cosign(size) > size
    witness.close()


def test_a_witness_is_asked_without_anybody_doing_anything(
    appliance: Appliance, auditor: Auditor, asked: str, home: Path, witness_port: int
) -> None:
    """By the courier, out of its sandbox, over the network; monitors get the cosigned checkpoint."""
    assert auditor.get("/audit/log/cosigned")[0] == 404
    key = log_key(appliance)
    cosigners = open_cosigners(home / "asked-witness", WITNESS, with_mldsa=False)
    witness = Witness(home / "asked-witness", cosigners, [key], time.time)
    server = build_server(witness, "127.0.0.1", witness_port)
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    try:
        wait_until(lambda: auditor.get("/audit/log/cosigned")[0] == 200)
        note = auditor.get("/audit/log/cosigned")[1]
        assert list(verify_cosignatures(note, [cosigners[0].key])) == [WITNESS]
        assert tile_client.parse_head(note)[1] > 0
    finally:
        server.shutdown()
        serving.join()
        server.server_close()
        # The courier asks every second; an answer in progress needs the witness's files, and ends this process without them.
        wait_until(lambda: not any("process_request_thread" in one.name for one in threading.enumerate()))
        witness.close()


def test_the_reader_may_be_killed_and_comes_back_with_its_index(appliance: Appliance, auditor: Auditor, asked: str) -> None:  # fmt: skip  # noqa: E501
    """Meanwhile 503 for readers; health stays; a removed index is built again."""
    os.kill(appliance.pids()["reader/0"], signal.SIGKILL)
    assert appliance.status("/health") == 200
    wait_until(lambda: auditor.get("/audit/log/checkpoint")[0] == 200)
    for path in (appliance.state / "reader").glob("index.sqlite*"):
        path.unlink(missing_ok=True)  # A journal goes by itself.
    os.kill(appliance.pids()["reader/0"], signal.SIGKILL)
    wait_until(lambda: auditor.get("/audit/log/checkpoint")[0] == 200)
    wait_until(lambda: len(auditor.search(request=asked)) == 2)
    wait_until(lambda: restarted(auditor) == {"reader"})


def restarted(auditor: Auditor) -> set[str]:
    """The roles that the log says were started again; the supervisor's record of it follows the restart."""
    records = auditor.search(kind="process_restarted", limit=5)
    return {record["unmapped"]["casemate"]["role"] for record in records}


def test_reader_and_courier_are_confined(appliance: Appliance) -> None:
    """What of their sandboxes was applied; what each may touch is a table with tests of its own."""
    if not probe_platform().landlock_abi:
        pytest.skip("this system has no Landlock")
    lines = [line for line in appliance.log_file.read_text().splitlines() if '"event": "confined"' in line]
    for role in ("reader", "courier"):
        own = [line for line in lines if f'"{role}"' in line]
        assert own
        assert all('"failed": []' in line for line in own)


def log_key(appliance: Appliance) -> VerifierKey:
    return parse_verifier_key((appliance.state / "audit" / "log.vkey").read_text().strip())


def mirror(auditor: Auditor, folder: Path) -> None:
    """Copy the log over HTTP."""

    def fetch(path: str) -> bytes:
        target = folder / path
        if path != "checkpoint" and target.is_file():
            return target.read_bytes()
        if path == "checkpoint" and path in fetched:
            return fetched[path]
        status, data = auditor.get(f"/audit/log/{path}")
        assert status == 200
        fetched[path] = data
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        return data

    fetched: dict[str, bytes] = {}
    tile_client.walk(fetch)
