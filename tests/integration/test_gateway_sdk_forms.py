"""What SDKs send beyond the plain forms: refusals sent back, tools that are allowed, models as Anthropic's SDK reads them."""

import json
from datetime import datetime
from typing import Any

import openai
import pytest

from tests.support.gateway import TOKEN, Gateway, prompt_of
from tests.support.model_folders import MODEL
from tests.support.wire import exchange

BEARER = f"Authorization: Bearer {TOKEN}"
USER: dict[str, Any] = {"role": "user", "content": "hi"}


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}


async def ask(gateway: Gateway, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
    method, sent = ("GET", b"") if body is None else ("POST", json.dumps(body).encode())
    headers = (BEARER, "Content-Type: application/json")
    response = await exchange(gateway.port, method, path, headers=headers, body=sent)
    return response.status, json.loads(response.body)


async def test_a_refusal_goes_back_as_the_assistants_words(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """In chat and in responses, as a part of its content; of nobody else's."""
    refused: dict[str, Any] = {"role": "assistant", "content": [{"type": "refusal", "refusal": "I will not"}]}
    turns: Any = [USER, refused, USER]
    await client.chat.completions.create(model=MODEL, messages=turns)
    prompt = prompt_of(gateway)
    assert "assistant\nI will not<|im_end|>" in prompt
    await client.responses.create(model=MODEL, input=turns)
    assert prompt_of(gateway) == prompt
    foreign: Any = [refused | {"role": "user"}]
    with pytest.raises(openai.BadRequestError) as chat:
        await client.chat.completions.create(model=MODEL, messages=foreign)
    with pytest.raises(openai.BadRequestError) as response:
        await client.responses.create(model=MODEL, input=foreign)
    assert (chat.value.param, response.value.param) == ("messages[0].content[0]", "input[0].content[0]")


async def test_marks_of_what_to_cache_change_nothing(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """OpenAI's on a part of text, and Anthropic's, which clients of many models send to all of them; beside them nothing else."""
    mark: Any = {"prompt_cache_breakpoint": {"mode": "explicit"}}
    await client.chat.completions.create(model=MODEL, messages=[USER])  # type: ignore[list-item]
    prompt = prompt_of(gateway)
    for marks in (mark, {"cache_control": {"type": "ephemeral"}}):
        part: Any = {"type": "text", "text": "hi"} | marks
        await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": [part]}])
        assert prompt_of(gateway) == prompt
    item: Any = {"role": "user", "content": [{"type": "input_text", "text": "hi"} | mark]}
    await client.responses.create(model=MODEL, input=[item])
    assert prompt_of(gateway) == prompt
    unknown: Any = {"role": "user", "content": [{"type": "text", "text": "hi", "cache": 1}]}
    with pytest.raises(openai.BadRequestError):
        await client.chat.completions.create(model=MODEL, messages=[unknown])


@pytest.mark.parametrize("mode", ["auto", "required"])
async def test_only_the_allowed_tools_are_told_of(gateway: Gateway, client: openai.AsyncOpenAI, mode: str) -> None:
    """`required` also makes the model call one of them. The same in responses, whose answer shows the choice as it came."""
    named: Any = [{"type": "function", "function": {"name": name}} for name in ("add", "sub")]
    tools: Any = [tool(name) for name in ("add", "sub", "erase")]
    choice: Any = {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": named}}
    await client.chat.completions.create(model=MODEL, messages=[USER], tools=tools, tool_choice=choice)  # type: ignore[list-item]
    prompt, held_to = prompt_of(gateway), gateway.engine.submits[-1].grammar
    assert ('"add"' in prompt, '"sub"' in prompt, '"erase"' in prompt) == (True, True, False)
    assert bool(held_to) is (mode == "required")
    flat: Any = {
        "type": "allowed_tools",
        "mode": mode,
        "tools": [{"type": "function", "name": n} for n in ("add", "sub")],
    }
    answer = await client.responses.create(
        model=MODEL, input="hi", tools=[{"type": "function", **one["function"]} for one in tools], tool_choice=flat
    )
    assert (prompt_of(gateway), gateway.engine.submits[-1].grammar) == (prompt, held_to)
    assert not isinstance(answer.tool_choice, str)
    assert answer.tool_choice.to_dict() == flat


@pytest.mark.parametrize(
    "allowed",
    [
        {"mode": "auto", "tools": []},
        {"mode": "some", "tools": [{"type": "function", "function": {"name": "add"}}]},
        {"mode": "auto", "tools": [{"type": "function", "function": {"name": "none"}}]},
        {"mode": "auto", "tools": [{"type": "mcp", "server_label": "x"}]},
        {"mode": "auto", "tools": [{"type": "function", "function": {"name": "add", "strict": True}}]},
        {"mode": "auto"},
        "add",
    ],
)
async def test_what_cannot_be_allowed_is_refused(gateway: Gateway, allowed: Any) -> None:
    """By the parameter's name, in both APIs."""
    body = {"model": MODEL, "messages": [USER], "tools": [tool("add")]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    status, answer = await ask(gateway, "/v1/chat/completions", body | {"tool_choice": choice})
    assert (status, answer["error"]["param"]) == (400, "tool_choice")
    flat = {"type": "allowed_tools", **(allowed if isinstance(allowed, dict) else {})}
    body = {"model": MODEL, "input": "hi", "tools": [{"type": "function", "name": "add"}]}
    status, answer = await ask(gateway, "/v1/responses", body | {"tool_choice": flat})
    assert (status, answer["error"]["param"]) == (400, "tool_choice")


@pytest.mark.parametrize(
    ("path", "change", "code", "param"),
    [
        ("/v1/responses", {"text": {"verbosity": "low"}}, "unsupported_parameter", "text.verbosity"),
        ("/v1/responses", {"reasoning": {"junk": 1}}, "unknown_parameter", "reasoning.junk"),
        ("/v1/responses", {"background": True}, "unsupported_parameter", "background"),
        ("/v1/responses", {"truncation": "auto"}, "unsupported_parameter", "truncation"),
        ("/v1/responses", {"service_tier": "flex"}, "unsupported_parameter", "service_tier"),
        ("/v1/responses", {"stream_options": {}}, "invalid_parameter", "stream_options"),
        ("/v1/chat/completions", {"tools": [{"type": "function", "junk": 1}]}, "unknown_parameter", "tools[0].junk"),
        (
            "/v1/messages",
            {"tools": [{"name": "f", "input_schema": {}, "junk": 1}]},
            "unknown_parameter",
            "tools[0].junk",
        ),
        (
            "/v1/messages",
            {"tools": [{"name": "f", "input_schema": {}, "defer_loading": True}]},
            None,
            "tools[0].defer_loading",
        ),
    ],
)
async def test_a_refused_member_is_named_by_its_whole_path(
    gateway: Gateway, path: str, change: dict[str, Any], code: str | None, param: str
) -> None:
    """And told apart: what nobody knows, and what OpenAI knows and this appliance has not."""
    body: dict[str, Any] = (
        {"model": MODEL, "input": "hi"} if path == "/v1/responses" else {"model": MODEL, "messages": [USER]}
    )
    limit = {"max_tokens": 9} if path == "/v1/messages" else {}
    status, answer = await ask(gateway, path, body | limit | change)
    assert (status, answer["error"]["param"]) == (400, param)
    assert code in (None, answer["error"]["code"])


async def test_null_is_absent_wherever_it_stands(gateway: Gateway) -> None:
    """As what an SDK parsed comes back in full, with members of later versions. It is no member, so one that is needed is missing;
    within a schema it says something. There are bounds to it."""
    later = {"later": None, "latest": None}
    function = {"name": "add", "arguments": "{}", **later}
    called = {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "function": function, **later}], **later}
    schema = {"type": "object", "properties": {"a": {"const": None}}}
    offered = {"type": "function", "function": {"name": "add", "strict": None, "parameters": schema, **later}}
    body = {"model": MODEL, "messages": [USER, called, called, USER | later], "tools": [offered]}
    assert (await ask(gateway, "/v1/chat/completions", body))[0] == 200
    assert '{"const": null}' in prompt_of(gateway)
    body = {"model": MODEL, "input": "hi", "text": {"format": None}, "reasoning": {"effort": None, **later}}
    status, answer = await ask(gateway, "/v1/responses", body)
    assert (status, answer["text"]["format"]) == (200, {"type": "text"})
    for message, code, param in (
        (USER | {"role": None}, "missing_parameter", "messages[0].role"),
        (USER | {f"later{number}": None for number in range(9)}, "unknown_parameter", "messages[0].later8"),
        (None, "invalid_parameter", "messages[0]"),
    ):
        status, answer = await ask(gateway, "/v1/chat/completions", {"model": MODEL, "messages": [message]})
        assert (status, answer["error"]["code"], answer["error"]["param"]) == (400, code, param)


async def test_penalties_of_responses_are_honoured(gateway: Gateway) -> None:
    """As Open Responses has them; OpenAI's shows them in its answers."""
    body = {"model": MODEL, "input": "hi", "frequency_penalty": 0.5, "presence_penalty": -1}
    _, answer = await ask(gateway, "/v1/responses", body)
    sampling = gateway.engine.submits[-1].sampling
    assert (sampling.frequency_penalty, sampling.presence_penalty) == (0.5, -1)
    assert (answer["frequency_penalty"], answer["presence_penalty"]) == (0.5, -1)
    status, answer = await ask(gateway, "/v1/responses", body | {"frequency_penalty": 3})
    assert (status, answer["error"]["param"]) == (400, "frequency_penalty")


async def test_what_anthropics_sdk_says_of_direct_calls_is_taken(gateway: Gateway) -> None:
    """A call's `caller` and a tool's, where they say what is always so; anything else is refused."""
    offered = {"name": "add", "input_schema": {}, "type": None, "defer_loading": False, "allowed_callers": ["direct"]}
    used = {"type": "tool_use", "id": "t", "name": "add", "input": {}, "caller": {"type": "direct"}}
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "1"}]}
    body = {"model": MODEL, "max_tokens": 9, "tools": [offered]}
    body["messages"] = [USER, {"role": "assistant", "content": [used]}, result]
    assert (await ask(gateway, "/v1/messages", body))[0] == 200
    used["caller"] = {"type": "code_execution_20250825", "tool_id": "x"}
    status, answer = await ask(gateway, "/v1/messages", body)
    assert (status, answer["error"]["param"].startswith("messages[1].content[0].caller")) == (400, True)


async def test_models_are_listed_for_both_sdks(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """The same entry has the members of OpenAI's and of Anthropic's; the list goes in pages, and ends."""
    status, listed = await ask(gateway, "/v1/models?limit=1")
    assert (status, listed["object"], listed["has_more"], listed["last_id"]) == (200, "list", False, MODEL)
    (model,) = listed["data"]
    assert (model["object"], model["type"], model["display_name"], model["lifecycle"]) == (
        "model",
        "model",
        MODEL,
        "active",
    )
    assert datetime.fromisoformat(model["created_at"]).timestamp() == model["created"]
    assert (await ask(gateway, f"/v1/models/{MODEL}?beta=true"))[1] == model
    assert (await ask(gateway, "/v1/models?beta=true&limit=1"))[1]["data"] == [model]
    assert (await ask(gateway, f"/v1/models?after_id={MODEL}"))[1]["data"] == []
    assert [entry.id async for entry in client.models.list()] == [MODEL]
    for query, param in (("limit=0", "limit"), ("after_id=nobody", "after_id"), ("before_id=x", "before_id")):
        status, refused = await ask(gateway, f"/v1/models?{query}")
        assert (status, refused["error"]["param"]) == (400, param)
