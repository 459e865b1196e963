"""Anthropic's messages over the wire, word for word; and the routes that SGLang's and vLLM's tools ask."""

import json
from typing import Any

import pytest

from runtime.request import Finish
from tests.support.controls import control
from tests.support.gateway import TOKEN, Gateway, principal, prompt_of
from tests.support.gateway_peers import Reply
from tests.support.model_folders import MODEL
from tests.support.waiting import until
from tests.support.wire import Response, exchange

BODY: dict[str, Any] = {"model": MODEL, "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]}
TOOL = {
    "name": "add",
    "description": "adds",
    "input_schema": {"type": "object", "properties": {"a": {"type": "integer"}}},
}
CALL = [*b"Sure. ", 262, *b'{"name": "add", "arguments": {"a": 1}}', 263, 261]


def said(role: str, block: dict[str, Any]) -> dict[str, Any]:
    """A conversation of one block."""
    return {"messages": [{"role": role, "content": [block]}]}


async def ask(gateway: Gateway, path: str, body: Any = None, *more: str, token: str = TOKEN) -> Response:
    headers = (f"Authorization: Bearer {token}", "Content-Type: application/json", *more)
    method = "GET" if body is None else "POST"
    sent = b"" if body is None else json.dumps(body).encode()
    return await exchange(gateway.port, method, path, headers=headers, body=sent)


def events_of(response: Response) -> list[dict[str, Any]]:
    """The events; each names its own type twice."""
    events = []
    for block in response.body.decode().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if lines:
            data = json.loads(lines["data"])
            assert lines["event"] == data["type"]
            events.append(data)
    return events


async def test_a_begun_answer_is_continued(gateway: Gateway) -> None:
    """A last message of the assistant is the beginning of the answer, which is what follows it; one that calls is none."""
    gateway.says(" is 4")
    asked = [*BODY["messages"], {"role": "assistant", "content": [{"type": "text", "text": "The sum"}]}]
    answer = json.loads((await ask(gateway, "/v1/messages", BODY | {"messages": asked})).body)
    assert answer["content"] == [{"type": "text", "text": " is 4"}]
    assert prompt_of(gateway).endswith("assistant\nThe sum")
    called = {"type": "tool_use", "id": "toolu_1", "name": "add", "input": {}}
    refused = await ask(gateway, "/v1/messages", BODY | said("assistant", called))
    assert (refused.status, json.loads(refused.body)["error"]["code"]) == (400, "invalid_parameter")


async def test_a_message(gateway: Gateway) -> None:
    """Text, counts with cached tokens apart, and why it stopped."""
    gateway.says("Hello")
    gateway.engine.cached_tokens = 4
    answer = json.loads((await ask(gateway, "/v1/messages", BODY | {"system": "be kind"})).body)
    assert answer["content"] == [{"type": "text", "text": "Hello"}]
    assert (answer["type"], answer["role"], answer["stop_reason"]) == ("message", "assistant", "end_turn")
    usage = answer["usage"]
    assert usage["cache_read_input_tokens"] == 4
    assert usage["output_tokens"] == 6
    counted = json.loads((await ask(gateway, "/v1/messages/count_tokens", _counted({"system": "be kind"}))).body)
    assert counted["input_tokens"] == usage["input_tokens"] + 4


def _counted(change: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in (BODY | change).items() if key != "max_tokens"}


@pytest.mark.parametrize(
    ("change", "reply", "reason", "sequence"),
    [
        ({"stop_sequences": ["lo"]}, "Hello", "stop_sequence", "lo"),
        ({"max_tokens": 3}, "Hello", "max_tokens", None),
    ],
)
async def test_why_it_stopped(
    gateway: Gateway, change: dict[str, Any], reply: str, reason: str, sequence: str | None
) -> None:
    """In Anthropic's words."""
    gateway.says(reply)
    answer = json.loads((await ask(gateway, "/v1/messages", BODY | change)).body)
    assert (answer["stop_reason"], answer["stop_sequence"]) == (reason, sequence)


async def test_a_stream_of_blocks(gateway: Gateway) -> None:
    """Each block begins, grows and ends; arguments come in pieces; the last delta says why and how much."""
    gateway.engine.reply = lambda submit, choice: Reply(CALL)
    events = events_of(await ask(gateway, "/v1/messages", BODY | {"stream": True, "tools": [TOOL]}))
    kinds = [event["type"] for event in events]
    assert kinds[0] == "message_start"
    assert kinds[-2:] == ["message_delta", "message_stop"]
    starts = [event["content_block"]["type"] for event in events if event["type"] == "content_block_start"]
    assert starts == ["text", "tool_use"]
    pieces = [
        event["delta"]["partial_json"] for event in events if event.get("delta", {}).get("type") == "input_json_delta"
    ]
    assert json.loads("".join(pieces)) == {"a": 1}
    assert len(pieces) > 2
    assert events[-2]["delta"]["stop_reason"] == "tool_use"


async def test_a_turn_with_a_tools_result(gateway: Gateway) -> None:
    """`tool_use` and `tool_result` become what the template knows; earlier thinking is dropped."""
    gateway.engine.reply = lambda submit, choice: Reply(CALL)
    answer = json.loads((await ask(gateway, "/v1/messages", BODY | {"tools": [TOOL]})).body)
    used = answer["content"][1]
    assert (used["type"], used["name"], used["input"]) == ("tool_use", "add", {"a": 1})
    result = {"type": "tool_result", "tool_use_id": used["id"], "content": [{"type": "text", "text": "two"}]}
    thought = {"type": "thinking", "thinking": "secret", "signature": ""}
    messages = [
        *BODY["messages"],
        {"role": "assistant", "content": [thought, *answer["content"]]},
        {"role": "user", "content": [result, {"type": "text", "text": "and?"}]},
    ]
    assert (await ask(gateway, "/v1/messages", BODY | {"tools": [TOOL], "messages": messages})).status == 200
    text = prompt_of(gateway)
    assert "tool\ntwo<|im_end|>" in text
    assert "user\nand?<|im_end|>" in text
    assert "secret" not in text


async def test_turns_of_one_role_are_one_turn(gateway: Gateway) -> None:
    """As Anthropic's API combines them: many templates take no two in a row. Results of tools are turns of their own."""
    used = {"type": "tool_use", "id": "a", "name": "add", "input": {}}
    messages = [
        {"role": "user", "content": "What"},
        {"role": "user", "content": [{"type": "text", "text": "is"}, {"type": "text", "text": "it?"}]},
        {"role": "assistant", "content": "Well"},
        {"role": "assistant", "content": [used]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": "two"}]},
        {"role": "user", "content": "So?"},
    ]
    assert (await ask(gateway, "/v1/messages", BODY | {"tools": [TOOL], "messages": messages})).status == 200
    text = prompt_of(gateway)
    assert "user\nWhat\nis\nit?<|im_end|>" in text
    assert text.count("<|im_start|>assistant") == 2  # The other begins the answer.
    assert "tool\ntwo<|im_end|>" in text
    assert "user\nSo?<|im_end|>" in text


async def test_results_stand_in_the_order_of_their_calls(gateway: Gateway) -> None:
    """Templates do not show ids, so a model knows by the order alone which result is which; one of no call is refused."""
    used = [{"type": "tool_use", "id": name, "name": "add", "input": {}} for name in "ab"]
    told = [{"type": "tool_result", "tool_use_id": name, "content": f"of {name}"} for name in "ba"]
    messages = [*BODY["messages"], {"role": "assistant", "content": used}, {"role": "user", "content": told}]
    assert (await ask(gateway, "/v1/messages", BODY | {"tools": [TOOL], "messages": messages})).status == 200
    text = prompt_of(gateway)
    assert 0 < text.index("of a") < text.index("of b")
    messages[-1] = {"role": "user", "content": [told[0] | {"tool_use_id": "c"}]}
    refused = await ask(gateway, "/v1/messages", BODY | {"tools": [TOOL], "messages": messages})
    assert (refused.status, "no message before it has a call with this id" in refused.body.decode()) == (400, True)


async def test_a_result_that_is_an_error_says_so(gateway: Gateway) -> None:
    """The model is told, as the template has no place for it."""
    used = {"type": "tool_use", "id": "a", "name": "add", "input": {}}
    for is_error in (True, False):
        result = {"type": "tool_result", "tool_use_id": "a", "content": "no such city", "is_error": is_error}
        messages = [{"role": "assistant", "content": [used]}, {"role": "user", "content": [result]}]
        assert (await ask(gateway, "/v1/messages", BODY | {"tools": [TOOL], "messages": messages})).status == 200
        assert ("tool\nError: no such city" in prompt_of(gateway)) is is_error


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "add"}])
async def test_tools_that_must_be_used(gateway: Gateway, choice: dict[str, Any]) -> None:
    """Become required and named ones."""
    gateway.engine.reply = lambda submit, choice: Reply(CALL)
    assert (await ask(gateway, "/v1/messages", BODY | {"tools": [TOOL], "tool_choice": choice})).status == 200
    assert b"tags_with_separator" in gateway.engine.submits[-1].grammar


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, "messages[0].content[0]"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking.budget_tokens"),
        ({"container": "x"}, "container"),
        ({"mcp_servers": []}, "mcp_servers"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "auto", "name": "add"}}, "tool_choice.name"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"thinking": {"type": "enabled"}}, "thinking"),
        ({"thread": {"type": "create"}}, "thread"),
        ({"output_config": {"format": {"type": "text"}}}, "output_config.format.type"),
        ({"output_config": {"effort": "low"}}, "output_config.effort"),
        ({"tools": [TOOL | {"eager_input_streaming": False}]}, "tools[0].eager_input_streaming"),
        ({"cache_control": {"type": "forever"}}, "cache_control.type"),
        (said("user", {"type": "text", "text": "a", "citations": [{}]}), "messages[0].content[0].citations"),
        (said("user", {"type": "tool_result", "tool_use_id": "a", "junk": 1}), "messages[0].content[0].junk"),
        (said("user", {"type": "tool_result", "content": "x"}), "messages[0].content[0].tool_use_id"),
        (said("assistant", {"type": "tool_use", "id": "a", "name": "f"}), "messages[0].content[0].input"),
        (said("assistant", {"type": "thinking", "junk": 1}), "messages[0].content[0].junk"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        ({"messages": [*BODY["messages"], {"role": "assistant", "content": []}]}, "messages[1].content"),
    ],
)
async def test_what_is_not_supported_is_refused_by_name(gateway: Gateway, change: dict[str, Any], param: str) -> None:
    """Nothing is ignored, and the SDK finds what it looks for in an error."""
    response = await ask(gateway, "/v1/messages", BODY | change)
    said = json.loads(response.body)
    assert (response.status, said["type"], said["error"]["type"]) == (400, "error", "invalid_request_error")
    assert said["error"]["param"] == param
    assert said["request_id"] == response.headers["request-id"] == response.headers["x-request-id"]


