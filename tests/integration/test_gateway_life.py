"""The life of a request: the order of its steps, its records and its quota, and clients that leave."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from appliance.gateway.exchange import Exchange
from appliance.gateway.peers.policy import PolicyPeer
from appliance.messages.engine import StepTokens, Submit
from runtime.request import RequestSummary
from tests.support.controls import control
from tests.support.gateway import TOKEN, Gateway, running_gateway
from tests.support.gateway_peers import MemoryLink, Reply
from tests.support.model_folders import MODEL
from tests.support.streams import BEARER, JSON, Stream, last_error, outcome, post, settled, unread_stream
from tests.support.waiting import until
from tests.support.wire import exchange

LONG = Reply([97] * 400, delay_s=0.005)


@pytest.fixture
async def gateway(folder: Path) -> AsyncIterator[Gateway]:
    async with running_gateway(
        folder, send_timeout_s=0.3, send_buffer_bytes=8192, max_unread_tokens=2000, peer_timeout_s=2.0
    ) as running:
        yield running


@control("3.3.1", "3.13.2", "AU-10", "AU-12", "A.6.2.8", "Article 12(1)")
@pytest.mark.parametrize("keeps_back", [True, False])
async def test_nothing_is_answered_before_the_intent_is_durable(gateway: Gateway, keeps_back: bool) -> None:
    """The engine has the request meanwhile; even one that kept nothing back would not make the gateway say a word."""
    gateway.says("too soon")
    gateway.engine.keeps_back = keeps_back
    gateway.auditor.holds_intents.clear()
    stream = await Stream.open(gateway)
    await until(lambda: bool(gateway.engine.submits))
    if not keeps_back:
        await until(lambda: gateway.engine.num_sent > 3)
    await asyncio.sleep(0.1)
    assert not stream.reader._buffer  # type: ignore[attr-defined]
    gateway.auditor.holds_intents.set()
    answer = await stream.rest()
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"casemate-audit-index: 0" in answer
    assert [name for name, _ in gateway.auditor.records] == ["inference_intent", "inference_outcome"]


async def test_what_was_kept_back_leaves_in_its_order_as_far_as_the_quota_reaches(gateway: Gateway) -> None:
    """The log's disk was slow: forty tokens come at once, and blocks of eight of the quota; then only twenty are left."""
    gateway.says("the quick brown fox jumps over the lazy dog")
    gateway.engine.is_burst = True
    response = await post(gateway, stream=False)
    assert (
        json.loads(response.body)["choices"][0]["message"]["content"] == "the quick brown fox jumps over the lazy dog"
    )
    assert gateway.policy.num_extends >= 5
    gateway.policy.budget_tokens = 20
    stream = await Stream.open(gateway)
    received = await stream.rest()
    assert last_error(received)["code"] == "quota_exhausted"
    assert b"".join(re.findall(rb'"content":"([^"]*)"', received)) == b"the quick brown fox "
    await until(lambda: len(gateway.policy.settles) == 2)
    assert gateway.policy.settles[1].output_tokens == 20


async def test_an_intent_that_is_refused_is_withdrawn_from_the_engine(gateway: Gateway) -> None:
    """The client gets what it got when nothing was asked of the engine before; nothing is charged, and nothing is left there."""
    assert (await post(gateway)).status == 200  # Roots and keys of the day are made.
    gateway.auditor.can_append = False
    body = json.dumps({"model": MODEL, "prompt": ["a", "b"]}).encode()
    response = await exchange(gateway.port, "POST", "/v1/completions", headers=(BEARER, JSON), body=body)
    assert (response.status, json.loads(response.body)["error"]["code"]) == (503, "audit_unavailable")
    await until(lambda: len(gateway.policy.settles) == 3)
    assert gateway.engine.withdrawn == [submit.request_id for submit in gateway.engine.submits[1:]]
    assert [settle.prompt_tokens for settle in gateway.policy.settles[1:]] == [0, 0]


