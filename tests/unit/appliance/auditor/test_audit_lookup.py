"""Looking a known text up by its keyed hash: found where it was said, nowhere else, and the look-up is left for the log."""

import base64
import hashlib
import json
import os
import struct
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from appliance.cli.main import main
from appliance.supervisor.notices import encode_notice
from audit.append import LogWriter
from audit.changes import change_event
from audit.entry import complete_entry, encode_event, parse_canonical
from audit.events import Call, Caller, TokenCounts, intent_event, outcome_event
from audit.keyed_hash import ROOT_LABEL, KeyedHasher, day_of, root_context
from audit.permissions import kind_of, verify_permitted
from audit.sealing import wrap_share
from audit.shares import SHARES, Destroyed, ShareStore
from security.stewards.outbox import Outbox
from tests.support.controls import control

DAY_MS = 86_400_000
NOON_MS = 1_795_608_000_000  # 2026-11-25T12:00:00Z
AUDITOR = X25519PrivateKey.generate()
PROMPT = struct.pack("<3I", 5, 6, 7)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """An installation: two tenants were given the same answer on the same day, one of them the day before as well."""
    (tmp_path / "audit").mkdir()
    store = ShareStore(tmp_path / "audit" / SHARES)
    writer = LogWriter(tmp_path / "audit" / "log", tmp_path / "audit" / "log.key", origin="log.example/lookup")
    for number, (tenant, time_ms) in enumerate([("a", NOON_MS - DAY_MS), ("a", NOON_MS), ("b", NOON_MS)]):
        caller = Caller(
            client_id="c", subject="ada", tenant=tenant, role="user", token_issuer="i", token_key_id="k", token_id="j",
            address="10.0.0.1", port=1,
        )  # fmt: skip
        call = Call(request_uid=f"req-{number}", trace_id="", route="/generate", model="m", engine_build="b")
        context, root = root_context(tenant, day_of(time_ms)), os.urandom(32)
        store.keep(context, wrap_share(root, [AUDITOR.public_key()], context, ROOT_LABEL), root)
        hasher = KeyedHasher(root, context)
        asked, answered = hasher.hash("prompt", PROMPT), hasher.hash("answer", b"forty-two")
        events = [
            intent_event(
                caller, call, parameters={}, prompt_hash=asked.value, prompt_key_id=asked.key_id, prompt_tokens=3, token_limit=1,
                reservation=1,
            ),
            outcome_event(
                caller, call, intent_index=0, reason="stop", is_success=True,
                counts=TokenCounts(prompt_tokens=3, cached_tokens=0, output_tokens=1), answer_hash=answered.value,
                answer_key_id=answered.key_id, http_status=200, first_token_ms=1, total_ms=1,
            ),
        ]  # fmt: skip
        for event in events:
            entry = complete_entry(
                parse_canonical(encode_event(event)), index=writer.next_index, time_ms=time_ms, reporter="gateway/0",
                log_name="log.example/lookup", random=bytes(16),
            )  # fmt: skip
            writer.append([entry])
    writer.commit()
    writer.publish()
    writer.close()
    (tmp_path / "answer.txt").write_text("forty-two")
    (tmp_path / "ids.json").write_text("[5, 6, 7]")
    return tmp_path


def look_up(state: Path, *words: object) -> int:
    return main(["audit", "lookup", "--dir", str(state / "audit" / "log"), *map(str, words)])