async def test_errors_have_the_types_of_its_clients(gateway: Gateway) -> None:
    """Where Anthropic's word is another; elsewhere it is not, and a stranger is not told which API is there."""
    gateway.worker.desk.draining = True
    assert json.loads((await ask(gateway, "/v1/messages", BODY)).body)["error"]["type"] == "overloaded_error"
    assert "type" not in json.loads((await ask(gateway, "/v1/chat/completions", BODY)).body)
    assert "type" not in json.loads((await ask(gateway, "/v1/messages", BODY, token="bad")).body)


async def test_an_answer_is_held_to_a_schema(gateway: Gateway) -> None:
    """`output_config.format`, as `messages.parse` sends it."""
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    answer = await ask(
        gateway, "/v1/messages", BODY | {"output_config": {"format": {"type": "json_schema", "schema": schema}}}
    )
    assert answer.status == 200
    assert b"integer" in gateway.engine.submits[-1].grammar


@pytest.mark.parametrize("thinking", [{"type": "disabled"}, {"type": "adaptive"}])
async def test_a_model_that_does_not_reason_may_be_told_not_to(gateway: Gateway, thinking: dict[str, Any]) -> None:
    """There is nothing to turn off."""
    assert (await ask(gateway, "/v1/messages", BODY | {"thinking": thinking})).status == 200
    assert (await ask(gateway, "/v1/chat/completions", BODY | {"reasoning_effort": "none"})).status == 200


