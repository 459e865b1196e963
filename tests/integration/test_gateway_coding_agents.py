"""What coding agents always send, beyond what SDKs do: OpenAI's Codex by responses, Anthropic's Claude Code by messages."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway import TOKEN, Gateway, prompt_of
from tests.support.gateway_peers import Reply
from tests.support.model_folders import CHAT_TEMPLATE, MODEL, write_byte_level_model
from tests.support.wire import exchange

SAID = "{{ message.content }}"
THINKING = CHAT_TEMPLATE.replace(
    SAID, "{{ '(' ~ message.reasoning_content ~ ')' if message.reasoning_content }}" + SAID
)
CALL_BEGIN, CALL_END, END = 262, 263, 261
HELLO: dict[str, Any] = {"role": "user", "content": "hello"}
RESPONSE: dict[str, Any] = {
    "model": MODEL,
    "input": [
        {"type": "message", "id": "msg_1", "role": "developer", "content": [{"type": "input_text", "text": "Code."}]}
    ],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "reasoning": {"summary": "auto"},
    "store": False,
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": "0199",
    "client_metadata": {"x-codex-window-id": "0199:0"},
}
MESSAGE: dict[str, Any] = {
    "model": MODEL,
    "max_tokens": 100,
    "messages": [HELLO],
    "thinking": {"type": "adaptive"},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "output_config": {"effort": "high"},
    "metadata": {"user_id": '{"session_id":"0199"}'},
}
AGENT = {"type": "function", "name": "send", "description": "Sends.", "strict": False, "parameters": {"type": "object"}}
NAMESPACE = {"type": "namespace", "name": "agents", "description": "Other agents.", "tools": [AGENT]}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose template shows thoughts."""
    made = write_byte_level_model(tmp_path_factory.mktemp("thoughts"))
    config = json.loads((made / "tokenizer_config.json").read_text())
    (made / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": THINKING}))
    return made


async def ask(gateway: Gateway, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    headers = (f"Authorization: Bearer {TOKEN}", "Content-Type: application/json")
    response = await exchange(gateway.port, "POST", path, headers=headers, body=json.dumps(body).encode())
    return response.status, json.loads(response.body)


def calls(gateway: Gateway, name: str) -> None:
    """Let the engine answer with a call."""
    call = json.dumps({"name": name, "arguments": {}}).encode()
    gateway.engine.reply = lambda submit, choice: Reply([CALL_BEGIN, *call, CALL_END, END])


async def test_functions_of_a_namespace_are_called_by_both_names(gateway: Gateway) -> None:
    """The model is told of them with a dot between; the call says them apart, and comes back so."""
    calls(gateway, "agents.send")
    body = RESPONSE | {"tools": [AGENT | {"name": "look"}, NAMESPACE]}
    status, answer = await ask(gateway, "/v1/responses", body)
    assert status == 200
    assert '"name": "agents.send", "description": "Other agents.\\nSends."' in prompt_of(gateway)
    assert [tool["type"] for tool in answer["tools"]] == ["function", "namespace"]
    (call,) = answer["output"]
    assert (call["namespace"], call["name"]) == ("agents", "send")
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "done"}
    calls(gateway, "look")
    status, answer = await ask(gateway, "/v1/responses", body | {"input": [*body["input"], call, result]})
    assert '<tool_call>{"name": "agents.send", "arguments": {}}</tool_call>' in prompt_of(gateway)
    assert (answer["output"][0]["name"], "namespace" in answer["output"][0]) == ("look", False)


async def test_the_events_of_a_call_say_its_namespace(gateway: Gateway) -> None:
    """From the first one on."""
    calls(gateway, "agents.send")
    headers = (f"Authorization: Bearer {TOKEN}", "Content-Type: application/json")
    body = json.dumps(RESPONSE | {"tools": [NAMESPACE], "stream": True}).encode()
    response = await exchange(gateway.port, "POST", "/v1/responses", headers=headers, body=body)
    events = [json.loads(line[6:]) for line in response.body.decode().splitlines() if line.startswith("data: ")]
    items = [event["item"] for event in events if "item" in event]
    assert [(item["namespace"], item["name"]) for item in items] == [("agents", "send")] * 2


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"tools": [{"type": "web_search", "external_web_access": False}]}, "unsupported_parameter", "tools[0].type"),
        ({"tools": [{"type": "custom", "name": "patch"}]}, "unsupported_parameter", "tools[0].type"),
        ({"tools": [NAMESPACE | {"tools": [{"type": "custom"}]}]}, "unsupported_parameter", "tools[0].tools[0].type"),
        ({"tools": [NAMESPACE | {"tools": []}]}, "invalid_parameter", "tools[0].tools"),
        ({"tools": [NAMESPACE, AGENT | {"name": "agents.send"}]}, "invalid_tool", "tools[1].name"),
        ({"tools": [AGENT | {"defer_loading": True}]}, "unknown_parameter", "tools[0].defer_loading"),
        ({"reasoning": {"summary": "detailed"}}, "unsupported_parameter", "reasoning.summary"),
        ({"include": ["web_search_call.results"]}, "unsupported_parameter", "include[0]"),
    ],
)
async def test_other_tools_are_refused_by_name(gateway: Gateway, change: dict[str, Any], code: str, param: str) -> None:
    """Those that OpenAI would run, and those of free text; so is what nobody makes."""
    status, answer = await ask(gateway, "/v1/responses", RESPONSE | change)
    assert (status, answer["error"]["code"], answer["error"]["param"]) == (400, code, param)


