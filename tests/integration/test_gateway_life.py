"""The life of a request when something goes wrong: order, records and quota hold whoever leaves."""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from appliance.messages.engine import RequestRefused
from runtime.request import Finish
from tests.support.gateway import MODEL, TOKEN, Gateway, Reply, running_gateway, until, write_byte_level_model
from tests.support.wire import Response, exchange, parse

BEARER = f"Authorization: Bearer {TOKEN}"
JSON = "Content-Type: application/json"
LONG = Reply([97] * 400, delay_s=0.005)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_byte_level_model(tmp_path_factory.mktemp("life-model"))


@pytest.fixture
async def gateway(folder: Path) -> AsyncIterator[Gateway]:
    async with running_gateway(
        folder, send_timeout_s=0.3, send_buffer_bytes=8192, max_unread_tokens=2000, peer_timeout_s=2.0
    ) as running:
        yield running


def body_of(**changes: Any) -> bytes:
    return json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "hi"}], **changes}).encode()


async def post(gateway: Gateway, **changes: Any) -> Response:
    path = "/v1/chat/completions"
    return await exchange(gateway.port, "POST", path, headers=(BEARER, JSON), body=body_of(**changes))


class Stream:
    """A streamed request that is read event by event."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, gateway: Gateway, **changes: Any) -> "Stream":
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, limit=1 << 20)
        body = body_of(stream=True, **changes)
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n{BEARER}\r\n{JSON}\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        gateway.clients.append(writer)
        return cls(reader, writer)

    async def first(self) -> bytes:
        return await self.reader.readuntil(b"data: ")

    async def rest(self, timeout_s: float = 3.0) -> bytes:
        async with asyncio.timeout(timeout_s):
            try:
                return await self.reader.readuntil(b"\r\n0\r\n\r\n")
            except asyncio.IncompleteReadError as ended:
                return ended.partial


def last_error(received: bytes) -> dict[str, Any]:
    events = [line for line in received.split(b"\n") if b'data: {"error"' in line]
    assert b"[DONE]" not in received
    error: dict[str, Any] = json.loads(events[-1].partition(b"data: ")[2])["error"]
    return error


def outcome(gateway: Gateway) -> dict[str, Any]:
    (event,) = gateway.auditor.of_kind("inference_outcome")
    return event


async def settled(gateway: Gateway) -> None:
    await until(lambda: bool(gateway.policy.settles) and not gateway.worker.desk.num_open)


async def test_nothing_is_submitted_before_the_intent_is_durable(gateway: Gateway) -> None:
    """The engine hears of a request only when the auditor has answered."""
    gateway.auditor.holds_intents.clear()
    asking = asyncio.create_task(post(gateway))
    await asyncio.sleep(0.1)
    assert not gateway.engine.submits
    assert len(gateway.policy.reserves) == 1
    gateway.auditor.holds_intents.set()
    assert (await asking).status == 200
    assert [name for name, _ in gateway.auditor.records] == ["inference_intent", "inference_outcome"]


async def test_the_last_event_waits_for_the_outcome(gateway: Gateway) -> None:
    """The text may be read before; the end and the outcome's index come when it is durable."""
    gateway.says("hello")
    gateway.auditor.holds_outcomes.clear()
    stream = await Stream.open(gateway)
    received = await stream.reader.readuntil(b'"finish_reason":"stop"')
    assert b"[DONE]" not in received
    await asyncio.sleep(0.1)
    gateway.auditor.holds_outcomes.set()
    received = await stream.reader.readuntil(b"data: [DONE]\n\n")
    assert b": casemate-audit-outcome 1\n" in received


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


async def test_tenants_have_namespaces_of_their_own(gateway: Gateway) -> None:
    """The engine's prefix cache is told apart by tenant, under a keyed hash."""
    await post(gateway)
    gateway.tokens.good[TOKEN] = gateway.tokens.good[TOKEN].__class__(
        **{**vars(gateway.tokens.good[TOKEN]), "tenant": "other"}
    )
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


async def test_a_client_that_leaves_before_the_first_token_ends_its_request(gateway: Gateway) -> None:
    """Nothing was sent yet, and still the engine need not finish for nobody."""
    gateway.engine.reply = lambda submit, choice: Reply([97], finish=None)
    stream = await Stream.open(gateway)
    await until(lambda: bool(gateway.engine.submits))
    stream.writer.transport.abort()
    await settled(gateway)
    assert outcome(gateway)["status_code"] == "client_disconnected"


async def test_a_client_that_leaves_while_its_intent_is_recorded_leaves_no_orphan(gateway: Gateway) -> None:
    """The intent that becomes durable afterwards still gets its outcome, and the engine is never asked."""
    gateway.auditor.holds_intents.clear()
    stream = await Stream.open(gateway)
    await until(lambda: bool(gateway.policy.reserves))
    stream.writer.transport.abort()
    await asyncio.sleep(0.05)
    gateway.auditor.holds_intents.set()
    await settled(gateway)
    assert outcome(gateway)["status_code"] == "client_disconnected"
    assert not gateway.engine.submits
    assert gateway.policy.settles[0].prompt_tokens == 0


