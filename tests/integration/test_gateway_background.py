"""Responses made in the background, with OpenAI's SDK and two workers that share a file: fetched, streamed, cancelled, lost."""

import asyncio
import json
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from appliance.gateway.api.background_store import BackgroundStore, Key
from runtime.request import Finish
from tests.support.gateway import TOKEN, Gateway, principal, running_gateway
from tests.support.gateway_peers import Reply
from tests.support.model_folders import MODEL
from tests.support.waiting import GIVE_UP_S, until
from tests.support.wire import exchange

SLOW_S = 0.02
STARTED: Any = {"model": MODEL, "input": "a remarkable question", "background": True}
STREAMED: Any = STARTED | {"stream": True}


@pytest.fixture
async def workers(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[Gateway]]:
    """Two of one appliance, which look at their file more often than they would."""
    monkeypatch.setattr("appliance.gateway.api.background.WRITE_INTERVAL_S", 0.05)
    monkeypatch.setattr("appliance.gateway.api.mirrors.LOOK_INTERVAL_S", 0.02)
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                running_gateway(folder, store_path=tmp_path / "responses.sqlite", response_retention_s=60)
            )
            for _ in range(2)
        ]


@pytest.fixture
async def clients(workers: list[Gateway]) -> AsyncIterator[list[openai.AsyncOpenAI]]:
    """The SDK at each of them."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                openai.AsyncOpenAI(api_key=TOKEN, base_url=worker.url + "/v1", max_retries=0, timeout=GIVE_UP_S)
            )
            for worker in workers
        ]


async def ended(client: openai.AsyncOpenAI, response_id: str) -> Response:
    """Poll, as OpenAI's guide does."""
    async with asyncio.timeout(GIVE_UP_S):
        while True:
            response = await client.responses.retrieve(response_id)
            if response.status not in ("queued", "in_progress"):
                return response
            await asyncio.sleep(0.02)


async def events_of(client: openai.AsyncOpenAI, response_id: str, **query: Any) -> list[Any]:
    """All events from a number on, to the end."""
    async with asyncio.timeout(GIVE_UP_S):
        return [event async for event in await client.responses.retrieve(response_id, stream=True, **query)]


def endless(gateway: Gateway, text: str = "abc") -> None:
    """Let answers say something, and never end."""
    gateway.engine.reply = lambda submit, choice: Reply(gateway.ids(text, ends=False), finish=None)


def die(gateway: Gateway) -> None:
    """Let the kernel do what it does when a worker is killed."""
    descriptor = gateway.worker.background._kept.lives._descriptor
    assert descriptor is not None
    os.close(descriptor)
    gateway.worker.background._kept.lives._descriptor = None


async def test_a_response_is_polled_at_any_worker(workers: list[Gateway], clients: list[openai.AsyncOpenAI]) -> None:
    """It is answered at once, and made on; reserved, recorded and settled as any other."""
    endless(workers[0])
    raw = await clients[0].responses.with_raw_response.create(**STARTED, metadata={"job": "7"})
    begun = raw.parse()
    assert (begun.status, begun.background, begun.output, raw.headers["x-request-id"]) == (
        "in_progress",
        True,
        [],
        begun.id,
    )
    for client in clients:
        assert (await client.responses.retrieve(begun.id)).status == "in_progress"
        listed = [item async for item in client.responses.input_items.list(begun.id)]
        assert [item.content[0].text for item in listed] == ["a remarkable question"]  # type: ignore[union-attr]
    assert len(workers[0].policy.reserves) == 1
    assert not workers[0].policy.settles
    workers[0].says("done", delay_s=SLOW_S)
    response = await clients[0].responses.create(**STARTED)
    for client in clients:
        over = await ended(client, response.id)
        assert (over.status, over.output_text, over.error) == ("completed", "done", None)
        assert over.usage is not None
        assert over.usage.output_tokens == 5
        assert over.completed_at is not None
    intents, outcomes = (workers[0].auditor.of_kind(f"inference_{kind}") for kind in ("intent", "outcome"))
    assert (len(intents), len(outcomes), outcomes[0]["status_code"]) == (2, 1, "stop")
    assert intents[0]["unmapped"]["casemate"]["parameters"]["background"] == 1
    assert [settle.output_tokens for settle in workers[0].policy.settles] == [5]
    assert str(int(raw.headers["casemate-audit-index"])) == raw.headers["casemate-audit-index"]


