"""Sealed bodies through the gateway: what policy keeps is sealed and recorded, opened by an auditor's key, and by nothing else."""

import base64
import hashlib
import json
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from appliance.cli.audit.bodies import open_answer
from appliance.gateway.flow.bodies import BodyPolicy
from appliance.messages.stewardship import BodiesDestroyed, DecideChange, ProposeChange
from audit.errors import BodyRejected
from audit.keyed_hash import ROOT_LABEL, KeyedHasher, root_context
from audit.sealing import unwrap_share
from tests.support.controls import control
from tests.support.gateway import TOKEN, Gateway, principal, running_gateway
from tests.support.waiting import stay_within_a_day, until
from tests.support.wire import Response, exchange

AUDITOR = X25519PrivateKey.generate()

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def bodies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bodies") / "bodies"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(folder: Path, bodies: Path) -> AsyncIterator[Gateway]:
    stay_within_a_day()  # Each has a file and a key of its own.
    policy = BodyPolicy(frozenset({"acme"}), [AUDITOR.public_key()], bodies)
    async with running_gateway(folder, bodies=policy) as running:
        running.tokens.good["elsewhere"] = principal("client-3", tenant="elsewhere")
        person = msgspec.structs.replace(principal("console"), subject="user-ada", role="auditor")
        running.tokens.good["ada"] = person
        running.tokens.good["rudi"] = msgspec.structs.replace(person, subject="user-rudi", role="admin")
        running.tokens.good["delegated"] = msgspec.structs.replace(person, acting_client="a-service")
        running.tokens.good["another-program"] = msgspec.structs.replace(person, is_registered=False, is_program=True)
        yield running


async def post(gateway: Gateway, path: str, body: object = None, token: str = TOKEN) -> Response:
    headers = (f"Authorization: Bearer {token}", "Content-Type: application/json")
    data = b"" if body is None else json.dumps(body).encode()
    return await exchange(gateway.port, "POST", path, headers=headers, body=data)


async def ask(gateway: Gateway, prompt: Any, token: str = TOKEN, **more: Any) -> Response:
    return await post(gateway, "/v1/completions", {"model": gateway.model.name, "prompt": prompt, **more}, token)


def sealed_files(bodies: Path) -> list[Path]:
    return list(bodies.glob("*/*.sealed"))


def num_bytes(bodies: Path) -> int:
    return sum(path.stat().st_size for path in sealed_files(bodies))


def opened(answer: Response) -> Any:
    assert answer.status == 200, answer.body
    return json.loads(open_answer(json.loads(answer.body), AUDITOR))


@control("AU-9", "3.3.8", "SC-28")
async def test_prompt_and_answer_are_sealed_and_an_auditor_opens_them(gateway: Gateway, bodies: Path) -> None:
    """Nothing readable lies on the disk or in the records; the records name the ciphertexts by digest."""
    gateway.says("the answer is sealed")
    answer = await ask(gateway, "what may nobody read?", max_tokens=64)
    intent, outcome = (int(answer.headers[name]) for name in ("casemate-audit-index", "casemate-audit-outcome"))
    prompt = opened(await post(gateway, f"/audit/open/{intent}"))
    assert prompt == {"text": "what may nobody read?", "token_ids": list(b"what may nobody read?")}
    assert opened(await post(gateway, f"/audit/open/{outcome}")) == {"texts": ["the answer is sealed"]}
    files = sealed_files(bodies)
    assert len(files) == 1
    data = files[0].read_bytes()
    assert b"nobody" not in data
    assert b"sealed" not in data
    assert files[0].stat().st_mode & 0o077 == 0
    for index, member in ((intent, "prompt_body"), (outcome, "answer_body")):
        event = gateway.auditor.records[index][1]
        assert "nobody" not in json.dumps(event)
        body = event["unmapped"]["casemate"][member]
        part = data[body["offset"] : body["offset"] + body["length"]]
        assert hashlib.sha256(part).hexdigest() == body["sha256"]


async def test_one_key_serves_a_tenant_and_day(gateway: Gateway) -> None:
    """Several prompts at once, several choices: each body by itself under the one key."""
    gateway.says("x")
    before = len(gateway.auditor.body_keys)
    answer = await ask(gateway, ["first prompt", "second"], n=2)
    intents = [int(index) for index in answer.headers["casemate-audit-index"].split(",")]
    outcomes = [int(index) for index in answer.headers["casemate-audit-outcome"].split(",")]
    texts = [opened(await post(gateway, f"/audit/open/{index}"))["text"] for index in intents]
    assert texts == ["first prompt", "second"]
    assert opened(await post(gateway, f"/audit/open/{outcomes[1]}")) == {"texts": ["x", "x"]}
    assert len(gateway.auditor.body_keys) == max(before, 1)


async def test_tenants_that_policy_does_not_name_are_not_kept(gateway: Gateway, bodies: Path) -> None:
    """Nothing of them is written, and their records name no body."""
    size = num_bytes(bodies)
    answer = await ask(gateway, "ours", token="elsewhere")
    event = gateway.auditor.records[int(answer.headers["casemate-audit-index"])][1]
    assert "prompt_body" not in event["unmapped"]["casemate"]
    assert num_bytes(bodies) == size


