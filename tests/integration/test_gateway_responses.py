"""`/v1/responses` with OpenAI's SDK: whole and streamed, tools and reasoning, kept by tenant for a while."""

import asyncio
import json
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from runtime.request import Finish
from tests.support.controls import control
from tests.support.gateway import TOKEN, Gateway, principal, prompt_of, running_gateway
from tests.support.gateway_peers import Reply
from tests.support.model_folders import MODEL
from tests.support.waiting import until
from tests.support.wire import exchange

TOOL: Any = {
    "type": "function",
    "name": "add",
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
}


@pytest.fixture
async def gateway(folder: Path, tmp_path: Path) -> AsyncIterator[Gateway]:
    async with running_gateway(folder, store_path=tmp_path / "responses.sqlite", response_retention_s=60) as running:
        yield running


async def create(client: openai.AsyncOpenAI, *, is_streamed: bool) -> tuple[str, str]:
    """A response that is to be kept: its id, and how it ended, or the code of what went wrong."""
    if is_streamed:
        stream = await client.responses.create(model=MODEL, input="this", stream=True)
        events: list[Any] = [event async for event in stream]
        codes = [event.code for event in events if event.type == "error"]
        return ("", codes[0]) if codes else (events[-1].response.id, events[-1].response.status)
    try:
        response = await client.responses.create(model=MODEL, input="this", store=True)
    except openai.APIStatusError as refused:
        return "", str(refused.code)
    return response.id, str(response.status)