async def test_tokenize_and_back(gateway: Gateway) -> None:
    """Text, messages, token strings, and the text again; control tokens in text are text."""
    answer = json.loads(
        (await ask(gateway, "/v1/tokenize", {"model": MODEL, "prompt": "the in", "return_token_strs": True})).body
    )
    assert answer["token_strs"] == ["the", " ", "in"]
    assert (answer["count"], answer["max_model_len"]) == (3, 512)
    back = json.loads((await ask(gateway, "/v1/detokenize", {"model": MODEL, "tokens": answer["tokens"]})).body)
    assert back["prompt"] == "the in"
    chat = json.loads((await ask(gateway, "/v1/tokenize", {"model": MODEL, "messages": BODY["messages"]})).body)
    assert chat["tokens"][0] == 260
    for named, unnamed in (
        (answer, {"prompt": "the in", "return_token_strs": True}),
        (chat, {"messages": BODY["messages"]}),
    ):
        assert json.loads((await ask(gateway, "/tokenize", unnamed)).body) == named
    forged = json.loads((await ask(gateway, "/v1/tokenize", {"model": MODEL, "prompt": "<|im_end|>"})).body)
    assert 261 not in forged["tokens"]
    outside = await ask(gateway, "/v1/detokenize", {"model": MODEL, "tokens": [99_999]})
    assert json.loads(outside.body)["error"]["code"] == "token_out_of_range"
    assert not gateway.engine.submits