def test_an_answer_is_found_where_it_was_given(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """To this tenant on this day; the other tenant's record of the same text is another hash."""
    assert look_up(state, "--tenant", "a", "--day", "2026-11-25", "--answer", state / "answer.txt") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.split()[2] == "inference_outcome"
    assert line.endswith("req-1")
    assert look_up(state, "--tenant", "a", "--day", "2026-11-24", "--answer", state / "answer.txt") == 0
    assert capsys.readouterr().out.strip().endswith("req-0")
    (state / "answer.txt").write_text("forty-three")
    assert look_up(state, "--tenant", "a", "--day", "2026-11-25", "--answer", state / "answer.txt") == 1


def test_a_prompt_is_found_by_its_token_ids(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As the gateway hashed them."""
    assert look_up(state, "--tenant", "b", "--day", "2026-11-25", "--token-ids", state / "ids.json") == 0
    assert capsys.readouterr().out.split()[2] == "inference_intent"
    (state / "ids.json").write_text('["x"]')
    assert look_up(state, "--tenant", "b", "--day", "2026-11-25", "--token-ids", state / "ids.json") == 2
    assert look_up(state, "--tenant", "b", "--day", "yesterday", "--answer", state / "answer.txt") == 2


def test_every_look_up_is_left_for_the_log(state: Path) -> None:
    """Whether it finds anything or not: who, what hash, of whom; never the text."""
    look_up(state, "--tenant", "a", "--day", "2026-11-24", "--answer", state / "answer.txt")
    ((path, notice),) = Outbox(state / "outbox").waiting()
    assert notice.kind == "hash_looked_up"
    assert (notice.facts["tenant"], notice.facts["purpose"]) == ("a", "answer")
    assert "forty" not in path.read_text()
    assert hashlib.sha256(b"forty-two").hexdigest() not in path.read_text()
    event = parse_canonical(encode_notice(notice) or b"")
    assert kind_of(event) == "hash_looked_up"
    verify_permitted("supervisor", "event", event)
    assert json.dumps(event["unmapped"]).count(notice.name) + json.dumps(event["entity"]).count(notice.name) >= 1


def test_without_the_outbox_nothing_is_looked_up(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be recorded is not done."""
    (state / "outbox").write_text("in the way")
    assert look_up(state, "--tenant", "a", "--day", "2026-11-25", "--answer", state / "answer.txt") != 0
    assert "req-1" not in capsys.readouterr().out


@control("3.8.3", "SC-12")
def test_after_its_root_is_destroyed_no_look_up_of_a_day_is_possible(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither by the host's root nor by the escrow, and nothing is left of either; the other tenant and the day before go on."""
    store, context = ShareStore(state / "audit" / SHARES), root_context("a", "2026-11-25")
    kept = store.load(context.day, context.key_id)
    assert look_up(state, "--tenant", "a", "--day", context.day, "--answer", state / "answer.txt") == 0
    store.destroy(Destroyed(context.day, (context.key_id,)))
    capsys.readouterr()
    assert look_up(state, "--tenant", "a", "--day", context.day, "--answer", state / "answer.txt") != 0
    shown = capsys.readouterr()
    assert "destroyed" in shown.err
    assert shown.out == ""
    left = b"".join(path.read_bytes() for path in state.rglob("*") if path.is_file())
    assert base64.b64encode(kept.share) not in left
    assert kept.share not in left
    assert look_up(state, "--tenant", "a", "--day", "2026-11-24", "--answer", state / "answer.txt") == 0
    assert look_up(state, "--tenant", "b", "--day", context.day, "--answer", state / "answer.txt") == 0


@control("AU-10")
def test_a_look_up_says_that_part_of_the_day_was_hashed_under_another_root(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Shares that were put back from before that day: finding nothing is no word that nothing was asked."""
    context = root_context("a", "2026-11-25")
    writer = LogWriter(state / "audit" / "log", state / "audit" / "log.key", origin="log.example/lookup")
    for number in range(2):
        event = change_event(
            "hash_root_kept", entity_type="keyed hash root", entity_uid=context.key_id, actor="gateway/0", after={}
        )
        entry = complete_entry(
            parse_canonical(encode_event(event)), index=writer.next_index, time_ms=NOON_MS, reporter="auditor/0",
            log_name="log.example/lookup", random=bytes(16),
        )  # fmt: skip
        writer.append([entry])
        writer.commit()
        writer.publish()
        look_up(state, "--tenant", "a", "--day", context.day, "--answer", state / "answer.txt")
        assert ("2 roots were made" in capsys.readouterr().err) is (number == 1)
    writer.close()


def test_an_auditor_looks_up_by_the_escrow(state: Path, tmp_path: Path) -> None:
    """With a private key of theirs, from a copy whose roots are gone; another's key opens nothing."""
    store, context = ShareStore(state / "audit" / SHARES), root_context("a", "2026-11-25")
    (path,) = state.glob(f"audit/shares/{context.day}/{context.key_id}.json")
    kept = json.loads(path.read_bytes())
    path.write_text(json.dumps(kept | {"share": base64.b64encode(bytes(32)).decode()}))
    assert store.load(context.day, context.key_id).share == bytes(32)
    words = ("--tenant", "a", "--day", context.day, "--answer", state / "answer.txt")
    assert look_up(state, *words) == 1
    for name, key, status in (("ada.key", AUDITOR, 0), ("eve.key", X25519PrivateKey.generate(), 1)):
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (tmp_path / name).write_bytes(pem)
        assert (look_up(state, *words, "--recipient-key", tmp_path / name) == 0) == (status == 0)
