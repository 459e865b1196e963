"""Peers that are lost, engines that refuse, limits and draining: each ends what it must with a clear error, and no more."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog

from appliance.gateway.peers.auditor import TOLD
from appliance.messages.audit import AppendRefused
from appliance.messages.engine import RequestRefused
from runtime.request import Finish
from tests.support.controls import control
from tests.support.gateway import Gateway, running_gateway
from tests.support.gateway_peers import Reply
from tests.support.model_folders import MODEL
from tests.support.streams import BEARER, JSON, Stream, body_of, last_error, outcome, post, settled, unread_stream
from tests.support.waiting import until
from tests.support.wire import exchange, parse

LONG = Reply([97] * 400, delay_s=0.005)


@pytest.fixture
async def gateway(folder: Path) -> AsyncIterator[Gateway]:
    async with running_gateway(
        folder, send_timeout_s=0.3, send_buffer_bytes=8192, max_unread_tokens=2000, peer_timeout_s=2.0
    ) as running:
        yield running


@control("3.3.4", "AU-5", "AU-5(4)", "SC-7(18)")
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
    assert time.monotonic() - began < 10.0
    await until(lambda: len(gateway.policy.settles) == 3)
    assert not any(settle.is_recorded for settle in gateway.policy.settles)  # The auditor tells what they came to.
    response = await post(gateway)
    assert (response.status, json.loads(response.body)["error"]["code"]) == (503, "audit_unavailable")
    assert "retry-after" in response.headers
    gateway.connect_auditor()
    await until(lambda: gateway.is_connected)
    gateway.says("back")
    assert (await post(gateway)).status == 200
    assert gateway.policy.settles[-1].is_recorded


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
            assert time.monotonic() - began < 10.0


@control("3.3.4", "AU-5", "AU-5(4)", "SC-7(18)")
async def test_disk_full_refuses_before_anything_is_computed(gateway: Gateway) -> None:
    """The auditor says that it cannot make records durable: 503, and the reservation is given back."""
    gateway.auditor.can_append = False
    response = await post(gateway)
    assert response.status == 503
    assert "disk full" in json.loads(response.body)["error"]["message"]
    await settled(gateway)
    assert not gateway.engine.submits
    assert (gateway.policy.settles[0].prompt_tokens, gateway.policy.settles[0].output_tokens) == (0, 0)


async def test_an_intent_that_is_durable_too_late_gets_its_outcome(folder: Path) -> None:
    """The client was refused and its quota given back; the engine was told so, the log says how it ended, and the quota counts
    what the log does, as it would after a restart."""
    async with running_gateway(folder, peer_timeout_s=1.0) as gateway:
        assert (await post(gateway)).status == 200  # Roots and keys of the day are made.
        gateway.auditor.holds_intents.clear()
        response = await post(gateway)
        assert (response.status, json.loads(response.body)["error"]["code"]) == (503, "audit_unavailable")
        gateway.auditor.holds_intents.set()
        await until(lambda: len(gateway.auditor.of_kind("inference_outcome")) == 2)
        late = gateway.auditor.of_kind("inference_outcome")[1]
        intent = gateway.auditor.of_kind("inference_intent")[1]["unmapped"]["casemate"]
        assert late["status_code"] == "audit_unavailable"
        assert late["http_response"]["code"] == 503
        assert late["unmapped"]["casemate"]["request_uid"] == intent["request_uid"]
        assert gateway.engine.withdrawn == [gateway.engine.submits[1].request_id]
        await until(lambda: len(gateway.policy.settles) == 3)
        refused, told = gateway.policy.settles[1:]
        assert refused.reservation == told.reservation
        assert (refused.prompt_tokens, refused.is_recorded, told.is_recorded) == (0, False, False)
        assert told.prompt_tokens + told.output_tokens == late["message_context"]["total_tokens"] > 0


async def test_an_intent_given_up_although_its_ticket_has_come_is_closed_with_the_engines_counts(folder: Path) -> None:
    """The answer to it crossed the end of its time: the engine computed, says how much, and the outcome says the same."""
    async with running_gateway(folder, peer_timeout_s=1.0) as gateway:
        assert (await post(gateway)).status == 200  # Roots and keys of the day are made.
        gateway.engine.cached_tokens = 16
        gateway.engine.reply = lambda submit, choice: Reply([97], finish=None)
        gateway.auditor.holds_answers.clear()
        response = await post(gateway)
        assert (response.status, json.loads(response.body)["error"]["code"]) == (503, "audit_unavailable")
        assert not gateway.engine.withdrawn
        gateway.auditor.holds_answers.set()
        await until(lambda: len(gateway.auditor.of_kind("inference_outcome")) == 2)
        late = gateway.auditor.of_kind("inference_outcome")[1]
        assert late["status_code"] == "audit_unavailable"
        assert late["unmapped"]["casemate"]["cached_tokens"] == 16
        assert late["message_context"]["completion_tokens"] == 0


async def test_a_reservation_that_is_granted_too_late_is_given_back(folder: Path) -> None:
    """Else it would count against its client for as long as the worker lives."""
    async with running_gateway(folder, peer_timeout_s=1.0) as gateway:
        gateway.policy.answers.clear()
        response = await post(gateway)
        assert (response.status, json.loads(response.body)["error"]["code"]) == (503, "policy_unavailable")
        gateway.policy.answers.set()
        await until(lambda: bool(gateway.policy.settles))
        settle = gateway.policy.settles[0]
        assert (settle.prompt_tokens, settle.output_tokens) == (0, 0)
        assert not gateway.auditor.of_kind("inference_intent")


async def test_an_event_that_the_auditor_refuses_is_in_the_log_of_errors(gateway: Gateway) -> None:
    """Nobody waits for it, so nobody else would hear of it; those of which there were too many are told by the auditor."""
    handle = gateway.worker.desk.auditor._handle
    with structlog.testing.capture_logs() as logs:
        handle(AppendRefused(TOLD, "rationed", "too many"))
        handle(AppendRefused(TOLD, "malformed", "entry: holds a float"))
    assert [(line["event"], line["code"]) for line in logs] == [("event_refused", "malformed")]


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
    [("queue_full", 429), ("engine_unavailable", 503), ("kv_capacity_exceeded", 400), ("bad_ticket", 500)],
)
async def test_what_the_engine_refuses_has_a_status_and_an_outcome(gateway: Gateway, code: str, status: int) -> None:
    """The client's fault only where it is about the request."""
    gateway.engine.reply = lambda submit, choice: RequestRefused(0, code, "no", "max_tokens")
    response = await post(gateway)
    assert (response.status, json.loads(response.body)["error"]["code"]) == (status, code)
    await settled(gateway)
    assert outcome(gateway)["status_code"] == code
    assert outcome(gateway)["http_response"]["code"] == status