@pytest.mark.parametrize("at", [0, 1], ids=["its_worker", "another"])
async def test_a_stream_is_taken_up_where_it_broke(
    workers: list[Gateway], clients: list[openai.AsyncOpenAI], at: int
) -> None:
    """While it runs and when it is over, from any number on, at any worker; a client that leaves ends nothing."""
    workers[0].says("0123456789" * 3, delay_s=SLOW_S)
    seen: list[Any] = []
    async with await clients[0].responses.create(**STREAMED) as stream:
        async for event in stream:
            seen.append(event)
            if len(seen) == 9:
                workers[0].engine.goes_on.clear()
                break
    response_id = seen[0].response.id
    assert (await clients[at].responses.retrieve(response_id)).status == "in_progress"
    workers[0].engine.goes_on.set()
    rest = await events_of(clients[at], response_id, starting_after=seen[-1].sequence_number)
    whole = seen + rest
    assert [event.sequence_number for event in whole] == list(range(len(whole)))
    assert "".join(event.delta for event in whole if event.type == "response.output_text.delta") == "0123456789" * 3
    assert (whole[-1].type, whole[-1].response.output_text) == ("response.completed", "0123456789" * 3)
    assert (await clients[at].responses.retrieve(response_id)).status == "completed", "before its last event is shown"
    assert await events_of(clients[at], response_id) == whole
    assert await events_of(clients[at], response_id, starting_after=len(whole) - 2) == whole[-1:]
    assert await events_of(clients[at], response_id, starting_after=len(whole) + 5) == []
    with pytest.raises(openai.BadRequestError, match="when the response was"):
        await events_of(clients[at], response_id, include=["message.output_text.logprobs"])
    assert len(workers[0].engine.submits) == 1


