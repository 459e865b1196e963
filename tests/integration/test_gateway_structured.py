"""What a request holds its answer to reaches the compiler and the engine, or is refused before anything is reserved."""

import json
from pathlib import Path
from typing import Any

import openai
import pytest

from appliance.messages import engine
from runtime.request import Finish
from tests.support.gateway import TOKEN, Gateway, running_gateway
from tests.support.gateway_peers import Reply
from tests.support.model_folders import MODEL
from tests.support.wire import exchange

HELLO: list[Any] = [{"role": "user", "content": "hello"}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}


def tool(name: str, **function: Any) -> Any:
    return {"type": "function", "function": {"name": name, "parameters": SCHEMA} | function}


def format_of(gateway: Gateway) -> Any:
    """The structure behind the grammar that the engine got last."""
    word, _, structure = gateway.engine.submits[-1].grammar.partition(b" ")
    assert word == b"grammar"
    return json.loads(structure)["format"]


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"response_format": {"type": "json_object"}}, "json_schema"),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "strict": True, "schema": SCHEMA},
                }
            },
            "json_schema",
        ),
        ({"extra_body": {"regex": "a+"}}, "regex"),
        ({"extra_body": {"ebnf": 'root ::= "a"'}}, "grammar"),
        ({"tools": [tool("f")], "tool_choice": "required"}, "tags_with_separator"),
        ({"tools": [tool("f", strict=True)]}, "triggered_tags"),
        ({"tools": [tool("f")], "response_format": {"type": "json_object"}}, "or"),
    ],
)
async def test_structures_reach_the_engine_as_grammars(
    gateway: Gateway, client: openai.AsyncOpenAI, change: dict[str, Any], kind: str
) -> None:
    """Each way to ask; the audit record names the parameter, and a second request compiles nothing."""
    for _ in range(2):
        await client.chat.completions.create(model=MODEL, messages=HELLO, **change)
        assert format_of(gateway)["type"] == kind
    assert len(gateway.compiler.asked) == 1
    assert gateway.auditor.of_kind("inference_intent")[0]["unmapped"]["casemate"]["parameters"]["held_to"]


@pytest.mark.parametrize(
    "change",
    [{}, {"response_format": {"type": "text"}}, {"tools": [tool("f")]}, {"tools": [tool("f")], "tool_choice": "none"}],
)
async def test_free_answers_need_no_compiler(
    gateway: Gateway, client: openai.AsyncOpenAI, change: dict[str, Any]
) -> None:
    """Nothing is asked of it, so they are served without it."""
    assert gateway.compiler.link is not None
    gateway.compiler.link.close()
    await client.chat.completions.create(model=MODEL, messages=HELLO, **change)
    assert gateway.engine.submits[-1].grammar == b""


async def test_a_named_tool_is_the_only_one(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """The model is told of no other, and can call no other."""
    choice: Any = {"type": "function", "function": {"name": "g"}}
    await client.chat.completions.create(model=MODEL, messages=HELLO, tools=[tool("f"), tool("g")], tool_choice=choice)
    format_ = format_of(gateway)
    assert {tag["begin"] for tag in format_["tags"]} == {
        '<tool_call>{"name": "g", "arguments": ',
        '<tool_call>\n{"name": "g", "arguments": ',
    }
    assert format_["stop_after_first"]


async def test_native_and_completions_are_held_too(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """SGLang's parameters by its names."""
    await client.completions.create(model=MODEL, prompt="a", extra_body={"regex": "b"})
    assert format_of(gateway)["pattern"] == "b"
    await client.completions.create(model=MODEL, prompt="a", extra_body={"regex": r"[^\ud800]\ud83d\ude00\\ud83d"})
    assert format_of(gateway)["pattern"] == r"[^\ud800]\u{1f600}\\ud83d"
    body = {"text": "a", "sampling_params": {"json_schema": json.dumps(SCHEMA)}}
    response = await exchange(
        gateway.port,
        "POST",
        "/generate",
        headers=(f"Authorization: Bearer {TOKEN}", "Content-Type: application/json"),
        body=json.dumps(body).encode(),
    )
    assert response.status == 200
    assert format_of(gateway)["json_schema"] == SCHEMA


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"response_format": {"type": "yaml"}}, "response_format.type", "invalid_parameter"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "missing_parameter"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
            "response_format.json_schema.schema",
            "missing_parameter",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"oneOf": []}}}},
            "response_format.json_schema.schema.oneOf",
            "unsupported_schema",
        ),
        ({"extra_body": {"regex": "a", "ebnf": "b"}}, "ebnf", "invalid_parameter"),
        ({"extra_body": {"regex": r"a\ud800"}}, "regex", "invalid_grammar"),
        ({"extra_body": {"regex": r"[\u{110000}]"}}, "regex", "invalid_grammar"),
        ({"extra_body": {"regex": "a", "ignore_eos": True}}, "ignore_eos", "invalid_parameter"),
        ({"extra_body": {"regex": "a", "min_tokens": 3}}, "min_tokens", "invalid_parameter"),
        ({"extra_body": {"guided_json": {}}}, "guided_json", "unsupported_parameter"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_parameter"),
        ({"tools": [tool("f")], "tool_choice": "sometimes"}, "tool_choice", "invalid_parameter"),
        (
            {"tools": [tool("f")], "tool_choice": {"type": "function", "function": {"name": "h"}}},
            "tool_choice",
            "invalid_parameter",
        ),
        (
            {"tools": [tool("f", strict=True, parameters={"type": "object", "not": {}})]},
            "tools[0].function.parameters.not",
            "unsupported_schema",
        ),
    ],
)
async def test_what_cannot_be_held_to_is_refused_by_name(
    gateway: Gateway, client: openai.AsyncOpenAI, change: dict[str, Any], param: str, code: str
) -> None:
    """Before the compiler, the quota and the log are asked anything."""
    with pytest.raises(openai.BadRequestError) as refused:
        await client.chat.completions.create(model=MODEL, messages=HELLO, **change)
    assert (refused.value.param, refused.value.code) == (param, code)
    assert not gateway.compiler.asked
    assert not gateway.policy.reserves