@control("SC-5")
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
    async with running_gateway(folder, request_timeout_s=1.0) as gateway:
        gateway.engine.reply = lambda submit, choice: Reply([97], finish=None)
        response = await post(gateway, stream=False)
        assert (response.status, json.loads(response.body)["error"]["code"]) == (504, "deadline_exceeded")
        assert gateway.engine.submits[0].timeout_ms is not None
        assert gateway.engine.submits[0].timeout_ms <= 1000


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
        gateway.says("slow but whole", delay_s=0.001)
        stream = await Stream.open(gateway)
        await stream.first()
        gateway.engine.goes_on.clear()
        idle_reader, idle_writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        gateway.clients.append(idle_writer)
        gateway.draining.set()
        await asyncio.sleep(0.02)
        body = body_of()
        idle_writer.write(
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n{BEARER}\r\n{JSON}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        async with asyncio.timeout(30):
            refused = parse(await idle_reader.readuntil(b"}}"))
        assert (refused.status, json.loads(refused.body)["error"]["code"]) == (503, "draining")
        assert refused.headers["retry-after"] == "5"
        gateway.engine.goes_on.set()
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
        gateway.says("one at a time", delay_s=0.001)
        stream = await Stream.open(gateway)
        await stream.first()
        gateway.engine.goes_on.clear()
        response = await post(gateway)
        assert (response.status, json.loads(response.body)["error"]["code"]) == (503, "overloaded")
        gateway.engine.goes_on.set()
        assert b"data: [DONE]" in await stream.reader.readuntil(b"data: [DONE]\n\n")