async def test_many_that_listen_elsewhere_cost_one_look(
    workers: list[Gateway], clients: list[openai.AsyncOpenAI], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever listens at another worker gets all events, from wherever they began; waiting, they do not each read the file."""
    endless(workers[0], "abc")
    stream = await clients[0].responses.create(**STREAMED)
    first: Any = [await anext(stream) for _ in range(7)]
    response_id = first[0].response.id
    numbers = [*range(-1, 7), 1000]
    listening = [
        asyncio.create_task(events_of(clients[1], response_id, **({} if number < 0 else {"starting_after": number})))
        for number in numbers
    ]
    background = workers[1].worker.background
    await until(lambda: len(getattr(background._mirrors._mirrors.get(Key("acme", response_id)), "listeners", ())) == 9)
    reads: list[Any] = []
    read = BackgroundStore.read_events
    monkeypatch.setattr(BackgroundStore, "read_events", lambda *asked: (reads.append(asked), read(*asked))[1])
    looks: list[Any] = []
    look = BackgroundStore.look
    monkeypatch.setattr(BackgroundStore, "look", lambda *asked: (looks.append(asked), look(*asked))[1])
    await until(lambda: len(looks) > 3)
    assert not reads
    await clients[0].responses.cancel(response_id)
    whole = first + [event async for event in stream]
    for number, events in zip(numbers, await asyncio.gather(*listening), strict=True):
        assert events == whole[number + 1 :]
    await until(lambda: not background._mirrors._mirrors)


async def test_what_is_said_comes_at_once(
    workers: list[Gateway], clients: list[openai.AsyncOpenAI], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To whoever listens at its worker: nothing waits for the disk but the end."""
    monkeypatch.setattr("appliance.gateway.api.background.WRITE_INTERVAL_S", 3600.0)
    endless(workers[0], "abc")
    text = ""
    async with asyncio.timeout(GIVE_UP_S), await clients[0].responses.create(**STREAMED) as stream:
        async for event in stream:
            text += event.delta if event.type == "response.output_text.delta" else ""
            if text == "abc":
                break
    assert text == "abc"


def newest(gateway: Gateway) -> str:
    """Id of the response that was begun last."""
    event = gateway.auditor.of_kind("inference_intent")[-1]
    return str(event["unmapped"]["casemate"]["request_uid"])


@pytest.mark.parametrize("at", [0, 1], ids=["its_worker", "another"])
@pytest.mark.parametrize("is_streamed", [False, True], ids=["polled", "streamed"])
async def test_a_response_is_cancelled_at_any_worker(
    workers: list[Gateway], clients: list[openai.AsyncOpenAI], at: int, *, is_streamed: bool
) -> None:
    """It ends in the engine and in the log, with what it has; as often as it is asked. What listens is told."""
    endless(workers[0])
    events: list[Any] = []
    if is_streamed:
        stream = await clients[0].responses.create(**STREAMED)
        events = [await anext(stream) for _ in range(7)]
        response_id = events[0].response.id
    else:
        response_id = (await clients[0].responses.create(**STARTED)).id
        await until(lambda: workers[0].engine.num_sent >= 3)
    cancelled = await clients[at].responses.cancel(response_id)
    assert (cancelled.status, cancelled.output_text, cancelled.error) == ("cancelled", "abc", None)
    assert cancelled.output[0].status == "incomplete"  # type: ignore[union-attr]
    assert await clients[1 - at].responses.cancel(response_id) == cancelled
    assert await clients[at].responses.retrieve(response_id) == cancelled
    assert workers[0].engine.cancels
    (outcome,) = workers[0].auditor.of_kind("inference_outcome")
    assert outcome["status_code"] == "cancelled"
    assert [settle.output_tokens for settle in workers[0].policy.settles] == [3]
    if is_streamed:
        events += [event async for event in stream]
        assert events[-1].type == "response.cancelled"
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert await events_of(clients[at], response_id) == events


async def test_what_is_over_is_not_cancelled_any_more(
    workers: list[Gateway], clients: list[openai.AsyncOpenAI]
) -> None:
    """It is answered as it is. What was not made in the background is refused, as before."""
    response = await ended(clients[0], (await clients[0].responses.create(**STARTED)).id)
    assert await clients[1].responses.cancel(response.id) == response
    foreground = await clients[0].responses.create(model=MODEL, input="x")
    with pytest.raises(openai.BadRequestError, match="Cannot cancel a synchronous response"):
        await clients[1].responses.cancel(foreground.id)


@pytest.mark.parametrize("is_streamed", [False, True], ids=["polled", "streamed"])
async def test_what_is_deleted_ends(
    workers: list[Gateway], clients: list[openai.AsyncOpenAI], *, is_streamed: bool
) -> None:
    """At another worker; nothing of it stays in the file, and who listens is told."""
    endless(workers[0])
    stream = await clients[0].responses.create(**STREAMED) if is_streamed else None
    if stream is None:
        await clients[0].responses.create(**STARTED)
    response_id = newest(workers[0])
    await clients[1].responses.delete(response_id)
    await until(lambda: bool(workers[0].auditor.of_kind("inference_outcome")))
    await until(lambda: not workers[0].worker.background._running)
    if stream is not None:
        events = [event async for event in stream]
        assert (events[-1].type, events[-1].code) == ("error", "response_not_found")
        assert [event.sequence_number for event in events] == list(range(len(events)))
    with closing(sqlite3.connect(workers[0].worker.background._kept.file.path)) as database:
        for table in ("responses", "background", "events"):
            assert database.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
    with pytest.raises(openai.NotFoundError):
        await clients[0].responses.retrieve(response_id)


async def test_what_runs_is_not_gone_on_from(workers: list[Gateway], clients: list[openai.AsyncOpenAI]) -> None:
    """By name, until it is over."""
    endless(workers[0])
    first = await clients[0].responses.create(**STARTED)
    for client in clients:
        with pytest.raises(openai.BadRequestError) as refused:
            await client.responses.create(model=MODEL, input="more", previous_response_id=first.id)
        assert (refused.value.code, refused.value.param) == ("response_in_progress", "previous_response_id")
    await clients[1].responses.cancel(first.id)
    again = await clients[1].responses.create(model=MODEL, input="more", previous_response_id=first.id)
    assert again.status == "completed"


async def test_a_response_ends_with_its_worker(workers: list[Gateway], clients: list[openai.AsyncOpenAI]) -> None:
    """Whoever asks next for what a dead worker made is told that it failed; its events stay, and end."""
    endless(workers[0])
    polled = await clients[0].responses.create(**STARTED)
    other = await clients[0].responses.create(**STARTED)
    async with await clients[0].responses.create(**STREAMED) as stream:
        streamed = [await anext(stream) for _ in range(7)]
    response_id = streamed[0].response.id
    assert await events_of_some(clients[1], response_id, 7) == streamed
    die(workers[0])
    lost = await clients[1].responses.retrieve(polled.id)
    assert lost.status == "failed"
    assert lost.error is not None
    assert (lost.error.code, lost.error.message.partition(":")[0]) == ("server_error", "worker_lost")
    events = await events_of(clients[1], response_id)
    assert events[:7] == streamed
    assert (events[-1].type, events[-1].sequence_number) == ("response.failed", len(events) - 1)
    assert await events_of(clients[1], response_id) == events
    assert (await clients[1].responses.cancel(other.id)).status == "failed"
    again = await clients[1].responses.create(model=MODEL, input="more", previous_response_id=polled.id)
    assert again.status == "completed"


async def events_of_some(client: openai.AsyncOpenAI, response_id: str, number: int) -> list[Any]:
    """The first events, without waiting for the end."""
    async with asyncio.timeout(GIVE_UP_S), await client.responses.retrieve(response_id, stream=True) as stream:
        return [await anext(stream) for _ in range(number)]


async def test_a_worker_that_stops_says_how_its_responses_ended(
    folder: Path, workers: list[Gateway], clients: list[openai.AsyncOpenAI], tmp_path: Path
) -> None:
    """They have the time of the drain; then they failed."""
    path = tmp_path / "responses.sqlite"
    async with running_gateway(folder, store_path=path, response_retention_s=60) as third:
        endless(third)
        async with openai.AsyncOpenAI(api_key=TOKEN, base_url=third.url + "/v1", max_retries=0) as client:
            response = await client.responses.create(**STARTED)
    response = await clients[0].responses.retrieve(response.id)
    assert response.status == "failed"
    assert response.error is not None
    assert response.error.message.startswith("draining:")
    assert os.listdir(tmp_path) == ["responses.sqlite"]


async def test_what_is_made_in_the_background_is_the_tenants_own(
    workers: list[Gateway], clients: list[openai.AsyncOpenAI], tmp_path: Path
) -> None:
    """For another tenant there is none, whatever is asked of it; and the file holds no text."""
    workers[0].says("a remarkable answer", delay_s=SLOW_S)
    stream = await clients[0].responses.create(**STREAMED)
    response_id = (await anext(stream)).response.id  # type: ignore[union-attr]
    for worker in workers:
        worker.tokens.good["other-tenant"] = principal("client-9", tenant="globex")
    for client in clients:
        stranger = client.with_options(api_key="other-tenant").responses
        for forbidden in (
            stranger.retrieve(response_id),
            stranger.retrieve(response_id, stream=True),
            stranger.cancel(response_id),
            stranger.delete(response_id),
        ):
            with pytest.raises(openai.NotFoundError):
                await forbidden
    assert [event async for event in stream][-1].type == "response.completed"
    colleague = clients[1].with_options(api_key="other-client")
    assert (await colleague.responses.retrieve(response_id)).output_text == "a remarkable answer"
    assert b"remark" not in (tmp_path / "responses.sqlite").read_bytes()


async def test_quotas_hold(workers: list[Gateway], clients: list[openai.AsyncOpenAI]) -> None:
    """What is refused at the beginning has its status code, and leaves nothing; what ends in the middle failed."""
    workers[0].policy.denial = ("too_many_requests", "10 at once", 1)
    with pytest.raises(openai.RateLimitError):
        await clients[0].responses.create(**STARTED)
    assert not workers[0].engine.submits
    workers[0].policy.denial = None
    workers[0].policy.budget_tokens = 16
    workers[0].says("x" * 30)
    response = await ended(clients[1], (await clients[0].responses.create(**STARTED)).id)
    assert (response.status, response.output_text) == ("failed", "x" * 16)
    assert response.error is not None
    assert (response.error.code, response.error.message.partition(":")[0]) == ("rate_limit_exceeded", "quota_exhausted")
    await until(lambda: not workers[0].worker.desk.num_open)


@pytest.mark.parametrize(
    ("finish", "code"), [(Finish("error", detail="non_finite_logits"), "non_finite_logits"), (None, "aborted")]
)
async def test_every_event_is_as_the_sdk_declares_it(
    workers: list[Gateway], clients: list[openai.AsyncOpenAI], finish: Finish | None, code: str
) -> None:
    """To the letter, of one that fails too; what its own client aborts is cancelled."""
    aborted = Finish("cancelled", detail="aborted")
    workers[0].engine.reply = lambda submit, choice: Reply([*b"abc"], finish=finish or aborted)
    headers = (f"Authorization: Bearer {TOKEN}", "Content-Type: application/json")
    body = json.dumps(STREAMED | {"stream_options": {"include_obfuscation": False}}).encode()
    answer = await exchange(workers[0].port, "POST", "/v1/responses", headers=headers, body=body)
    events = [line.removeprefix(b"data: ") for line in answer.body.split(b"\n") if line.startswith(b"data: ")]
    declared: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
    for event in events[:-1]:
        declared.validate_json(event, strict=True)
    last = json.loads(events[-1])
    whole: TypeAdapter[Any] = TypeAdapter(Response)
    whole.validate_python(last["response"], strict=True)
    if code == "aborted":
        assert (last["type"], last["response"]["status"]) == ("response.cancelled", "cancelled")
    else:
        assert declared.validate_json(events[-1], strict=True).type == "response.failed"
        assert code in last["response"]["error"]["message"]


async def test_a_disk_that_does_not_answer_delays_the_end_only(
    workers: list[Gateway], clients: list[openai.AsyncOpenAI], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever listens gets what is said; the last event comes when the response is kept."""
    monkeypatch.setattr("appliance.gateway.api.response_file._BUSY_TIMEOUT_S", 0.05)
    workers[0].says("abcdef", delay_s=SLOW_S)
    stream = await clients[0].responses.create(**STREAMED)
    events: list[Any] = [await anext(stream) for _ in range(4)]
    with closing(sqlite3.connect(tmp_path / "responses.sqlite", isolation_level=None)) as disk:
        disk.execute("BEGIN EXCLUSIVE")
        while events[-1].type != "response.output_text.delta" or events[-1].delta != "f":
            events.append(await anext(stream))
        await until(lambda: bool(workers[0].auditor.of_kind("inference_outcome")))
        following = asyncio.create_task(anext(stream))
        refused = await exchange(
            workers[1].port,
            "GET",
            f"/v1/responses/{events[0].response.id}",
            headers=(f"Authorization: Bearer {TOKEN}",),
        )
        assert refused.status == 503
        disk.execute("ROLLBACK")
    rest = [await following, *[event async for event in stream]]
    assert rest[-1].type == "response.completed"


@pytest.mark.parametrize(
    ("change", "settings", "code"),
    [
        ({"store": False}, {"response_retention_s": 60}, "invalid_parameter"),
        ({}, {}, "unsupported_parameter"),
        ({"background_options": {"completion_window": "2h"}}, {"response_retention_s": 60}, "unsupported_parameter"),
    ],
)
async def test_what_could_not_be_fetched_is_not_made(
    folder: Path, tmp_path: Path, change: dict[str, Any], settings: dict[str, Any], code: str
) -> None:
    """Refused by name, before anything is reserved."""
    async with (
        running_gateway(folder, store_path=tmp_path / "responses.sqlite", **settings) as gateway,
        openai.AsyncOpenAI(api_key=TOKEN, base_url=gateway.url + "/v1", max_retries=0) as client,
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            await client.responses.create(**STARTED, extra_body=change)
        assert (refused.value.code, refused.value.param) == (
            code,
            next(iter(change), "background").replace("store", "background"),
        )
        assert not gateway.policy.reserves


async def test_only_what_was_streamed_is_streamed_again(
    workers: list[Gateway], clients: list[openai.AsyncOpenAI]
) -> None:
    """As with OpenAI: of the rest no events are kept."""
    response = await clients[0].responses.create(**STARTED)
    with pytest.raises(openai.BadRequestError) as refused:
        await clients[1].responses.retrieve(response.id, stream=True)
    assert refused.value.param == "stream"


async def test_the_sdks_own_reader_of_streams_takes_them(
    workers: list[Gateway], clients: list[openai.AsyncOpenAI]
) -> None:
    """`responses.stream`, which keeps a picture of the response: begun with it, taken up with it, and cancelled before its end."""
    workers[0].says("said", delay_s=SLOW_S)
    async with clients[0].responses.stream(model=MODEL, input="x", background=True) as begun:
        response_id = (await anext(aiter(begun))).response.id  # type: ignore[union-attr]
    for client in clients:
        for query in ({}, {"starting_after": 3}):
            async with client.responses.stream(response_id=response_id, **query) as taken_up:  # type: ignore[arg-type]
                assert (await taken_up.get_final_response()).output_text == "said"
    endless(workers[0])
    async with clients[0].responses.stream(model=MODEL, input="x", background=True) as stream:
        events = aiter(stream)
        response_id = (await anext(events)).response.id  # type: ignore[union-attr]
        await clients[1].responses.cancel(response_id)
        assert [event.type async for event in events][-1] == "response.cancelled"


async def test_a_bug_of_ours_ends_one_response(
    workers: list[Gateway], clients: list[openai.AsyncOpenAI], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has failed, in the log as well, and is not left in progress; the next one is made."""

    def stumble(*_: object, **__: object) -> None:
        raise ValueError("a bug")

    with monkeypatch.context() as broken:
        for part in ("take", "finish"):
            broken.setattr(f"appliance.gateway.api.blocks.BlockBuilder.{part}", stumble)
        response = await ended(clients[1], (await clients[0].responses.create(**STARTED)).id)
    assert response.status == "failed"
    assert response.error is not None
    assert response.error.message.startswith("internal_error: an internal error, recorded with request id resp_")
    assert workers[0].auditor.of_kind("inference_outcome")[0]["status_code"] == "internal_error"
    assert (await ended(clients[1], (await clients[0].responses.create(**STARTED)).id)).status == "completed"
