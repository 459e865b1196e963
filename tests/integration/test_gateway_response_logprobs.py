"""Logprobs in `/v1/responses`: in parts, deltas and ends of texts, as OpenAI's SDK declares them, and of the text only."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from tests.support.gateway import TOKEN, Gateway, running_gateway
from tests.support.gateway_peers import Reply
from tests.support.model_folders import CHAT_TEMPLATE, MODEL, write_byte_level_model
from tests.support.wire import exchange

INCLUDE: Any = ["message.output_text.logprobs"]
TOOL: Any = {"type": "function", "name": "add", "parameters": {"type": "object"}}
CALL_BEGIN, CALL_END, THINK, END_THINK, END = 262, 263, 264, 265, 261
ANSWER = [
    *[THINK, *b"hm", END_THINK, *b"\n\nSo <b> "],
    *"é".encode(),
    *[CALL_BEGIN, *b'{"name": "add", "arguments": {"a": 1}}', CALL_END, END],
]
TEXT = "So <b> é"
BODY: dict[str, Any] = {"model": MODEL, "input": "hi", "tools": [TOOL], "include": INCLUDE, "top_logprobs": 2}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that reasons."""
    made = write_byte_level_model(tmp_path_factory.mktemp("thinking"))
    config = json.loads((made / "tokenizer_config.json").read_text())
    template = CHAT_TEMPLATE + "{#- </think> -#}"
    (made / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": template}))
    return made


@pytest.fixture
async def gateway(folder: Path, tmp_path: Path) -> AsyncIterator[Gateway]:
    async with running_gateway(folder, store_path=tmp_path / "responses.sqlite", response_retention_s=60) as running:
        running.engine.reply = lambda submit, choice: Reply(ANSWER)
        yield running


async def ask(gateway: Gateway, body: dict[str, Any]) -> bytes:
    headers = (f"Authorization: Bearer {TOKEN}", "Content-Type: application/json")
    answer = await exchange(gateway.port, "POST", "/v1/responses", headers=headers, body=json.dumps(body).encode())
    assert answer.status == 200
    return answer.body


def said(logprobs: list[Any]) -> str:
    """The text that their tokens' bytes are."""
    return bytes(byte for entry in logprobs for byte in entry["bytes"]).decode()


async def test_the_text_has_its_tokens(gateway: Gateway) -> None:
    """Each with the likeliest in its place; none of the thoughts and calls around it."""
    body = await ask(gateway, BODY)
    TypeAdapter(Response).validate_json(body, strict=True)
    response = json.loads(body)
    assert [item["type"] for item in response["output"]] == ["reasoning", "message", "function_call"]
    (part,) = response["output"][1]["content"]
    assert (part["text"], said(part["logprobs"])) == (TEXT, TEXT)
    assert response["top_logprobs"] == 2
    first = part["logprobs"][0]
    assert (first["token"], first["logprob"], [top["bytes"] for top in first["top_logprobs"]]) == (
        "S",
        -0.5,
        [[83], [97]],
    )
    assert response["usage"]["output_tokens_details"]["reasoning_tokens"] == 4


@pytest.mark.parametrize("per_step", [1, 3, 100])
async def test_events_have_the_tokens_of_their_texts(gateway: Gateway, per_step: int) -> None:
    """Those of the deltas together are those of the whole, which stand wherever the text ends."""
    gateway.engine.reply = lambda submit, choice: Reply(ANSWER, per_step=per_step)
    lines = [line for line in (await ask(gateway, BODY | {"stream": True})).split(b"\n") if line.startswith(b"data: ")]
    declared: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
    for line in lines:
        declared.validate_json(line.removeprefix(b"data: "), strict=True)
    events = [json.loads(line.removeprefix(b"data: ")) for line in lines]
    by_kind = {event["type"].removeprefix("response."): event for event in events if event.get("output_index") == 1}
    whole = by_kind["output_text.done"]["logprobs"]
    assert said(whole) == TEXT
    deltas = [event for event in events if event["type"] == "response.output_text.delta"]
    assert [entry for event in deltas for entry in event["logprobs"]] == whole
    assert all(said(event["logprobs"]) == event["delta"] for event in deltas)
    assert by_kind["content_part.added"]["part"]["logprobs"] == []
    item, response = by_kind["output_item.done"]["item"], events[-1]["response"]
    for part in (by_kind["content_part.done"]["part"], *item["content"], *response["output"][1]["content"]):
        assert part["logprobs"] == whole


async def test_they_are_there_for_who_asks(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """Without, there are none; with no number, no others than the tokens themselves. They stay with a response that is kept, are
    no part of what it goes on with, and may be sent back."""
    plain = await client.responses.create(model=MODEL, input="hi")
    assert gateway.engine.submits[-1].sampling.logprobs == -1
    assert plain.output[1].to_dict()["content"] == [
        {"type": "output_text", "text": plain.output_text, "annotations": [], "logprobs": []}
    ]
    asked = await client.responses.create(model=MODEL, input="hi", include=INCLUDE)
    assert gateway.engine.submits[-1].sampling.logprobs == 0
    message: Any = asked.output[1]
    assert [entry.top_logprobs for entry in message.content[0].logprobs] == [[]] * len(message.content[0].logprobs)
    kept = await client.responses.retrieve(asked.id, include=INCLUDE)
    assert kept.output == asked.output
    question: Any = {"role": "user", "content": "and?"}
    later = await client.responses.create(model=MODEL, input=[question], previous_response_id=asked.id)
    prompt = gateway.engine.submits[-1].prompt
    listed = [item.to_dict() async for item in client.responses.input_items.list(later.id)]
    assert "top_logprobs" not in json.dumps(listed)
    greeting: Any = {"role": "user", "content": "hi"}
    await client.responses.create(model=MODEL, input=[greeting, *asked.output, question])
    assert gateway.engine.submits[-1].prompt == prompt