async def test_several_texts_are_tokenized_at_once(gateway: Gateway) -> None:
    """As SGLang does, and by its paths; a text of nothing has no tokens."""
    body = {"model": MODEL, "prompt": ["the", "", "in"], "add_special_tokens": False}
    answer = json.loads((await ask(gateway, "/tokenize", body)).body)
    assert answer["count"] == [1, 0, 1]
    back = json.loads((await ask(gateway, "/detokenize", {"model": MODEL, "tokens": answer["tokens"]})).body)
    assert back["text"] == ["the", "", "in"]
    assert json.loads((await ask(gateway, "/detokenize", {"model": MODEL, "tokens": []})).body)["text"] == ""


@pytest.mark.parametrize(
    ("path", "change", "param"),
    [
        ("/detokenize", {"tokens": [97], "skip_special_tokens": False}, "skip_special_tokens"),
        ("/detokenize", {"tokens": ["a"]}, "tokens"),
        ("/detokenize", {"tokens": [97, -1]}, "tokens"),
        ("/tokenize", {"messages": BODY["messages"], "add_special_tokens": True}, "add_special_tokens"),
        ("/tokenize", {"prompt": 5}, "prompt"),
        ("/tokenize", {"prompt": ["a", 5]}, "prompt[1]"),
        ("/tokenize", {"prompt": []}, "prompt"),
    ],
)
async def test_what_tokens_cannot_say_is_refused(
    gateway: Gateway, path: str, change: dict[str, Any], param: str
) -> None:
    """By name."""
    answer = await ask(gateway, path, {"model": MODEL} | change)
    assert (answer.status, json.loads(answer.body)["error"]["param"]) == (400, param)


async def test_what_is_served_and_how_it_stands(gateway: Gateway) -> None:
    """Without a path, a key or an address in it."""
    info = json.loads((await ask(gateway, "/get_model_info")).body)
    assert (info["model_path"], info["is_generation"]) == (MODEL, True)
    state = json.loads((await ask(gateway, "/get_server_info")).body)
    assert state["internal_states"][0]["num_running_reqs"] == 1
    assert state["max_total_num_tokens"] == state["internal_states"][0]["memory_usage"]["token_capacity"] > 0
    assert state["internal_states"][0]["tp_size"] == 2
    memory = {"weights": 3 << 30, "kv_cache": 5 << 30, "left": 2}
    assert state["internal_states"][0]["ranks"][1] == {
        "rank": 1,
        "device": "H100",
        "gpu": "GPU-1",
        "memory_bytes": memory,
    }
    assert state["tokenizer_path"] == info["tokenizer_path"]
    assert "/" not in json.dumps([info, state])
    assert json.loads((await ask(gateway, "/server_info")).body) == state, "as SGLang's tools of today ask"
    assert json.loads((await ask(gateway, "/model_info")).body) == info