async def test_the_last_event_waits_for_the_outcome(gateway: Gateway) -> None:
    """The text may be read before; the end, and the outcome's index for whoever asks, come when it is durable."""
    gateway.says("hello")
    gateway.auditor.holds_outcomes.clear()
    stream = await Stream.open(gateway, headers="casemate-audit-outcome: comment\r\n")
    received = await stream.reader.readuntil(b'"finish_reason":"stop"')
    assert b"[DONE]" not in received
    await asyncio.sleep(0.1)
    gateway.auditor.holds_outcomes.set()
    received = await stream.reader.readuntil(b"data: [DONE]\n\n")
    assert b": casemate-audit-outcome 1\n" in received


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/generate"])
async def test_every_line_of_a_stream_without_names_is_data(gateway: Gateway, path: str) -> None:
    """SGLang's load generator, and other clients of a few lines, read each line that is not empty as JSON."""
    gateway.says("hello")
    body: dict[str, Any] = {"model": MODEL, "stream": True}
    body |= {"messages": [{"role": "user", "content": "hi"}]} if "chat" in path else {"prompt": "hi"}
    if path == "/generate":
        body = {"text": "hi", "stream": True}
    response = await exchange(gateway.port, "POST", path, headers=(BEARER, JSON), body=json.dumps(body).encode())
    lines = [line for line in response.body.split(b"\n") if line]
    assert lines.pop() == b"data: [DONE]"
    assert all(json.loads(line.removeprefix(b"data: ")) for line in lines)


@control(
    "3.1.12",
    "3.3.1",
    "3.3.2",
    "3.13.16",
    "AC-2(12)",
    "AC-17",
    "AC-17(1)",
    "AU-3",
    "AU-12(1)",
    "CM-12",
    "SC-28",
    "A.6.2.8",
    "Article 12(2)",
)
async def test_the_records_say_who_what_and_how(gateway: Gateway) -> None:
    """Identity from the token, parameters, counts, and hashes instead of text."""
    gateway.says("secret answer")
    gateway.engine.cached_tokens = 16
    response = await post(gateway, max_tokens=50, seed=5, user="end-user-7")
    intent, closing = (event for _, event in gateway.auditor.records)
    assert intent["actor"]["app_uid"] == "client-1"
    assert intent["actor"]["session"] == {"issuer": "https://issuer", "uid": "jti-1"}
    assert intent["metadata"]["tenant_uid"] == "acme"
    assert intent["api"]["request"]["uid"] == json.loads(response.body)["id"]
    own = intent["unmapped"]["casemate"]
    assert (own["parameters"]["seed"], own["parameters"]["user"], own["token_limit"]) == (5, "end-user-7", 50)
    assert closing["status_code"] == "stop"
    assert closing["message_context"]["completion_tokens"] == len("secret answer") + 1
    assert closing["unmapped"]["casemate"]["cached_tokens"] == 16
    assert closing["unmapped"]["casemate"]["intent_index"] == 0
    assert "secret" not in json.dumps(gateway.auditor.records)


@control("3.13.4", "SC-4")
async def test_tenants_have_namespaces_of_their_own(gateway: Gateway) -> None:
    """The engine's prefix cache is told apart by tenant, under a keyed hash."""
    await post(gateway)
    gateway.tokens.good[TOKEN] = replace(gateway.tokens.good[TOKEN], tenant="other")
    await post(gateway)
    first, second = (submit.namespace for submit in gateway.engine.submits)
    assert first != second
    assert len(first) == len(second) == 32


async def test_blocks_of_quota_are_extended_and_settled_exactly(gateway: Gateway) -> None:
    """An answer longer than its first block asks for more before it runs dry, and settles what it used."""
    gateway.says("x" * 50)
    assert (await post(gateway, max_tokens=100)).status == 200
    assert gateway.policy.num_extends >= 6
    await settled(gateway)
    (settle,) = gateway.policy.settles
    assert settle.output_tokens == 51


@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
async def test_the_quota_is_settled_before_the_client_hears_of_the_end(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, *, is_streamed: bool
) -> None:
    """Else its next request, by another worker, may find the one that just ended still open."""
    happened: list[str] = []

    def note(name: str, target: type, method: str) -> None:
        original = getattr(target, method)

        def noting(*arguments: Any, **options: Any) -> Any:
            happened.append(name)
            return original(*arguments, **options)

        monkeypatch.setattr(target, method, noting)

    note("settled", PolicyPeer, "settle")
    note("end", Exchange, "end_stream" if is_streamed else "respond")
    assert (await post(gateway, stream=is_streamed)).status == 200
    await settled(gateway)
    assert happened == ["settled", "end"]
    assert len(gateway.policy.settles) == 1


async def test_a_refused_block_ends_the_stream_with_its_own_code(gateway: Gateway) -> None:
    """What was covered is delivered, nothing beyond; outcome and settlement say how much."""
    gateway.engine.reply = lambda submit, choice: LONG
    gateway.policy.budget_tokens = 20
    stream = await Stream.open(gateway)
    received = await stream.rest()
    assert last_error(received)["code"] == "quota_exhausted"
    assert received.count(b'"content":"a"') == 20
    await settled(gateway)
    assert outcome(gateway)["status_code"] == "quota_exhausted"
    assert gateway.policy.settles[0].output_tokens == 20