async def test_a_response(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """Text out of text, with instructions, usage, and its own id in the header and the record."""
    gateway.says("Grüße")
    raw = await client.responses.with_raw_response.create(
        model=MODEL, input="hi", instructions="be brief", max_output_tokens=50
    )
    response = raw.parse()
    assert response.output_text == "Grüße"
    assert (response.status, raw.headers["x-request-id"]) == ("completed", response.id)
    assert response.usage is not None
    assert response.usage.output_tokens == len("Grüße".encode()) + 1
    assert prompt_of(gateway) == (
        "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert gateway.auditor.of_kind("inference_intent")[0]["api"]["operation"].endswith("/v1/responses")


async def test_a_cut_response_is_incomplete(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """And says why."""
    gateway.says("abcdefgh")
    response = await client.responses.create(model=MODEL, input="hi", max_output_tokens=3)
    assert (response.status, response.output_text) == ("incomplete", "abc")
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    item = response.output[0]
    assert (item.type, item.status) == ("message", "incomplete")
    assert response.id.startswith("resp_"), "by which LangChain knows what to go on from"


async def test_a_cut_call_is_incomplete(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """What came before it is not, in the events as in the whole."""
    marked = [*b"So. ", 262, *b'{"name": "add", "arguments": {"a": 1}}', 263, 261]
    gateway.engine.reply = lambda submit, choice: Reply(marked)
    stream = await client.responses.create(
        model=MODEL, input="hi", tools=[TOOL], stream=True, max_output_tokens=len(marked) - 5
    )
    events = [event async for event in stream]
    last = events[-1]
    assert last.type == "response.incomplete"
    told = [event.item for event in events if event.type == "response.output_item.done"]
    for items in (told, last.response.output):
        assert [(item.type, getattr(item, "status", None)) for item in items] == [
            ("message", "completed"),
            ("function_call", "incomplete"),
        ]


async def test_events_tell_the_response_piece_by_piece(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """In OpenAI's order and numbered; the deltas together are the text, and the last event is the whole response."""
    marked = [*b"So. ", 262, *b'{"name": "add", "arguments": {"a": 1}}', 263, 261]
    gateway.engine.reply = lambda submit, choice: Reply(marked)
    stream = await client.responses.create(model=MODEL, input="hi", tools=[TOOL], stream=True)
    events = [event async for event in stream]
    kinds = [event.type for event in events]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-3:] == ["response.function_call_arguments.done", "response.output_item.done", "response.completed"]
    texts = [event.delta for event in events if event.type == "response.output_text.delta"]
    arguments = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    assert ("".join(texts).strip(), "".join(arguments)) == ("So.", '{"a": 1}')
    assert len(arguments) > 2
    last = events[-1]
    assert last.type == "response.completed"
    assert [item.type for item in last.response.output] == ["message", "function_call"]


@pytest.mark.parametrize("limit", [100, 30])
async def test_every_event_is_as_the_sdk_declares_it(gateway: Gateway, limit: int) -> None:
    """To the letter, which the SDK itself does not insist on: reasoning, text and a call, whole and cut."""
    marked = [*b"<think>Hm.</think>So. ", 262, *b'{"name": "add", "arguments": {"a": 1}}', 263, 261]
    gateway.engine.reply = lambda submit, choice: Reply(marked)
    body = {"model": MODEL, "input": "hi", "tools": [TOOL], "stream": True, "max_output_tokens": limit}
    headers = (f"Authorization: Bearer {TOKEN}", "Content-Type: application/json")
    answer = await exchange(gateway.port, "POST", "/v1/responses", headers=headers, body=json.dumps(body).encode())
    events = [line.removeprefix(b"data: ") for line in answer.body.split(b"\n") if line.startswith(b"data: ")]
    declared: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
    kinds = [declared.validate_json(event, strict=True).type.removeprefix("response.") for event in events]
    assert kinds[-1] == ("completed" if limit == 100 else "incomplete")


async def test_a_conversation_goes_on_from_what_is_kept(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """Items of both turns stand in the prompt; a tool's output comes back as an item."""
    gateway.engine.reply = lambda submit, choice: Reply([262, *b'{"name": "add", "arguments": {"a": 1}}', 263, 261])
    first = await client.responses.create(model=MODEL, input="add one", tools=[TOOL])
    call = first.output[0]
    assert call.type == "function_call"
    gateway.says("2")
    output: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "two"}]
    await client.responses.create(model=MODEL, input=output, tools=[TOOL], previous_response_id=first.id)
    assert "user\nadd one<|im_end|>" in prompt_of(gateway)
    assert '<tool_call>{"name": "add"' in prompt_of(gateway)
    assert "tool\ntwo<|im_end|>" in prompt_of(gateway)


@control("3.13.4", "3.13.16", "CM-12", "SC-4", "SC-28", "SC-28(1)", "SI-12")
async def test_what_is_kept_is_the_tenants_own(gateway: Gateway, client: openai.AsyncOpenAI, tmp_path: Path) -> None:
    """Another client of the tenant gets it, another tenant does not, and the file holds no text."""
    gateway.says("a remarkable answer")
    response = await client.responses.create(model=MODEL, input="a remarkable question")
    gateway.tokens.good["other-tenant"] = principal("client-9", tenant="globex")
    colleague, stranger = client.with_options(api_key="other-client"), client.with_options(api_key="other-tenant")
    assert (await colleague.responses.retrieve(response.id)).output_text == "a remarkable answer"
    for forbidden in (stranger.responses.retrieve(response.id), stranger.responses.delete(response.id)):
        with pytest.raises(openai.NotFoundError):
            await forbidden
    with pytest.raises(openai.BadRequestError) as refused:
        await stranger.responses.create(model=MODEL, input="x", previous_response_id=response.id)
    assert refused.value.code == "previous_response_not_found"
    assert b"remarkable" not in (tmp_path / "responses.sqlite").read_bytes()
    await client.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(response.id)


async def test_what_is_past_its_time_is_gone(
    gateway: Gateway, client: openai.AsyncOpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And out of the file when the next is kept."""
    response = await client.responses.create(model=MODEL, input="old")
    now = time.time()
    monkeypatch.setattr("appliance.gateway.api.response_store.time.time", lambda: now + 61)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(response.id)
    await client.responses.create(model=MODEL, input="new")
    assert response.id.encode() not in (tmp_path / "responses.sqlite").read_bytes()


@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
async def test_keeping_one_holds_up_nobody_else(
    gateway: Gateway,
    client: openai.AsyncOpenAI,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    is_streamed: bool,
) -> None:
    """A disk that does not answer holds the response that it is asked to keep. Others are answered meanwhile; and what was
    answered is kept."""
    monkeypatch.setattr("appliance.gateway.api.response_file._BUSY_TIMEOUT_S", 60.0)
    await client.responses.create(model=MODEL, input="before")
    with closing(sqlite3.connect(tmp_path / "responses.sqlite", isolation_level=None)) as disk:
        disk.execute("BEGIN EXCLUSIVE")
        kept = asyncio.create_task(create(client, is_streamed=is_streamed))
        await until(lambda: len(gateway.auditor.of_kind("inference_outcome")) == 2)
        for _ in range(3):
            assert (await client.responses.create(model=MODEL, input="x", store=False)).status == "completed"
        assert not kept.done()
        disk.execute("ROLLBACK")
        response_id, status = await kept
    assert (await client.responses.retrieve(response_id)).status == status == "completed"


@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
async def test_what_cannot_be_kept_is_not_said_to_be(
    gateway: Gateway, client: openai.AsyncOpenAI, tmp_path: Path, *, is_streamed: bool
) -> None:
    """The client hears it instead of the response's end."""
    (tmp_path / "responses.sqlite").write_bytes(b"this is no database" * 100)
    assert await create(client, is_streamed=is_streamed) == ("", "responses_unavailable")


async def test_nothing_is_kept_where_nothing_may_be(folder: Path, tmp_path: Path) -> None:
    """Without a retention, and with `store: false`: no file at all; who insists is refused."""
    for settings, store in (({}, None), ({"response_retention_s": 60}, False)):
        path = tmp_path / f"{store}.sqlite"
        async with (
            running_gateway(folder, store_path=path, **settings) as gateway,
            openai.AsyncOpenAI(api_key=TOKEN, base_url=gateway.url + "/v1", max_retries=0) as client,
        ):
            response = await client.responses.create(model=MODEL, input="x", store=store)
            assert not path.exists()
            with pytest.raises(openai.NotFoundError):
                await client.responses.retrieve(response.id)
            if not settings:
                with pytest.raises(openai.BadRequestError) as refused:
                    await client.responses.create(model=MODEL, input="x", store=True)
                assert refused.value.param == "store"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"input": [{"type": "computer_call"}]}, "input[0]"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0]"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"truncation": "auto"}, "truncation"),
        ({"include": ["file_search_call.results"]}, "include[0]"),
        ({"extra_body": {"conversation": "c"}}, "conversation"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format.type"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "name": "f"}}, "tool_choice"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "assistant", "content": "x", "phase": "commentary"}]}, "input[0].phase"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_text", "text": "a", "b": 1}]}]},
            "input[0].content[0].b",
        ),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id"),
        ({"input": [{"type": "reasoning", "junk": 1}]}, "input[0].junk"),
        ({"previous_response_id": "resp_nothing"}, "previous_response_id"),
        ({"metadata": {"k" * 65: "v"}}, "metadata"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"max_tool_calls": 1}, "max_tool_calls"),
        ({"top_logprobs": 1}, "top_logprobs"),
        ({"top_logprobs": 21, "include": ["message.output_text.logprobs"]}, "top_logprobs"),
        ({"input": [{"id": "msg_1", "type": "item_reference", "junk": 1}]}, "input[0].junk"),
    ],
)
async def test_what_is_not_supported_is_refused_by_name(
    gateway: Gateway, client: openai.AsyncOpenAI, change: dict[str, Any], param: str
) -> None:
    """Nothing is ignored."""
    with pytest.raises(openai.BadRequestError) as refused:
        await client.responses.create(**({"model": MODEL, "input": "x"} | change))
    body: Any = refused.value.body
    assert (refused.value.status_code, body["param"]) == (400, param)
    assert not gateway.engine.submits