async def test_flush_cache_needs_its_own_scope(gateway: Gateway) -> None:
    """And reaches every engine."""
    gateway.tokens.good["user"] = principal(scopes=frozenset({"inference", "metrics.read"}))
    assert (await ask(gateway, "/flush_cache", {}, token="user")).status == 403
    assert json.loads((await ask(gateway, "/flush_cache", {})).body) == {"flushed_engines": 1}
    await until(lambda: gateway.engine.num_flushes == 1)
    assert (await ask(gateway, "/flush_cache?timeout=60.0", {})).status == 200  # SGLang's load generator says so.
    await until(lambda: gateway.engine.num_flushes == 2)
    assert (await ask(gateway, "/flush_cache?wait=1", {})).status == 400


@control("AU-12", "3.3.1")
async def test_a_flush_is_recorded_before_it_happens(gateway: Gateway) -> None:
    """Who asked, in which trace; what cannot be recorded does not happen, nor is what was refused recorded as done."""
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    assert (await ask(gateway, "/flush_cache", {}, f"traceparent: 00-{trace}-00f067aa0ba902b7-01")).status == 200
    (flushed,) = gateway.auditor.of_kind("cache_flushed")
    assert flushed["actor"]["app_uid"] == principal().client_id
    assert (flushed["trace"]["uid"], flushed["api"]["operation"]) == (trace, "POST /flush_cache")
    await until(lambda: gateway.engine.num_flushes == 1)
    gateway.auditor.can_append = False
    assert (await ask(gateway, "/flush_cache", {})).status == 503
    gateway.auditor.can_append = True
    generated = await ask(gateway, "/generate", {"text": "hello", "sampling_params": {"max_new_tokens": 1}})
    assert generated.status == 200  # The engine has read by now all that was sent to it before.
    assert (gateway.engine.num_flushes, len(gateway.auditor.of_kind("cache_flushed"))) == (1, 1)


async def test_health_generate_is_a_real_request(gateway: Gateway) -> None:
    """One token, recorded and settled; a fault of the engine is said."""
    assert (await ask(gateway, "/health_generate")).status == 200
    assert gateway.engine.submits[-1].sampling.max_tokens == 1
    assert len(gateway.auditor.of_kind("inference_outcome")) == 1
    gateway.engine.reply = lambda submit, choice: Reply([97], Finish("error", None, "non_finite_logits"))
    assert (await ask(gateway, "/health_generate")).status == 500


async def test_a_request_is_aborted_by_whoever_asked_it(gateway: Gateway) -> None:
    """By its id; another client's does not exist, and one that has ended is left alone."""
    gateway.says("done")
    ended = await ask(gateway, "/v1/messages", BODY)
    answer = await ask(gateway, "/abort_request", {"rid": ended.headers["x-request-id"]})
    assert json.loads(answer.body) == {"rid": ended.headers["x-request-id"], "aborted": False}
    stranger = await ask(gateway, "/abort_request", {"rid": ended.headers["x-request-id"]}, token="other-client")
    assert stranger.status == 404
    intent = int(ended.headers["casemate-audit-index"])
    await until(lambda: [abort.intent_index for abort in gateway.engine.aborts] == [intent])
    gateway.engine.reply = lambda submit, choice: Reply([97], Finish("cancelled", None, "aborted"))
    aborted = await ask(gateway, "/v1/messages", BODY)
    assert (aborted.status, json.loads(aborted.body)["error"]["code"]) == (400, "aborted")


@pytest.mark.parametrize(("body", "name"), [({"rid": "msg_1", "abort_all": True}, "abort_all"), ({}, "rid")])
async def test_not_everything_is_aborted_at_once(gateway: Gateway, body: dict[str, Any], name: str) -> None:
    """Who asks for all is told so, and nothing of it is done."""
    answer = await ask(gateway, "/abort_request", body)
    assert (answer.status, json.loads(answer.body)["error"]["param"]) == (400, name)
    assert not gateway.engine.aborts