async def test_a_client_that_leaves_ends_its_request(gateway: Gateway) -> None:
    """The engine is told at once, the outcome says so, the quota is settled at what was delivered."""
    gateway.engine.reply = lambda submit, choice: LONG
    stream = await Stream.open(gateway)
    await stream.first()
    stream.writer.transport.abort()
    await settled(gateway)
    assert gateway.engine.cancels[0].choice == 0
    assert outcome(gateway)["status_code"] == "client_disconnected"
    assert gateway.policy.settles[0].output_tokens < 400
    assert gateway.policy.settles[0].output_tokens == gateway.engine.cancels[0].keep_tokens


async def test_nothing_is_said_between_the_pieces_of_an_answer(gateway: Gateway) -> None:
    """RFC 9112 section 9.3.2: what is no request, behind one that is being answered, ends the connection without a word."""
    gateway.engine.reply = lambda submit, choice: LONG
    stream = await Stream.open(gateway)
    await stream.first()
    stream.writer.write(b"nonsense\r\n\r\n")
    assert b"invalid_http" not in await stream.reader.read(-1)
    await settled(gateway)
    assert outcome(gateway)["status_code"] == "client_disconnected"


async def test_a_line_behind_a_request_does_not_cut_its_answer(folder: Path) -> None:
    """Some clients send one behind a body (RFC 9112 section 2.2). The time that headers may take does not run while another
    request is answered.
    """
    async with running_gateway(folder, header_timeout_s=0.2) as gateway:
        gateway.engine.reply = lambda submit, choice: Reply([97] * 100, delay_s=0.01)
        stream = await Stream.open(gateway)
        await stream.first()
        stream.writer.write(b"\r\n")
        assert (await stream.reader.read(-1)).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


async def test_a_client_that_leaves_before_the_first_token_ends_its_request(gateway: Gateway) -> None:
    """Nothing was sent yet, and still the engine need not finish for nobody."""
    gateway.engine.reply = lambda submit, choice: Reply([97], finish=None)
    stream = await Stream.open(gateway)
    await until(lambda: bool(gateway.engine.submits))
    stream.writer.transport.abort()
    await settled(gateway)
    assert outcome(gateway)["status_code"] == "client_disconnected"


async def test_a_client_that_leaves_before_its_prompt_was_delivered_has_the_engines_counts(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the cache held is then in the engine's summary only, and the records of both sides agree."""

    async def serve(link: MemoryLink, submit: Submit) -> None:
        await until(lambda: bool(gateway.engine.cancels))
        link.send(StepTokens([], [], [RequestSummary(submit.request_id, len(submit.prompt) // 4, 16, 0, 0)]))

    monkeypatch.setattr(gateway.engine, "_serve", serve)
    stream = await Stream.open(gateway)
    await until(lambda: bool(gateway.engine.submits))
    stream.writer.transport.abort()
    await settled(gateway)
    assert outcome(gateway)["unmapped"]["casemate"]["cached_tokens"] == 16


async def test_a_client_that_leaves_while_its_intent_is_recorded_leaves_no_orphan(gateway: Gateway) -> None:
    """The intent that becomes durable afterwards still gets its outcome, and the engine is told to stop."""
    gateway.auditor.holds_intents.clear()
    stream = await Stream.open(gateway)
    await until(lambda: bool(gateway.policy.reserves))
    stream.writer.transport.abort()
    await asyncio.sleep(0.05)
    gateway.auditor.holds_intents.set()
    await settled(gateway)
    assert outcome(gateway)["status_code"] == "client_disconnected"
    assert gateway.engine.cancels
    assert not gateway.engine.withdrawn
    assert gateway.policy.settles[0].prompt_tokens == len(gateway.engine.submits[0].prompt) // 4


async def test_a_client_that_does_not_read_loses_its_own_answer_only(gateway: Gateway) -> None:
    """Buffers are bounded and time is: it is cut off as stalled while another is served."""
    gateway.engine.reply = lambda submit, choice: Reply([97] * 440, per_step=20, finish=None)
    async with unread_stream(gateway):
        await settled(gateway)
        assert outcome(gateway)["status_code"] == "client_stalled"
        gateway.says("fine")
        assert (await post(gateway)).status == 200


async def test_a_client_far_behind_is_cut_off_by_count(folder: Path) -> None:
    """However long it may stay silent, no more than so many tokens wait for it."""
    async with running_gateway(folder, send_timeout_s=60.0, send_buffer_bytes=8192, max_unread_tokens=100) as gateway:
        gateway.engine.reply = lambda submit, choice: Reply([97] * 440, delay_s=0.002)
        async with unread_stream(gateway):
            await settled(gateway)
            assert outcome(gateway)["status_code"] == "client_stalled"