async def test_another_key_or_a_changed_ciphertext_opens_nothing(gateway: Gateway, bodies: Path) -> None:
    """The gateway gives nothing that is not what the record names; another auditor's key does not open it."""
    answer = await ask(gateway, "secret")
    intent = answer.headers["casemate-audit-index"]
    given = json.loads((await post(gateway, f"/audit/open/{intent}")).body)
    with pytest.raises(BodyRejected):
        open_answer(given, X25519PrivateKey.generate())
    with pytest.raises(BodyRejected):
        open_answer(given | {"share": "B" + given["share"][1:]}, AUDITOR)
    (file,) = sealed_files(bodies)
    data = file.read_bytes()
    body = gateway.auditor.records[int(intent)][1]["unmapped"]["casemate"]["prompt_body"]
    changed = bytearray(data)
    changed[body["offset"] + 20] ^= 1
    file.write_bytes(changed)
    try:
        assert (await post(gateway, f"/audit/open/{intent}")).status == 404
    finally:
        file.write_bytes(data)
    forged = bytearray(base64.b64decode(given["ciphertext"]))
    forged[20] ^= 1
    with pytest.raises(BodyRejected):
        open_answer(given | {"ciphertext": base64.b64encode(forged).decode()}, AUDITOR)


async def test_what_cannot_be_kept_is_not_answered(folder: Path, tmp_path: Path) -> None:
    """A place that cannot be written, an auditor that keeps no key: 503, and no token leaves."""
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder should be")
    policy = BodyPolicy(frozenset({"*"}), [AUDITOR.public_key()], blocked)
    async with running_gateway(folder, bodies=policy) as gateway:
        answer = await ask(gateway, "a")
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (503, "bodies_unavailable")
        assert gateway.engine.submits == []
        gateway.auditor.can_append = False
        refused = await ask(gateway, "a", token="other-client")
        assert refused.status == 503
        assert gateway.engine.submits == []


async def test_an_answer_that_can_no_longer_be_kept_is_said_to_be_missing(folder: Path, tmp_path: Path) -> None:
    """It was given already; its record says so in place of a digest."""
    policy = BodyPolicy(frozenset({"*"}), [AUDITOR.public_key()], tmp_path / "kept")
    async with running_gateway(folder, bodies=policy) as gateway:
        gateway.says("late")
        reply = gateway.engine.reply

        def blocking(submit: Any, choice: int) -> Any:
            for path in (tmp_path / "kept").glob("*/*.sealed"):
                path.unlink()
                path.mkdir()
            return reply(submit, choice)

        gateway.engine.reply = blocking
        answer = await ask(gateway, "a")
        assert answer.status == 200
        own = gateway.auditor.records[int(answer.headers["casemate-audit-outcome"])][1]["unmapped"]["casemate"]
        assert set(own["answer_body"]) == {"missing"}


async def test_destroyed_bodies_are_removed(gateway: Gateway, bodies: Path) -> None:
    """When the auditor says that their keys are gone."""
    await ask(gateway, "soon gone")
    (file,) = sealed_files(bodies)
    assert gateway.auditor.link is not None
    gateway.auditor.link.send(BodiesDestroyed(file.parent.name, [file.stem]))
    await until(lambda: not file.parent.exists())


@control("AU-9(4)")
async def test_people_of_both_roles_decide_and_programs_do_not(gateway: Gateway) -> None:
    """The auditor is told who, and in which role, by the token alone."""
    change = {"kind": "hold", "from_day": "2026-11-01", "to_day": "2026-11-30", "reason": "a case"}
    for token in (TOKEN, "delegated", "another-program"):
        for path in ("/audit/rules/propose", "/audit/rules/confirm/change-1", "/audit/rules/refuse/change-1"):
            answer = await post(gateway, path, change if path.endswith("propose") else None, token)
            assert (answer.status, json.loads(answer.body)["error"]["code"]) == (403, "needs_a_person")
    assert gateway.auditor.governed == []
    assert json.loads((await post(gateway, "/audit/rules/propose", change, "ada")).body)["changed"] == "change-1"
    assert (await post(gateway, "/audit/rules/confirm/change-1", None, "rudi")).status == 200
    proposed, confirmed = gateway.auditor.governed
    assert isinstance(proposed, ProposeChange)
    assert (proposed.by.subject, proposed.role, proposed.kind) == ("user-ada", "auditor", "hold")
    assert isinstance(confirmed, DecideChange)
    assert (confirmed.by.subject, confirmed.role, confirmed.confirms) == ("user-rudi", "admin", True)


@control("SC-12", "3.13.16")
async def test_each_tenants_day_has_a_root_of_its_own_that_an_auditors_key_opens(gateway: Gateway) -> None:
    """Records are hashed under the root that the auditor process keeps; its escrow opens for the auditors."""
    for token in (TOKEN, "elsewhere"):
        assert (await ask(gateway, [97, 98, 99], token, max_tokens=4)).status == 200
    records = gateway.auditor.of_kind("inference_intent")[-2:]
    values = []
    for tenant, record in zip(("acme", "elsewhere"), records, strict=True):
        own = record["unmapped"]["casemate"]
        day = own["prompt_key_id"].split("/")[1]
        kept, context = gateway.auditor.hash_roots[tenant, day], root_context(tenant, day)
        assert unwrap_share(kept.escrow, AUDITOR, context, ROOT_LABEL) == kept.root
        with pytest.raises(BodyRejected):
            unwrap_share(kept.escrow, AUDITOR, context)  # An escrow of a root is none of a share.
        hashed = KeyedHasher(kept.root, context).hash("prompt", struct.pack("<3I", 97, 98, 99))
        assert (own["prompt_hash"], own["prompt_key_id"]) == (hashed.value, hashed.key_id)
        values.append(hashed.value)
    assert values[0] != values[1]