@contextlib.asynccontextmanager
async def unread_stream(gateway: Gateway) -> AsyncIterator[None]:
    """A client with the smallest buffers, who asks for much and reads nothing."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_connect(sock, ("127.0.0.1", gateway.port))
        # Logprobs make each token hundreds of bytes, more than kernels take for somebody who does not read.
        body = body_of(stream=True, logprobs=True, top_logprobs=20, n=16)
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n{BEARER}\r\n{JSON}\r\nContent-Length: {len(body)}\r\n\r\n"
        await loop.sock_sendall(sock, head.encode() + body)
        yield
    finally:
        sock.close()


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


async def test_auditor_lost_cuts_every_stream_within_a_second(gateway: Gateway) -> None:
    """Nothing is answered that cannot be recorded; new requests are refused; both go on when it is back."""
    gateway.engine.reply = lambda submit, choice: Reply([97] * 400, delay_s=0.01)
    streams = [await Stream.open(gateway) for _ in range(3)]
    for stream in streams:
        await stream.first()
    assert gateway.auditor.link is not None
    gateway.auditor.link.close()
    began = time.monotonic()
    for stream in streams:
        assert last_error(await stream.rest())["code"] == "audit_unavailable"
    assert time.monotonic() - began < 1.0
    response = await post(gateway)
    assert (response.status, json.loads(response.body)["error"]["code"]) == (503, "audit_unavailable")
    assert "retry-after" in response.headers
    gateway.connect_auditor()
    await until(lambda: gateway.is_connected)
    gateway.says("back")
    assert (await post(gateway)).status == 200


async def test_auditor_lost_cuts_a_stream_that_nobody_reads(folder: Path) -> None:
    """Its connection is closed though its client takes nothing, well before the send's own time limit."""
    async with running_gateway(folder, send_timeout_s=60.0, send_buffer_bytes=8192) as gateway:
        gateway.engine.reply = lambda submit, choice: Reply([97] * 440, delay_s=0.02)
        async with unread_stream(gateway):
            await until(lambda: bool(gateway.engine.submits))
            await asyncio.sleep(0.5)
            assert gateway.auditor.link is not None
            gateway.auditor.link.close()
            began = time.monotonic()
            await until(lambda: not gateway.worker.desk.num_open)
            assert time.monotonic() - began < 1.0


async def test_disk_full_refuses_before_anything_is_computed(gateway: Gateway) -> None:
    """The auditor says that it cannot make records durable: 503, and the reservation is given back."""
    gateway.auditor.can_append = False
    response = await post(gateway)
    assert response.status == 503
    assert "disk full" in json.loads(response.body)["error"]["message"]
    await settled(gateway)
    assert not gateway.engine.submits
    assert (gateway.policy.settles[0].prompt_tokens, gateway.policy.settles[0].output_tokens) == (0, 0)


async def test_outcome_that_cannot_be_recorded_is_an_error(gateway: Gateway) -> None:
    """A stream whose outcome is not durable does not end as if all were well."""
    gateway.says("hello")
    gateway.auditor.holds_outcomes.clear()
    stream = await Stream.open(gateway)
    await stream.reader.readuntil(b'"finish_reason":"stop"')
    assert gateway.auditor.link is not None
    gateway.auditor.link.close()
    assert last_error(await stream.rest())["code"] == "audit_unavailable"


async def test_engine_lost_before_the_first_byte_is_503(gateway: Gateway) -> None:
    """There was no status yet, so the status says it."""
    gateway.engine.reply = lambda submit, choice: Reply([97], delay_s=5, finish=None)
    gateway.engine.reply = lambda submit, choice: Reply([], finish=None)
    asking = asyncio.create_task(post(gateway))
    await until(lambda: bool(gateway.engine.submits))
    assert gateway.engine.link is not None
    gateway.engine.link.close()
    response = await asking
    assert (response.status, json.loads(response.body)["error"]["code"]) == (503, "engine_unavailable")
    await settled(gateway)
    assert outcome(gateway)["status_code"] == "engine_unavailable"
    assert outcome(gateway)["http_response"]["code"] == 503


async def test_policy_lost_refuses_new_requests_and_lets_covered_ones_end(gateway: Gateway) -> None:
    """What is reserved may be delivered; nothing new is begun."""
    gateway.policy.block_tokens = 1000
    gateway.engine.reply = lambda submit, choice: Reply(gateway.ids("covered answer"), delay_s=0.02)
    stream = await Stream.open(gateway)
    await stream.first()
    assert gateway.policy.link is not None
    gateway.policy.link.close()
    await asyncio.sleep(0)
    response = await post(gateway)
    assert (response.status, json.loads(response.body)["error"]["code"]) == (503, "policy_unavailable")
    assert b"[DONE]" in await stream.reader.readuntil(b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("code", "status"),
    [("queue_full", 503), ("engine_unavailable", 503), ("kv_capacity_exceeded", 400), ("bad_ticket", 500)],
)
async def test_what_the_engine_refuses_has_a_status_and_an_outcome(gateway: Gateway, code: str, status: int) -> None:
    """The client's fault only where it is about the request."""
    gateway.engine.reply = lambda submit, choice: RequestRefused(0, code, "no", "max_tokens")
    response = await post(gateway)
    assert (response.status, json.loads(response.body)["error"]["code"]) == (status, code)
    await settled(gateway)
    assert outcome(gateway)["status_code"] == code
    assert outcome(gateway)["http_response"]["code"] == status