async def test_a_stream_that_fails_says_how_far_it_came(gateway: Gateway) -> None:
    """As the SDK declares it: the error with our code, the end of the item, and the response, which failed; numbered on."""

    def reply(submit: Any, choice: int) -> Reply:
        return Reply([97] * 4, Finish("error", None, "non_finite_logits"))

    gateway.engine.reply = reply
    body = json.dumps({"model": MODEL, "input": "hi", "stream": True}).encode()
    headers = (f"Authorization: Bearer {TOKEN}", "Content-Type: application/json")
    answer = await exchange(gateway.port, "POST", "/v1/responses", headers=headers, body=body)
    lines = [line.removeprefix(b"data: ") for line in answer.body.split(b"\n") if line.startswith(b"data: ")]
    declared: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
    events = [declared.validate_json(line, strict=True) for line in lines]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type.removeprefix("response.") for event in events]
    assert kinds[-5:] == ["error", "output_text.done", "content_part.done", "output_item.done", "failed"]
    assert events[-5].code == "non_finite_logits"
    response = events[-1].response
    assert (response.status, response.error.code, response.output_text) == ("failed", "server_error", "aaa")
    assert "non_finite_logits" in response.error.message
    assert response.output[0].status == "incomplete"


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_what_a_response_says_of_itself(gateway: Gateway, is_streamed: bool) -> None:
    """Every member that OpenAI's has, also where there is nothing to say, and what its request said."""
    said = {"prompt_cache_key": "k", "safety_identifier": "s", "metadata": {"a": "b"}, "user": "u", "temperature": 0.5}
    body = json.dumps({"model": MODEL, "input": "hi", "stream": is_streamed, **said}).encode()
    headers = (f"Authorization: Bearer {TOKEN}", "Content-Type: application/json")
    answer = await exchange(gateway.port, "POST", "/v1/responses", headers=headers, body=body)
    line = next(line for line in reversed(answer.body.split(b"\n")) if line.startswith((b"data: ", b"{")))
    told = json.loads(line.removeprefix(b"data: "))
    response = told["response"] if is_streamed else told
    members = """background completed_at created_at error frequency_penalty id incomplete_details instructions max_output_tokens
        max_tool_calls metadata model object output parallel_tool_calls presence_penalty previous_response_id prompt_cache_key
        reasoning safety_identifier service_tier status store temperature text tool_choice tools top_logprobs top_p truncation
        usage user"""
    assert response.keys() == set(members.split())
    assert {name: response[name] for name in said} == said


async def test_a_failure_in_mid_stream_is_an_event(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """With our code, and the SDK raises."""
    gateway.engine.reply = lambda submit, choice: Reply([97] * 400, delay_s=0.005)
    stream = await client.responses.create(model=MODEL, input="x", stream=True)

    async def read() -> str:
        async for event in stream:
            if event.type == "response.output_text.delta":
                assert gateway.engine.link is not None
                gateway.engine.link.close()
            elif event.type == "error":
                return event.code or ""
        return ""

    assert await read() == "engine_unavailable"
