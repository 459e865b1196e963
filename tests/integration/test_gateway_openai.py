"""The OpenAI SDK against a gateway over HTTP, with an engine, an auditor and a policy of ours behind it."""

import asyncio
from typing import Any, Literal

import openai
import pytest

from appliance.messages.policy import Reserve
from tests.support.gateway import Gateway
from tests.support.gateway_peers import Reply
from tests.support.model_folders import MODEL
from tests.support.waiting import until

HELLO: list[Any] = [{"role": "user", "content": "hello"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "adds",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
    },
}


async def test_chat(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """A whole answer with its usage and the indices of both records."""
    gateway.says("Hello wörld! 😀")
    gateway.engine.cached_tokens = 16
    raw = await client.chat.completions.with_raw_response.create(model=MODEL, messages=HELLO)
    answer = raw.parse()
    assert answer.id.startswith("chatcmpl-")
    assert raw.headers["x-request-id"] == answer.id
    assert answer.choices[0].message.content == "Hello wörld! 😀"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 19
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 19
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 16
    intent, outcome = (int(raw.headers[f"casemate-audit-{name}"]) for name in ("index", "outcome"))
    assert [gateway.auditor.records[index][0] for index in (intent, outcome)] == [
        "inference_intent",
        "inference_outcome",
    ]


async def test_chat_stream(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """The first delta has the role, pieces are whole characters, the last event has the usage."""
    gateway.says("grüße 😀!")
    stream = await client.chat.completions.create(
        model=MODEL, messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "grüße 😀!"
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]][-1] == "stop"
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == len("grüße 😀!".encode()) + 1
    assert len({chunk.id for chunk in chunks}) == 1


async def test_choices_are_told_apart(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """n choices of one prompt are one intent; each has its own text."""
    gateway.engine.reply = lambda submit, choice: Reply(gateway.ids(f"answer {choice}"))
    answer = await client.chat.completions.create(model=MODEL, messages=HELLO, n=3)
    assert [choice.message.content for choice in answer.choices] == ["answer 0", "answer 1", "answer 2"]
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len(gateway.auditor.of_kind("inference_intent")) == 1
    stream = await client.chat.completions.create(model=MODEL, messages=HELLO, n=2, stream=True)
    texts = {0: "", 1: ""}
    async for chunk in stream:
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == {0: "answer 0", 1: "answer 1"}


async def test_chat_logprobs(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """Every token with its bytes and the likeliest in its place, also where a character spans tokens."""
    gateway.says("aé")
    answer = await client.chat.completions.create(model=MODEL, messages=HELLO, logprobs=True, top_logprobs=2)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert [entry.bytes for entry in logprobs.content] == [[97], [0xC3], [0xA9]]
    assert logprobs.content[0].token == "a"
    assert [len(entry.top_logprobs) for entry in logprobs.content] == [2, 2, 2]
    stream = await client.chat.completions.create(model=MODEL, messages=HELLO, logprobs=True, stream=True)
    streamed = [chunk.choices[0].logprobs async for chunk in stream]
    assert [entry.bytes for part in streamed if part and part.content for entry in part.content] == [
        [97],
        [0xC3],
        [0xA9],
    ]


@pytest.mark.parametrize("streams", [False, True])
async def test_stop_string(gateway: Gateway, client: openai.AsyncOpenAI, streams: bool) -> None:
    """Across token boundaries; what comes after is neither delivered nor counted, and the engine is told."""
    gateway.says("one END two three", delay_s=0.002)
    if streams:
        stream = await client.chat.completions.create(
            model=MODEL, messages=HELLO, stop=["END"], stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        usage = chunks[-1].usage
    else:
        answer = await client.chat.completions.create(model=MODEL, messages=HELLO, stop="END")
        text, usage = answer.choices[0].message.content or "", answer.usage
    assert text == "one "
    assert usage is not None
    assert usage.completion_tokens == len("one END")
    assert (gateway.engine.cancels[0].choice, gateway.engine.cancels[0].keep_tokens) == (0, len("one END"))
    assert gateway.engine.submits[0].caches_output is False
    outcome = gateway.auditor.of_kind("inference_outcome")[0]
    assert outcome["status_code"] == "stop"
    assert outcome["message_context"]["completion_tokens"] == len("one END")
    await until(lambda: bool(gateway.policy.settles))
    assert gateway.policy.settles[0].output_tokens == len("one END")


async def test_stop_strings_that_do_not_match_tell_the_engine_what_counts(
    gateway: Gateway, client: openai.AsyncOpenAI
) -> None:
    """The engine caches output of such a request only when it hears how many tokens count."""
    gateway.says("nothing here")
    await client.chat.completions.create(model=MODEL, messages=HELLO, stop=["END"])
    assert [cancel.keep_tokens for cancel in gateway.engine.cancels] == [len("nothing here") + 1]


async def test_what_asks_for_nothing_is_taken(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """Null as if it were absent, inside of objects, too; and by SGLang's and vLLM's names what is always done."""
    always = {"skip_special_tokens": True, "spaces_between_special_tokens": True, "no_stop_trim": False}
    part: Any = {"type": "text", "text": "hello", "image_url": None}
    options: Any = {"include_usage": None, "continuous_usage_stats": None}
    for extra in (always, {"include_stop_str_in_output": False}):
        stream = await client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": [part]}],
            stream=True,
            stream_options=options,
            extra_body=extra,
        )
        assert {chunk.usage async for chunk in stream} == {None}


@pytest.mark.parametrize("tier", ["auto", "default", None])
async def test_the_tier_is_told_to_who_asked_for_one(
    gateway: Gateway, client: openai.AsyncOpenAI, tier: Literal["auto", "default"] | None
) -> None:
    """There is only the default."""
    options: Any = {} if tier is None else {"service_tier": tier}
    told = None if tier is None else "default"
    answer = await client.chat.completions.create(model=MODEL, messages=HELLO, top_p=0, **options)
    assert answer.service_tier == told
    assert gateway.engine.submits[0].sampling.top_p == 0
    stream = await client.chat.completions.create(model=MODEL, messages=HELLO, stream=True, **options)
    assert {chunk.service_tier async for chunk in stream} == {told}


async def test_length_and_sampling_reach_the_engine(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """Parameters arrive as asked; the model's own default temperature is used where none was asked."""
    gateway.says("abcdefghijklmnop")
    answer = await client.chat.completions.create(
        model=MODEL,
        messages=HELLO,
        max_completion_tokens=5,
        seed=7,
        top_p=0.9,
        frequency_penalty=0.5,
        presence_penalty=-0.5,
        logit_bias={"97": -5},
        extra_body={
            "top_k": 3,
            "min_p": 0.1,
            "repetition_penalty": 1.1,
            "min_tokens": 2,
            "ignore_eos": True,
            "stop_token_ids": [10],
        },
    )
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].message.content == "abcde"
    sampling = gateway.engine.submits[0].sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p, sampling.seed) == (
        0.5,
        0.9,
        3,
        0.1,
        7,
    )
    assert (sampling.frequency_penalty, sampling.presence_penalty, sampling.repetition_penalty) == (0.5, -0.5, 1.1)
    assert (sampling.logit_bias, sampling.min_tokens, sampling.ignore_eos, sampling.stop_token_ids) == (
        {97: -5.0},
        2,
        True,
        (10,),
    )
    assert sampling.max_tokens == 5


async def test_a_seed_is_chosen_and_recorded_where_none_was_asked(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """The record names the seed, so an answer can be computed again."""
    await client.chat.completions.create(model=MODEL, messages=HELLO)
    await client.chat.completions.create(model=MODEL, messages=HELLO)
    recorded = [
        event["unmapped"]["casemate"]["parameters"]["seed"] for event in gateway.auditor.of_kind("inference_intent")
    ]
    assert recorded == [submit.sampling.seed for submit in gateway.engine.submits]
    assert recorded[0] != recorded[1]


@pytest.mark.parametrize(
    ("prompt", "token_ids"),
    [("ab", [[97, 98]]), ([97, 98], [[97, 98]]), (["ab", "c"], [[97, 98], [99]]), ([[97], [98, 99]], [[97], [98, 99]])],
    ids=["text", "ids", "texts", "id-lists"],
)
async def test_completion_prompts(
    gateway: Gateway, client: openai.AsyncOpenAI, prompt: Any, token_ids: list[list[int]]
) -> None:
    """All four forms; each prompt is an intent of its own, and choices are numbered through."""
    gateway.says("xyz")
    raw = await client.completions.with_raw_response.create(model=MODEL, prompt=prompt)
    answer = raw.parse()
    sent = [
        [int.from_bytes(submit.prompt[at : at + 4], "little") for at in range(0, len(submit.prompt), 4)]
        for submit in gateway.engine.submits
    ]
    assert sent == token_ids
    assert [choice.text for choice in answer.choices] == ["xyz"] * len(token_ids)
    assert [choice.index for choice in answer.choices] == list(range(len(token_ids)))
    assert len(raw.headers["casemate-audit-index"].split(",")) == len(token_ids)
    reserves, last = gateway.policy.reserves, len(token_ids) - 1
    assert [(one.num_further, one.is_further) for one in reserves] == [(last, False), *[(0, True)] * last]
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == sum(map(len, token_ids))


async def test_a_list_that_is_refused_was_no_request(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """What its first prompts had reserved is given back, and they count for nothing."""
    answers = iter([None, None, ("rate_limit", "no more", 7)])
    reply = gateway.policy._reply

    def refuse_the_third(message: Any) -> Any:
        if isinstance(message, Reserve):
            gateway.policy.denial = next(answers)
        return reply(message)

    gateway.policy._reply = refuse_the_third  # type: ignore[method-assign]
    with pytest.raises(openai.RateLimitError):
        await client.completions.create(model=MODEL, prompt=["a", "b", "c"])
    await until(lambda: len(gateway.policy.settles) == 2)
    assert [(one.prompt_tokens, one.output_tokens, one.is_begun) for one in gateway.policy.settles] == [
        (0, 0, False)
    ] * 2
    assert gateway.engine.submits == []


async def test_echo_with_logprobs(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """As evaluation tools ask: the prompt's own logprobs first, offsets running through prompt and answer."""
    gateway.says("cd")
    answer = await client.completions.create(model=MODEL, prompt="ab", echo=True, logprobs=1, max_tokens=5)
    choice = answer.choices[0]
    assert choice.text == "abcd"
    assert choice.logprobs is not None
    assert choice.logprobs.tokens == ["a", "b", "c", "d"]
    assert choice.logprobs.text_offset == [0, 1, 2, 3]
    assert choice.logprobs.token_logprobs == [None, -0.5, -0.5, -0.5]
    assert choice.logprobs.top_logprobs is not None
    assert choice.logprobs.top_logprobs[2] == {"c": -0.5}


async def test_parts_of_characters_are_told_apart(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """By OpenAI's own names, in the prompt and in the answer; all of them read as the same replacement character."""
    gateway.says("é")
    answer = await client.completions.create(model=MODEL, prompt="ü", echo=True, logprobs=0, max_tokens=5)
    logprobs = answer.choices[0].logprobs
    assert answer.choices[0].text == "üé"
    assert logprobs is not None
    assert logprobs.tokens == [r"bytes:\xc3", r"bytes:\xbc", r"bytes:\xc3", r"bytes:\xa9"]
    assert logprobs.top_logprobs is not None
    assert logprobs.top_logprobs[1:] == [{token: -0.5} for token in logprobs.tokens[1:]]
    assert logprobs.text_offset == [0, 0, 1, 1]


async def test_a_token_is_always_among_its_top_logprobs(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """So there are up to one more than were asked for, and with `logprobs: 0` the token alone."""
    gateway.says("cd")
    answer = await client.completions.create(model=MODEL, prompt="ab", echo=True, logprobs=0, max_tokens=5)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.top_logprobs == [None, {"b": -0.5}, {"c": -0.5}, {"d": -0.5}]


@pytest.mark.parametrize("streams", [False, True])
async def test_a_prompt_is_weighed_without_an_answer(
    gateway: Gateway, client: openai.AsyncOpenAI, streams: bool
) -> None:
    """`max_tokens: 0` with the echo: its logprobs, and no text after it."""
    gateway.says("cd")
    asked: dict[str, Any] = {"model": MODEL, "prompt": "ab", "echo": True, "logprobs": 1, "max_tokens": 0, "best_of": 1}
    if streams:
        choices = [chunk.choices[0] async for chunk in await client.completions.create(stream=True, **asked)]
    else:
        choices = (await client.completions.create(**asked)).choices
    assert "".join(choice.text for choice in choices) == "ab"
    assert [token for choice in choices if choice.logprobs for token in choice.logprobs.tokens or []] == ["a", "b"]
    assert choices[-1].finish_reason == "length"


async def test_completion_stream_of_several_prompts(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """Events of all prompts in one stream, told apart by index; the echo comes first."""
    gateway.says("12")
    stream = await client.completions.create(model=MODEL, prompt=["a", "b"], n=2, echo=True, stream=True)
    texts = dict.fromkeys(range(4), "")
    async for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts == {0: "a12", 1: "a12", 2: "b12", 3: "b12"}


async def test_each_prompt_of_a_stream_is_echoed_with_its_logprobs(
    gateway: Gateway, client: openai.AsyncOpenAI
) -> None:
    """Also of one that the engine begins after another has sent its first token."""
    gateway.says("12")
    gateway.engine.others_wait_for = begun = asyncio.Event()
    stream = await client.completions.create(model=MODEL, prompt=["ab", "cd"], echo=True, logprobs=0, stream=True)
    tokens: dict[int, list[str]] = {0: [], 1: []}
    async for chunk in stream:
        begun.set()
        for choice in chunk.choices:
            assert choice.logprobs is not None or not choice.text
            tokens[choice.index] += (choice.logprobs and choice.logprobs.tokens) or []
    assert tokens == {0: ["a", "b", "1", "2"], 1: ["c", "d", "1", "2"]}


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize(
    ("stop", "max_tokens", "ended"), [(["lo"], 9, "lo"), ([], 9, 261), ([], 2, None)], ids=["text", "token", "length"]
)
async def test_what_ended_an_answer_is_told(
    gateway: Gateway,
    client: openai.AsyncOpenAI,
    streams: bool,
    stop: list[str],
    max_tokens: int,
    ended: str | int | None,
) -> None:
    """By SGLang's name for it: the stop string, the token, or null at the limit."""
    gateway.says("hello")
    common: dict[str, Any] = {"model": MODEL, "max_tokens": max_tokens, "stop": stop, "stream": streams}
    chat: Any = await client.chat.completions.create(messages=HELLO, **common)
    text: Any = await client.completions.create(prompt="x", **common)
    for answer in (chat, text):
        choices = [chunk.choices[0] async for chunk in answer] if streams else answer.choices
        assert choices[-1].matched_stop == ended
        assert choices[-1].finish_reason == ("length" if ended is None else "stop")


def _joined(pieces: list[Any]) -> Any:
    """A call out of its pieces: the first has id and name, all have some of the arguments."""
    first = pieces[0]
    assert len(pieces) > 2
    assert [piece.function.name for piece in pieces[1:]] == [None] * (len(pieces) - 1)
    first.function.arguments = "".join(piece.function.arguments for piece in pieces)
    return first


@pytest.mark.parametrize("streams", [False, True])
async def test_tool_calls(gateway: Gateway, client: openai.AsyncOpenAI, streams: bool) -> None:
    """Calls in the Hermes form become `tool_calls`, the text beside them stays content."""
    first, second = (
        [*gateway.ids(f'{{"name": "add", "arguments": {{"a": {number}}}}}', ends=False)] for number in (1, 2)
    )
    marked = [*b"Sure. ", 262, *first, 263, 262, *second, 263, 261]
    gateway.engine.reply = lambda submit, choice: Reply(marked)
    if streams:
        stream = await client.chat.completions.create(model=MODEL, messages=HELLO, tools=[TOOL], stream=True)  # type: ignore[list-item]
        chunks = [chunk.choices[0] async for chunk in stream]
        content = "".join(chunk.delta.content or "" for chunk in chunks)
        calls: list[Any] = [call for chunk in chunks for call in chunk.delta.tool_calls or []]
        assert [call.index for call in calls if call.id] == [0, 1]
        calls = [_joined([call for call in calls if call.index == index]) for index in (0, 1)]
        reason = chunks[-1].finish_reason
    else:
        answer = await client.chat.completions.create(model=MODEL, messages=HELLO, tools=[TOOL])  # type: ignore[list-item]
        content, calls = answer.choices[0].message.content or "", list(answer.choices[0].message.tool_calls or [])
        reason = answer.choices[0].finish_reason
    assert content.strip() == "Sure."
    assert [(call.function.name, call.function.arguments) for call in calls] == [
        ("add", '{"a": 1}'),
        ("add", '{"a": 2}'),
    ]
    assert reason == "tool_calls"


async def test_tool_results_go_back_in(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """What the SDK's own objects say of an earlier turn is taken as it is."""
    await client.chat.completions.create(
        model=MODEL,
        messages=[
            *HELLO,
            {
                "role": "assistant",
                "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "2"},
        ],
        tools=[TOOL],  # type: ignore[list-item]
    )
    prompt = gateway.engine.submits[0].prompt
    ids = [int.from_bytes(prompt[at : at + 4], "little") for at in range(0, len(prompt), 4)]
    assert ids.count(262) == ids.count(263) == 1


async def test_a_result_of_no_call_is_refused(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """As OpenAI's API does; the call may stand anywhere before it, and an id may come again."""
    calls = [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}]
    turn: Any = [{"role": "assistant", "tool_calls": calls}, {"role": "tool", "tool_call_id": "c1", "content": "2"}]
    await client.chat.completions.create(model=MODEL, messages=[*HELLO, *turn, *HELLO, *turn])
    for messages in ([*HELLO, turn[1]], [*HELLO, turn[0], turn[1] | {"tool_call_id": "c2"}], [turn[1], turn[0]]):
        with pytest.raises(openai.BadRequestError) as refused:
            await client.chat.completions.create(model=MODEL, messages=messages)
        assert (
            refused.value.param
            == f"messages[{messages.index(next(m for m in messages if m['role'] == 'tool'))}].tool_call_id"
        )


@pytest.mark.parametrize("kind", ["text", "message"])
async def test_a_message_may_say_that_it_is_one(gateway: Gateway, client: openai.AsyncOpenAI, kind: str) -> None:
    """As lm-eval before 0.4.12 does."""
    message: Any = HELLO[0] | {"type": kind}
    await client.chat.completions.create(model=MODEL, messages=[message])
    with pytest.raises(openai.BadRequestError):
        await client.chat.completions.create(model=MODEL, messages=[message | {"type": "image"}])


async def test_embeddings(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """In the order of the inputs, as numbers or as base64 (the SDK's own default); each is recorded like any request."""
    inputs = ["a", "bcd", "ef"]
    plain = await client.embeddings.create(model=MODEL, input=inputs, encoding_format="float")
    packed = await client.embeddings.create(model=MODEL, input=inputs)
    assert [entry.embedding for entry in plain.data] == [[1.0, 0.5, -1.0], [3.0, 0.5, -1.0], [2.0, 0.5, -1.0]]
    assert [entry.embedding for entry in packed.data] == [entry.embedding for entry in plain.data]
    assert plain.usage.prompt_tokens == 6
    assert len(gateway.auditor.of_kind("inference_outcome")) == 6
    sized = await client.embeddings.create(model=MODEL, input="a", dimensions=3)
    assert len(sized.data[0].embedding) == 3
    for other in (2, 4, 0, -3):
        with pytest.raises(openai.BadRequestError) as refused:
            await client.embeddings.create(model=MODEL, input="a", dimensions=other)
        assert refused.value.param == "dimensions"


async def test_models(client: openai.AsyncOpenAI) -> None:
    """The list and one of it."""
    assert [model.id async for model in client.models.list()] == [MODEL]
    assert (await client.models.retrieve(MODEL)).id == MODEL
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("nothing/here")


async def test_errors_become_the_sdks_own(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """Each status is the exception that users of the SDK catch, with a code and a parameter."""
    with pytest.raises(openai.NotFoundError) as missing:
        await client.chat.completions.create(model="gpt-nothing", messages=HELLO)
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as bad:
        await client.chat.completions.create(model=MODEL, messages=HELLO, temperature=-1)
    assert bad.value.param == "temperature"
    gateway.policy.denial = ("rate_limit", "too many requests", 7)
    with pytest.raises(openai.RateLimitError) as limited:
        await client.chat.completions.create(model=MODEL, messages=HELLO)
    assert limited.value.response.headers["retry-after"] == "7"
    assert gateway.auditor.of_kind("inference_denied")[0]["status_code"] == "rate_limit"
    gateway.policy.denial = ("model_not_allowed", "not this model", 0)
    with pytest.raises(openai.PermissionDeniedError):
        await client.chat.completions.create(model=MODEL, messages=HELLO)
    stranger = client.with_options(api_key="bad")
    with pytest.raises(openai.AuthenticationError):
        await stranger.chat.completions.create(model=MODEL, messages=HELLO)
    weak = client.with_options(api_key="models-only")
    with pytest.raises(openai.PermissionDeniedError) as forbidden:
        await weak.chat.completions.create(model=MODEL, messages=HELLO)
    assert 'scope="inference"' in forbidden.value.response.headers["www-authenticate"]
    assert not gateway.engine.submits


async def test_a_failure_in_mid_stream_is_an_error_of_the_sdk(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """The stream does not simply end: the SDK raises, with our code."""
    gateway.engine.reply = lambda submit, choice: Reply([97] * 400, delay_s=0.005)
    stream = await client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
    texts: list[str] = []

    async def read() -> None:
        async for chunk in stream:
            texts.append(chunk.choices[0].delta.content or "")
            assert gateway.engine.link is not None
            gateway.engine.link.close()

    with pytest.raises(openai.APIError) as lost:
        await read()
    assert lost.value.code == "engine_unavailable"
    assert "a" in texts