@pytest.mark.parametrize(
    ("finish", "code"),
    [
        (Finish("error", detail="non_finite_logits"), "non_finite_logits"),
        (Finish("deadline"), "deadline_exceeded"),
        (Finish("cancelled"), "engine_unavailable"),
    ],
)
async def test_a_fault_of_one_request_ends_that_request(gateway: Gateway, finish: Finish, code: str) -> None:
    """The engine ends one request by an error; the next is served."""
    gateway.engine.reply = lambda submit, choice: Reply([97, 98], finish=finish)
    stream = await Stream.open(gateway)
    assert last_error(await stream.rest())["code"] == code
    await settled(gateway)
    assert outcome(gateway)["status_code"] == code
    gateway.says("fine")
    assert (await post(gateway)).status == 200


async def test_an_answer_over_its_deadline_ends(folder: Path) -> None:
    """The engine is told the deadline; should it not keep it, the gateway does."""
    async with running_gateway(folder, request_timeout_s=0.3) as gateway:
        gateway.engine.reply = lambda submit, choice: Reply([97], finish=None)
        response = await post(gateway, stream=False)
        assert (response.status, json.loads(response.body)["error"]["code"]) == (504, "deadline_exceeded")
        assert gateway.engine.submits[0].timeout_ms is not None
        assert gateway.engine.submits[0].timeout_ms <= 300


async def test_one_prompt_of_several_that_fails_ends_all_with_outcomes(gateway: Gateway) -> None:
    """A list of prompts is one answer: it fails as one, and every intent has its outcome."""
    replies = iter([Reply(gateway.ids("fine")), Reply([97], finish=Finish("error", detail="non_finite_logits"))])
    gateway.engine.reply = lambda submit, choice: next(replies)
    body = json.dumps({"model": MODEL, "prompt": ["a", "b"]}).encode()
    response = await exchange(gateway.port, "POST", "/v1/completions", headers=(BEARER, JSON), body=body)
    assert response.status == 500
    await until(lambda: len(gateway.policy.settles) == 2)
    assert len(gateway.auditor.of_kind("inference_outcome")) == 2


async def test_quota_refused_for_one_prompt_of_several_starts_none(gateway: Gateway) -> None:
    """All prompts are reserved before any is recorded; what was reserved is given back."""
    gateway.policy.budget_tokens = 8
    body = json.dumps({"model": MODEL, "prompt": ["a", "b"]}).encode()
    response = await exchange(gateway.port, "POST", "/v1/completions", headers=(BEARER, JSON), body=body)
    assert response.status == 429
    await until(lambda: len(gateway.policy.settles) == 1)
    assert not gateway.auditor.of_kind("inference_intent")
    assert not gateway.engine.submits


async def test_draining_finishes_what_is_open_and_refuses_the_rest(folder: Path) -> None:
    """SIGTERM: the open stream ends in good order, a new request is told to come back later."""
    async with running_gateway(folder) as gateway:
        gateway.engine.reply = lambda submit, choice: Reply(gateway.ids("slow but whole"), delay_s=0.03)
        stream = await Stream.open(gateway)
        await stream.first()
        idle_reader, idle_writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        gateway.clients.append(idle_writer)
        gateway.draining.set()
        await asyncio.sleep(0.02)
        body = body_of()
        idle_writer.write(
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n{BEARER}\r\n{JSON}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        async with asyncio.timeout(3):
            refused = parse(await idle_reader.readuntil(b"}}"))
        assert (refused.status, json.loads(refused.body)["error"]["code"]) == (503, "draining")
        assert refused.headers["retry-after"] == "5"
        assert b"data: [DONE]" in await stream.rest()


async def test_draining_cuts_what_does_not_end_in_time(folder: Path) -> None:
    """After the drain's time the rest ends with a clear error, and is recorded."""
    async with running_gateway(folder) as gateway:
        gateway.drain_timeout_s = 0.2
        gateway.engine.reply = lambda submit, choice: LONG
        stream = await Stream.open(gateway)
        await stream.first()
        gateway.draining.set()
        assert last_error(await stream.rest())["code"] == "draining"
        await settled(gateway)
        assert outcome(gateway)["status_code"] == "draining"


async def test_a_full_worker_refuses_politely(folder: Path) -> None:
    """More open requests than configured: 503, and the ones that run are not disturbed."""
    async with running_gateway(folder, max_open_requests=1) as gateway:
        gateway.engine.reply = lambda submit, choice: Reply(gateway.ids("one at a time"), delay_s=0.03)
        stream = await Stream.open(gateway)
        await stream.first()
        response = await post(gateway)
        assert (response.status, json.loads(response.body)["error"]["code"]) == (503, "overloaded")
        assert b"data: [DONE]" in await stream.reader.readuntil(b"data: [DONE]\n\n")
