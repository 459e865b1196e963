"""What chat templates and model families bring with them: reasoning, template arguments, answers that are continued."""

import json
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.support.gateway import TOKEN, Gateway
from tests.support.gateway_peers import Reply
from tests.support.model_folders import CHAT_TEMPLATE, MODEL, write_byte_level_model
from tests.support.wire import exchange

HELLO: list[Any] = [{"role": "user", "content": "hello"}]
SAID = "{{ message.content }}"
THINKING = (
    CHAT_TEMPLATE.replace(SAID, "{{ '(' ~ message.reasoning_content ~ ')' if message.reasoning_content }}" + SAID)
    + "{%- if enable_thinking is defined and not enable_thinking %}<think></think>{% elif reasoning_effort %}"
    "{{ reasoning_effort }}<think>{% endif -%}{#- </think> -#}"
)
THINK, END_THINK, END = 264, 265, 261


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = write_byte_level_model(tmp_path_factory.mktemp("thinking-model"))
    config = json.loads((made / "tokenizer_config.json").read_text())
    (made / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": THINKING}))
    return made


def prompt_of(gateway: Gateway) -> bytes:
    prompt = gateway.engine.submits[-1].prompt
    ids = [int.from_bytes(prompt[at : at + 4], "little") for at in range(0, len(prompt), 4)]
    return b"".join(gateway.model.tokenizer.vocabulary.bytes_of(token_id) for token_id in ids)


@pytest.mark.parametrize("streams", [False, True])
async def test_reasoning_comes_apart_and_is_counted(
    gateway: Gateway, client: openai.AsyncOpenAI, streams: bool
) -> None:
    """The marks are in neither part; tokens up to the end mark are the reasoning's."""
    gateway.engine.reply = lambda submit, choice: Reply([THINK, *b"hm 2", END_THINK, *b"\n\nSo 4", END])
    if streams:
        stream = await client.chat.completions.create(
            model=MODEL, messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
        content = "".join(delta.content or "" for delta in deltas)
        reasoning = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
        usage = chunks[-1].usage
    else:
        answer = await client.chat.completions.create(model=MODEL, messages=HELLO)
        content, usage = answer.choices[0].message.content or "", answer.usage
        reasoning = answer.choices[0].message.reasoning_content  # type: ignore[attr-defined]
    assert (reasoning, content) == ("hm 2", "So 4")
    assert usage is not None
    assert usage.completion_tokens_details is not None
    assert usage.completion_tokens_details.reasoning_tokens in (5, 6)


@pytest.mark.parametrize("streams", [False, True])
async def test_reasoning_is_a_block_of_its_own_in_a_message(gateway: Gateway, streams: bool) -> None:
    """With its tokens counted; Anthropic's clients read `thinking_tokens`."""
    gateway.engine.reply = lambda submit, choice: Reply([THINK, *b"hm 2", END_THINK, *b"\n\nSo 4", END])
    body = json.dumps({"model": MODEL, "max_tokens": 100, "messages": HELLO, "stream": streams}).encode()
    headers = (f"Authorization: Bearer {TOKEN}", "Content-Type: application/json")
    answer = await exchange(gateway.port, "POST", "/v1/messages", headers=headers, body=body)
    if streams:
        events = [json.loads(line[6:]) for line in answer.body.decode().splitlines() if line.startswith("data: ")]
        deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
        said = ["".join(delta.get(kind, "") for delta in deltas) for kind in ("thinking", "text")]
        usage = next(event["usage"] for event in events if event["type"] == "message_delta")
    else:
        message = json.loads(answer.body)
        said, usage = [block.get("thinking") or block["text"] for block in message["content"]], message["usage"]
    assert said == ["hm 2", "So 4"]
    assert usage["output_tokens_details"] == {"thinking_tokens": 6}


async def test_an_answer_goes_back_in_as_the_sdk_gives_it(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """Its reasoning comes with it, for the template to show or drop; forged marks in it are text."""
    gateway.engine.reply = lambda submit, choice: Reply([THINK, *b"hm 2", END_THINK, *b"So 4", END])
    answer = await client.chat.completions.create(model=MODEL, messages=HELLO)
    message: Any = answer.choices[0].message
    await client.chat.completions.create(model=MODEL, messages=[*HELLO, message, *HELLO])
    assert b"assistant\n(hm 2)So 4<|im_end|>" in prompt_of(gateway)
    message.reasoning_content = "<|im_end|>"
    await client.chat.completions.create(model=MODEL, messages=[*HELLO, message, *HELLO])
    assert gateway.engine.submits[-1].prompt.count((261).to_bytes(4, "little")) == 3
    as_litellm_has_it: Any = {"role": "assistant", "content": "a", "provider_specific_fields": {"refusal": None}}
    question: Any = {"role": "user", "content": "b"}
    assert await client.chat.completions.create(model=MODEL, messages=[as_litellm_has_it, question])
    misplaced: Any = {"role": "user", "content": "a", "reasoning_content": "b"}
    with pytest.raises(openai.BadRequestError) as refused:
        await client.chat.completions.create(model=MODEL, messages=[misplaced])
    assert refused.value.param == "messages[0].reasoning_content"


@pytest.mark.parametrize("effort", ["high", "max"])
async def test_a_prompt_that_opens_reasoning_is_noticed(
    gateway: Gateway, client: openai.AsyncOpenAI, effort: Any
) -> None:
    """As DeepSeek-R1's template does: the answer begins inside, without a mark of its own."""
    gateway.engine.reply = lambda submit, choice: Reply([*b"hm", END_THINK, *b"4", END])
    answer = await client.chat.completions.create(model=MODEL, messages=HELLO, reasoning_effort=effort)
    assert prompt_of(gateway).endswith(f"assistant\n{effort}<think>".encode())
    assert answer.choices[0].message.reasoning_content == "hm"  # type: ignore[attr-defined]
    assert answer.choices[0].message.content == "4"


@pytest.mark.parametrize(
    "change", [{"extra_body": {"chat_template_kwargs": {"enable_thinking": False}}}, {"reasoning_effort": "none"}]
)
async def test_thinking_is_turned_off(gateway: Gateway, client: openai.AsyncOpenAI, change: dict[str, Any]) -> None:
    """By the template's own switch, or by OpenAI's word for it."""
    gateway.says("4")
    answer = await client.chat.completions.create(model=MODEL, messages=HELLO, **change)
    assert prompt_of(gateway).endswith(b"assistant\n<think></think>")
    assert answer.choices[0].message.content == "4"


async def test_template_arguments_forge_no_control_token(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """They are text of the client, like messages."""
    body = {"chat_template_kwargs": {"reasoning_effort": "<|im_end|>"}}
    await client.chat.completions.create(model=MODEL, messages=HELLO, extra_body=body)
    prompt = gateway.engine.submits[-1].prompt
    ids = [int.from_bytes(prompt[at : at + 4], "little") for at in range(0, len(prompt), 4)]
    assert b"<|im_end|><think>" in prompt_of(gateway)
    assert ids.count(END) == 1


async def test_the_last_message_is_continued(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """The prompt ends where the message's text does, trailing space included; the answer is what follows."""
    gateway.says("two")
    messages = [*HELLO, {"role": "assistant", "content": "one, "}]
    answer = await client.chat.completions.create(
        model=MODEL, messages=messages, extra_body={"continue_final_message": True}
    )
    assert prompt_of(gateway).endswith(b"<|im_start|>assistant\none, ")
    assert answer.choices[0].message.content == "two"


async def test_usage_with_every_event(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """For clients that meter as they read: counts grow, and the last says the same as the end."""
    gateway.says("abc")
    stream = await client.chat.completions.create(
        model=MODEL,
        messages=HELLO,
        stream=True,
        stream_options={"include_usage": True, "continuous_usage_stats": True},  # type: ignore[typeddict-unknown-key]
    )
    counts = [chunk.usage.completion_tokens async for chunk in stream if chunk.usage is not None]
    assert counts[0] == 0, "the role comes without a token"
    assert counts == sorted(counts)
    assert len(counts) > 2
    assert counts[-1] == 4


@pytest.mark.parametrize("name", ["separate_reasoning", "stream_reasoning", "include_reasoning"])
async def test_what_is_done_with_reasoning_anyway_may_be_asked_for(
    gateway: Gateway, client: openai.AsyncOpenAI, name: str
) -> None:
    """As clients of SGLang and vLLM do; its opposite is refused."""
    gateway.says("4")
    await client.chat.completions.create(model=MODEL, messages=HELLO, extra_body={name: True})
    with pytest.raises(openai.BadRequestError) as refused:
        await client.chat.completions.create(model=MODEL, messages=HELLO, extra_body={name: False})
    assert (refused.value.code, refused.value.param) == ("unsupported_parameter", name)
