"""Reasoning in `/v1/responses` goes back to the model: with the SDK, by templates that treat it as Qwen3's and DeepSeek's do."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.responses import ResponseItem, ResponseStreamEvent
from pydantic import TypeAdapter

from tests.support.gateway import TOKEN, Gateway, principal, prompt_of, running_gateway
from tests.support.gateway_peers import Reply
from tests.support.model_folders import MODEL, write_byte_level_model
from tests.support.wire import exchange

TOOL: Any = {"type": "function", "name": "add", "parameters": {"type": "object"}}
CALL_BEGIN, CALL_END, THINK, END_THINK, END = 262, 263, 264, 265, 261
THOUGHT, SECOND = "I must add.", "Now I know."
QWEN = """
{%- set seen = namespace(question=-1) %}
{%- for message in messages %}{% if message.role == 'user' %}{% set seen.question = loop.index0 %}{% endif %}{% endfor %}
{%- for tool in tools or [] %}{{ tool | tojson }}{% endfor %}
{%- for message in messages %}<|im_start|>{{ message.role }}
{% if message.reasoning_content and loop.index0 > seen.question %}<think>
{{ message.reasoning_content }}
</think>

{% endif %}{{ message.content }}
{%- for call in message.tool_calls or [] %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is false %}<think>

</think>

{% endif %}{% endif %}"""
"""Shows the thoughts since the user's last question."""
DEEPSEEK = """
{%- for message in messages %}
{%- if message.role == 'user' %}{{ '<｜User｜>' + message.content }}
{%- elif message.role == 'tool' %}{{ '<｜tool▁output▁begin｜>' + message.content + '<｜tool▁output▁end｜>' }}
{%- else %}{{ '<｜Assistant｜>' + message.content.split('</think>')[-1] }}
{%- for call in message.tool_calls or [] %}
{{- '<｜tool▁calls▁begin｜>' + call.function.name + '```json' + call.function.arguments + '```' }}
{%- endfor %}{% endif %}{% endfor %}
{%- if tools and add_generation_prompt %}<｜Assistant｜><think>
{% endif %}"""
"""Shows no thoughts but those that begin; puts arguments together with texts."""


def write_model(folder: Path, template: str) -> Path:
    made = write_byte_level_model(folder)
    config = json.loads((made / "tokenizer_config.json").read_text())
    (made / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": template}))
    return made


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("as-qwen"), QWEN)


@pytest.fixture
async def gateway(folder: Path, tmp_path: Path) -> AsyncIterator[Gateway]:
    async with running_gateway(folder, store_path=tmp_path / "responses.sqlite", response_retention_s=60) as running:
        yield running


def thinks(gateway: Gateway, thought: str, *, call: bool = False, text: str = "") -> None:
    """Let the engine think, speak, and perhaps call."""
    called = [CALL_BEGIN, *b'{"name": "add", "arguments": {"a": 1}}', CALL_END] if call else []
    ids = [THINK, *f"\n{thought}\n".encode(), END_THINK, *f"\n\n{text}".encode(), *called, END]
    gateway.engine.reply = lambda submit, choice: Reply(ids)


def result_of(response: Any) -> Any:
    """What the tool gives to a response's call."""
    return {"type": "function_call_output", "call_id": response.output[-1].call_id, "output": "two"}


async def ways_on(client: openai.AsyncOpenAI, asked: list[Any], response: Any) -> list[dict[str, Any]]:
    """All ways to go on: with the output as it is, encrypted only, as empty items with ids, by names, or by the response's id."""
    output = [item.to_dict() for item in response.output]
    bare = [{name: value for name, value in item.items() if name != "content"} for item in output]
    assert ["encrypted_content" in item for item in output] == [item["type"] == "reasoning" for item in output]
    empty = [item | ({"content": [], "encrypted_content": None} if "content" in item else {}) for item in output]
    names = [{"type": "item_reference", "id": item["id"]} for item in output]
    assert all(item["type"] != "message" for item in output), "which need their content"
    return [
        {"input": [*asked, *response.output]},
        {"input": [*asked, *bare]},
        {"input": [*asked, *empty]},
        {"input": [*asked, *names]},
        {"input": [], "previous_response_id": response.id},
    ]


