"""The helpers of OpenAI's SDK over its plain calls: streams that accumulate, answers parsed by pydantic models, raw responses."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

import openai
import pytest
from openai import pydantic_function_tool
from pydantic import BaseModel

from tests.support.gateway import Gateway, running_gateway
from tests.support.gateway_peers import Reply
from tests.support.model_folders import CHAT_TEMPLATE, MODEL, write_byte_level_model

CALL_BEGIN, CALL_END, THINK, END_THINK, END = 262, 263, 264, 265, 261
THOUGHT = [THINK, *b"\nhm\n", END_THINK, *b"\n\n"]
ASK: Any = [{"role": "user", "content": "hi"}]


class Weather(BaseModel):
    """Tells the weather."""

    city: str
    unit: Literal["C", "F"]


class City(BaseModel):
    name: str
    degrees: int


TOOLS: Any = [pydantic_function_tool(Weather)]
CALLS = [Weather(city="Rome", unit="C"), Weather(city="Köln", unit="C")]
ROME = City(name="Rome", degrees=21)
pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
"""The SDK's own, of what it parsed itself."""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that reasons."""
    made = write_byte_level_model(tmp_path_factory.mktemp("thinking"))
    config = json.loads((made / "tokenizer_config.json").read_text())
    (made / "tokenizer_config.json").write_text(
        json.dumps(config | {"chat_template": CHAT_TEMPLATE + "{#- </think> -#}"})
    )
    return made


@pytest.fixture
async def gateway(folder: Path, tmp_path: Path) -> AsyncIterator[Gateway]:
    """Two strict tools have a prompt of some hundred bytes."""
    path = tmp_path / "responses.sqlite"
    async with running_gateway(folder, store_path=path, response_retention_s=60, context_length=4096) as running:
        yield running


def calls(gateway: Gateway) -> None:
    """Let the model think, speak, and call twice."""
    ids = [*THOUGHT, *b"So."]
    for call in CALLS:
        ids += [CALL_BEGIN, *json.dumps({"name": "Weather", "arguments": call.model_dump()}).encode(), CALL_END]
    gateway.engine.reply = lambda submit, choice: Reply([*ids, END])


def tells(gateway: Gateway) -> None:
    """Let the model think, and answer by the schema."""
    gateway.engine.reply = lambda submit, choice: Reply([*THOUGHT, *ROME.model_dump_json().encode(), END])


async def test_chat_streams_accumulate(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """Calls with their arguments as the model's class, and logprobs; what comes of it goes back in whatever way it is given."""
    calls(gateway)
    async with client.chat.completions.stream(model=MODEL, messages=ASK, tools=TOOLS, logprobs=True) as stream:
        kinds = [event.type async for event in stream]
        message = (await stream.get_final_completion()).choices[0].message
    assert message.tool_calls is not None
    assert [call.function.parsed_arguments for call in message.tool_calls] == CALLS
    assert kinds.count("tool_calls.function.arguments.done") == kinds.count("logprobs.content.done") + 1 == 2
    results = [{"role": "tool", "tool_call_id": call.id, "content": "21"} for call in message.tool_calls]
    prompts = set()
    for said in (message, message.model_dump(), message.to_dict()):
        back: Any = [*ASK, said, *results]
        await client.chat.completions.create(model=MODEL, messages=back, tools=TOOLS)
        prompts.add(gateway.engine.submits[-1].prompt)
    assert len(prompts) == 1


async def test_chat_answers_are_parsed(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """Whole and streamed, and back again; one that was cut raises."""
    tells(gateway)
    whole = (await client.chat.completions.parse(model=MODEL, messages=ASK, response_format=City)).choices[0].message
    async with client.chat.completions.stream(model=MODEL, messages=ASK, response_format=City) as stream:
        streamed = (await stream.get_final_completion()).choices[0].message
    assert (whole.parsed, streamed.parsed) == (ROME, ROME)
    for said in (whole, whole.model_dump(), streamed):
        back: Any = [*ASK, said, *ASK]
        await client.chat.completions.create(model=MODEL, messages=back)
    with pytest.raises(openai.LengthFinishReasonError):
        await client.chat.completions.parse(model=MODEL, messages=ASK, response_format=City, max_tokens=15)


async def test_response_streams_accumulate(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """Calls with their arguments as the model's class; what comes of it goes back in whatever way it is given."""
    calls(gateway)
    async with client.responses.stream(model=MODEL, input="hi", tools=TOOLS) as stream:
        response = await stream.get_final_response()
    called = [item for item in response.output if item.type == "function_call"]
    assert [call.parsed_arguments for call in called] == CALLS
    results = [{"type": "function_call_output", "call_id": call.call_id, "output": "21"} for call in called]
    prompts = set()
    flat: Any = [{"type": "function", **TOOLS[0]["function"]}]
    for said in (response.output, [item.model_dump() for item in response.output]):
        back: Any = [*ASK, *said, *results]
        await client.responses.create(model=MODEL, input=back, tools=flat)
        prompts.add(gateway.engine.submits[-1].prompt)
    assert len(prompts) == 1


async def test_responses_are_parsed(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """Whole, streamed, and where a stream of the background is taken up again; and back again."""
    tells(gateway)
    whole = await client.responses.parse(model=MODEL, input="hi", text_format=City)
    async with client.responses.stream(model=MODEL, input="hi", text_format=City, background=True) as stream:
        done = [event.parsed async for event in stream if event.type == "response.output_text.done"]
        streamed = await stream.get_final_response()
    async with client.responses.stream(response_id=streamed.id, starting_after=2, text_format=City) as stream:
        resumed = await stream.get_final_response()
    assert [whole.output_parsed, *done, streamed.output_parsed, resumed.output_parsed] == [ROME] * 4
    for said in (whole.output, [item.model_dump() for item in whole.output]):
        back: Any = [*ASK, *said, *ASK]
        await client.responses.create(model=MODEL, input=back)
    assert whole.text is not None
    assert whole.text.format is not None
    assert whole.text.format.to_dict().keys() == {"type", "name", "description", "schema", "strict"}


async def test_raw_responses_stream(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """Headers are there before the body, which is parsed or read line by line."""
    gateway.says("hello")
    for api, asked in ((client.chat.completions, {"messages": ASK}), (client.responses, {"input": "hi"})):
        create: Any = api.with_streaming_response.create
        async with create(model=MODEL, **asked) as raw:
            assert raw.headers["x-request-id"] == (await raw.parse()).id
        async with create(model=MODEL, stream=True, **asked) as raw:
            assert raw.headers["content-type"].startswith("text/event-stream")
            assert [line async for line in raw.iter_lines()].count("") > 3