@pytest.mark.parametrize(
    ("keep", "shown"),
    [
        ("all", ["(one)", "(two)", "(three)"]),
        ({"type": "thinking_turns", "value": 2}, ["(one)", "(two)", "(three)"]),
        ({"type": "thinking_turns", "value": 1}, ["(two)", "(three)"]),
        (None, ["(two)", "(three)"]),
    ],
)
async def test_thoughts_are_kept_as_asked(gateway: Gateway, keep: Any, shown: list[str]) -> None:
    """They go to the template; a call, its result and what follows are one turn. What the system says on the way stands there."""
    messages = [
        HELLO,
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "one"}, {"type": "text", "text": "a"}]},
        HELLO,
        {"role": "system", "content": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "two", "signature": "s"},
                {"type": "tool_use", "id": "t", "name": "send", "input": {}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "b"}]},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "three"}, {"type": "text", "text": "c"}]},
        HELLO,
    ]
    edit = {"type": "clear_thinking_20251015"} | ({} if keep is None else {"keep": keep})
    body = MESSAGE | {"messages": messages, "context_management": {"edits": [edit]}}
    assert (await ask(gateway, "/v1/messages", body))[0] == 200
    prompt = prompt_of(gateway)
    assert [thought for thought in ("(one)", "(two)", "(three)") if thought in prompt] == shown
    assert "user\nhello<|im_end|>\n<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>assistant\n(two)" in prompt
    counted = {name: value for name, value in body.items() if name not in ("max_tokens", "metadata")}
    status, answer = await ask(gateway, "/v1/messages/count_tokens", counted)
    assert (status, answer["input_tokens"]) == (200, len(gateway.engine.submits[-1].prompt) // 4)


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        (
            {"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}},
            "unsupported_parameter",
            "context_management.edits[0].type",
        ),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "unsupported_parameter", "tools[0].type"),
        ({"output_config": {"effort": "most"}}, "invalid_parameter", "output_config.effort"),
        ({"output_config": {"effort": "max"}}, "unsupported_parameter", "output_config.effort"),
        ({"output_config": {"effort": "low"}}, "unsupported_parameter", "output_config.effort"),
    ],
)
async def test_what_would_change_the_answer_is_refused(
    gateway: Gateway, change: dict[str, Any], code: str, param: str
) -> None:
    """`high` is what comes without any effort; others say something, which this template cannot."""
    status, answer = await ask(gateway, "/v1/messages", MESSAGE | change)
    assert (status, answer["error"]["code"], answer["error"]["param"]) == (400, code, param)


@pytest.mark.parametrize("arguments", ['{"to": "Ro', "[1]", "Rome"])
async def test_a_call_that_went_wrong_comes_back_as_it_is(gateway: Gateway, arguments: str) -> None:
    """An agent tells the model so, and goes on: in chat, and in responses. What is an object the template has as one."""
    call = {"id": "c", "type": "function", "function": {"name": "send", "arguments": arguments}}
    result = {"role": "tool", "tool_call_id": "c", "content": "no JSON"}
    chat = {"model": MODEL, "messages": [HELLO, {"role": "assistant", "content": "", "tool_calls": [call]}, result]}
    assert (await ask(gateway, "/v1/chat/completions", chat))[0] == 200
    prompt = prompt_of(gateway)
    assert f'"arguments": {json.dumps(arguments)}' in prompt
    item = {"type": "function_call", "call_id": "c", "name": "send", "arguments": arguments}
    output = {"type": "function_call_output", "call_id": "c", "output": "no JSON"}
    body = {"model": MODEL, "input": [HELLO, item, output]}
    assert (await ask(gateway, "/v1/responses", body))[0] == 200
    assert prompt_of(gateway) == prompt