async def test_a_model_that_calls_tools_keeps_its_thoughts(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """Up to the next question: whichever way the client goes on, the prompt is the same, and that of `/v1/messages`."""
    question: Any = {"role": "user", "content": "1 and 1?"}
    common: dict[str, Any] = {"model": MODEL, "tools": [TOOL], "include": ["reasoning.encrypted_content"]}
    thinks(gateway, THOUGHT, call=True)
    first = await client.responses.create(input=[question], **common)
    assert [item.type for item in first.output] == ["reasoning", "function_call"]
    thinks(gateway, SECOND, call=True)
    prompts, seconds = [], []
    for way in await ways_on(client, [question], first):
        seconds.append(await client.responses.create(**(common | way | {"input": [*way["input"], result_of(first)]})))
        prompts.append(prompt_of(gateway))
    assert len(set(prompts)) == 1
    assert prompts[0].endswith(
        f"<|im_start|>user\n1 and 1?<|im_end|>\n<|im_start|>assistant\n<think>\n{THOUGHT}\n</think>\n\n<tool_call>\n"
        '{"name": "add", "arguments": {"a": 1}}\n</tool_call><|im_end|>\n'
        "<|im_start|>tool\ntwo<|im_end|>\n<|im_start|>assistant\n"
    )
    assert await prompt_of_messages(gateway) == prompts[0]
    thinks(gateway, "", text="2")
    prompts = []
    before = [question, *first.output, result_of(first)]
    for way in await ways_on(client, before, seconds[-1]):
        await client.responses.create(**(common | way | {"input": [*way["input"], result_of(seconds[-1])]}))
        prompts.append(prompt_of(gateway))
    assert len(set(prompts)) == 1
    assert prompts[0].index(THOUGHT) < prompts[0].index(SECOND)
    await client.responses.create(model=MODEL, input=[*before, *seconds[-1].output, result_of(seconds[-1]), question])
    assert not {THOUGHT, SECOND} & {line.strip() for line in prompt_of(gateway).splitlines()}


async def prompt_of_messages(gateway: Gateway) -> str:
    """What `/v1/messages` makes of the same conversation."""
    used = {"type": "tool_use", "id": "t", "name": "add", "input": {"a": 1}}
    body = {
        "model": MODEL,
        "max_tokens": 100,
        "tools": [{"name": "add", "input_schema": {"type": "object"}}],
        "messages": [
            {"role": "user", "content": "1 and 1?"},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": THOUGHT, "signature": ""}, used]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "two"}]},
        ],
    }
    headers = (f"Authorization: Bearer {TOKEN}", "Content-Type: application/json")
    answer = await exchange(gateway.port, "POST", "/v1/messages", headers=headers, body=json.dumps(body).encode())
    assert answer.status == 200
    return prompt_of(gateway)


async def test_a_template_that_shows_no_thoughts_gets_them_and_drops_them(tmp_path: Path) -> None:
    """As DeepSeek's. Its sums of texts take the call's arguments."""
    made = write_model(tmp_path, DEEPSEEK)
    async with (
        running_gateway(made, store_path=tmp_path / "responses.sqlite", response_retention_s=60) as gateway,
        openai.AsyncOpenAI(api_key=TOKEN, base_url=gateway.url + "/v1", max_retries=0) as client,
    ):
        call = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n```json\n"
        call += '{"a": 1}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>'
        gateway.engine.reply = lambda submit, choice: Reply([*THOUGHT.encode(), END_THINK, *call.encode(), END])
        first = await client.responses.create(model=MODEL, input="1 and 1?", tools=[TOOL])
        assert [item.type for item in first.output] == ["reasoning", "function_call"]
        given: Any = [{"role": "user", "content": "1 and 1?"}, *first.output, result_of(first)]
        for way in ({"input": given}, {"input": given[-1:], "previous_response_id": first.id}):
            await client.responses.create(model=MODEL, tools=[TOOL], **way)
            assert prompt_of(gateway) == (
                '<｜User｜>1 and 1?<｜Assistant｜><｜tool▁calls▁begin｜>add```json{"a": 1}```'
                "<｜tool▁output▁begin｜>two<｜tool▁output▁end｜><｜Assistant｜><think>\n"
            )


@pytest.mark.parametrize(
    ("items", "shown"),
    [
        (["rs a", "said b", "call"], ["<think>\na\n</think>\n\nb<tool_call>"]),
        (["rs a", "rs b", "said c"], ["<think>\na\nb\n</think>\n\nc<|im_end|>"]),
        (["said a", "rs b", "call"], ["assistant\na<|im_end|>", "<think>\nb\n</think>\n\n<tool_call>"]),
        (["rs a", "call", "call"], ["<think>\na\n</think>\n\n<tool_call>", "</tool_call><tool_call>"]),
        (["call", "rs a", "output"], ["<think>\na\n</think>\n\n<|im_end|>\n<|im_start|>tool"]),
        (["rs a"], ["<think>\na\n</think>\n\n<|im_end|>\n<|im_start|>assistant\n"]),
        (["sum a", "call"], ["<think>\na\n</think>\n\n<tool_call>"]),
        (["none", "call"], ["user\nhi<|im_end|>\n<|im_start|>assistant\n<tool_call>"]),
    ],
)
async def test_thoughts_stand_before_what_they_led_to(
    gateway: Gateway, client: openai.AsyncOpenAI, items: list[str], shown: list[str]
) -> None:
    """What was said after them, or called; if nothing, they are a turn of their own, as the model was cut."""

    def item(said: str) -> dict[str, Any]:
        kind, _, text = said.partition(" ")
        return {
            "rs": {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": text}]},
            "sum": {"type": "reasoning", "summary": [{"type": "summary_text", "text": text}]},
            "none": {"type": "reasoning", "summary": [], "content": None, "encrypted_content": None},
            "said": {"role": "assistant", "content": text},
            "call": {"type": "function_call", "call_id": "c", "name": "add", "arguments": "{}"},
            "output": {"type": "function_call_output", "call_id": "c", "output": "two"},
        }[kind]

    given: Any = [{"role": "user", "content": "hi"}, *map(item, items)]
    await client.responses.create(model=MODEL, input=given)
    for text in shown:
        assert text in prompt_of(gateway)


async def test_reasoning_is_encrypted_for_who_asks(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """In the answer, in events when the thought has ended, and of what is kept; never otherwise, and always a sound item."""
    thinks(gateway, THOUGHT, text="two")
    plain = await client.responses.create(model=MODEL, input="hi")
    assert '"encrypted_content"' not in plain.to_json()
    include: Any = ["reasoning.encrypted_content"]
    stream = await client.responses.create(model=MODEL, input="hi", include=include, stream=True)
    events = [event async for event in stream]
    told = [event.item for event in events if event.type in ("response.output_item.added", "response.output_item.done")]
    encrypted = [getattr(item, "encrypted_content", None) for item in told if item.type == "reasoning"]
    last: Any = events[-1]
    assert encrypted == [None, last.response.output[0].encrypted_content]
    later = await client.responses.create(model=MODEL, input="and?", previous_response_id=plain.id)
    for response_id, has_it in ((plain.id, False), (last.response.id, True)):
        assert ("encrypted_content" in (await client.responses.retrieve(response_id)).to_json()) is has_it
        assert "encrypted_content" in (await client.responses.retrieve(response_id, include=include)).to_json()
    listed = [item async for item in client.responses.input_items.list(later.id)]
    assert [getattr(item, "encrypted_content", None) for item in listed] == [None] * 4
    listed = [item async for item in client.responses.input_items.list(later.id, include=include)]
    assert [bool(getattr(item, "encrypted_content", None)) for item in listed] == [False, False, True, False]
    declared: TypeAdapter[Any] = TypeAdapter(ResponseItem)
    for item in listed:
        declared.validate_python(item.to_dict(), strict=True)


async def test_a_streamed_thought_has_a_part_of_its_own(gateway: Gateway) -> None:
    """Which begins, grows and ends between the item's beginning and end, to the letter as the SDK declares it."""
    thinks(gateway, THOUGHT, text="two")
    body = json.dumps(
        {"model": MODEL, "input": "hi", "stream": True, "include": ["reasoning.encrypted_content"]}
    ).encode()
    headers = (f"Authorization: Bearer {TOKEN}", "Content-Type: application/json")
    answer = await exchange(gateway.port, "POST", "/v1/responses", headers=headers, body=body)
    lines = [line.removeprefix(b"data: ") for line in answer.body.split(b"\n") if line.startswith(b"data: ")]
    declared: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
    events = [declared.validate_json(line, strict=True) for line in lines]
    thought = [event for event in events if getattr(event, "output_index", None) == 0]
    deltas = [event.delta for event in thought if event.type == "response.reasoning_text.delta"]
    assert "".join(deltas) == THOUGHT
    kinds = [event.type.removeprefix("response.") for event in thought]
    assert kinds == [
        "output_item.added",
        "content_part.added",
        *["reasoning_text.delta"] * len(deltas),
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
    ]
    assert [thought[at].part.to_dict() for at in (1, -2)] == [
        {"type": "reasoning_text", "text": ""},
        {"type": "reasoning_text", "text": THOUGHT},
    ]


async def test_thoughts_that_are_not_kept_are_none(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """An empty item with an id of nobody's, or of another tenant's, is empty; nobody has many looked for in vain."""
    thinks(gateway, THOUGHT, text="two")
    mine: Any = (await client.responses.create(model=MODEL, input="hi")).output[0].to_dict() | {"content": []}
    gateway.tokens.good["other-tenant"] = principal("client-9", tenant="globex")
    stranger = client.with_options(api_key="other-tenant")
    said: Any = {"role": "assistant", "content": "two"}
    for asker, items, shown in (
        (client, [mine], 1),
        (stranger, [mine], 0),
        (client, [mine | {"id": f"rs_{'0' * 32}0000"}], 0),
        (client, [mine, *({"type": "reasoning", "id": f"rs_{number:032}0000"} for number in range(16))], 0),
        (client, [mine, *({"type": "reasoning", "id": f"rs_{number:032}0000"} for number in range(15))], 1),
    ):
        given: Any = [{"role": "user", "content": "hi"}, *items, said]
        await asker.responses.create(model=MODEL, input=given)
        assert prompt_of(gateway).count(THOUGHT) == shown


async def test_what_others_encrypted_is_refused(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """Another API's, another tenant's, or what was changed; by its place."""
    thinks(gateway, THOUGHT, text="two")
    mine = (await client.responses.create(model=MODEL, input="hi", include=["reasoning.encrypted_content"])).output[0]
    assert mine.type == "reasoning"
    gateway.tokens.good["other-tenant"] = principal("client-9", tenant="globex")
    stranger = client.with_options(api_key="other-tenant")
    sealed = mine.encrypted_content or ""
    cases = ((stranger, sealed), (client, sealed[:-8] + "AAAAAAA="), (client, "gAAAA"), (client, "é"), (client, ""))
    for asker, text in cases:
        given: Any = [{"role": "user", "content": "hi"}, mine.to_dict() | {"encrypted_content": text}]
        with pytest.raises(openai.BadRequestError) as refused:
            await asker.responses.create(model=MODEL, input=given)
        assert (refused.value.code, refused.value.param) == ("invalid_encrypted_content", "input[1].encrypted_content")