async def test_the_compilers_refusals_are_the_senders(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """With their own code and reason; nothing was reserved or recorded, and the next request is served."""
    gateway.compiler.refusals = {
        "boom": ("grammar_timeout", "it takes longer than 5 s"),
        "busy": ("compiler_busy", "wait"),
    }
    with pytest.raises(openai.BadRequestError) as slow:
        await client.chat.completions.create(model=MODEL, messages=HELLO, extra_body={"regex": "boom"})
    assert (slow.value.code, slow.value.param) == ("grammar_timeout", "regex")
    with pytest.raises(openai.InternalServerError) as busy:
        await client.chat.completions.create(model=MODEL, messages=HELLO, extra_body={"regex": "busy"})
    assert (busy.value.status_code, busy.value.code) == (503, "compiler_busy")
    assert not gateway.policy.reserves
    await client.chat.completions.create(model=MODEL, messages=HELLO, extra_body={"regex": "fine"})


async def test_without_a_compiler_constrained_requests_are_told_so(
    gateway: Gateway, client: openai.AsyncOpenAI
) -> None:
    """503, and after it is back they are served."""
    assert gateway.compiler.link is not None
    gateway.compiler.link.close()
    with pytest.raises(openai.InternalServerError) as away:
        await client.chat.completions.create(model=MODEL, messages=HELLO, extra_body={"regex": "a"})
    assert away.value.code == "compiler_unavailable"
    gateway.connect_compiler()
    await client.chat.completions.create(model=MODEL, messages=HELLO, extra_body={"regex": "a"})


async def test_a_grammar_that_gives_up_in_the_engine_is_the_senders_error(
    gateway: Gateway, client: openai.AsyncOpenAI
) -> None:
    """Not a fault of the server."""
    gateway.engine.reply = lambda submit, choice: Reply([97], Finish("error", None, "grammar_too_slow"))
    with pytest.raises(openai.BadRequestError) as slow:
        await client.chat.completions.create(model=MODEL, messages=HELLO, extra_body={"regex": "a"})
    assert slow.value.code == "grammar_too_slow"
    gateway.engine.reply = lambda submit, choice: engine.RequestRefused(
        submit.request_id, "invalid_grammar", "no", None
    )
    with pytest.raises(openai.BadRequestError) as foreign:
        await client.chat.completions.create(model=MODEL, messages=HELLO, extra_body={"regex": "a"})
    assert foreign.value.code == "invalid_grammar"


async def test_tenants_do_not_share_compiled_grammars(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    """How fast an answer begins would tell one tenant which schemas another uses."""
    from tests.support.gateway import principal

    gateway.tokens.good["other-tenant"] = principal("client-9", tenant="globex")
    for key in (TOKEN, "other-tenant"):
        other = client.with_options(api_key=key)
        await other.chat.completions.create(model=MODEL, messages=HELLO, extra_body={"regex": "a"})
    assert len(gateway.compiler.asked) == 2


async def test_a_structure_larger_than_a_message_is_refused_before_it_is_sent(folder: Path) -> None:
    """Sent, it would cost the worker its link to the compiler, and with it everybody's structures."""
    async with (
        running_gateway(folder) as gateway,
        openai.AsyncOpenAI(api_key=TOKEN, base_url=gateway.url + "/v1", max_retries=0) as client,
    ):
        schema = {"enum": ["x" * 100 + str(number) for number in range(11_000)]}
        answer_format: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        with pytest.raises(openai.BadRequestError) as refused:
            await client.chat.completions.create(model=MODEL, messages=HELLO, response_format=answer_format)
        assert refused.value.code == "grammar_too_large"
        await client.chat.completions.create(model=MODEL, messages=HELLO, extra_body={"regex": "a"})
