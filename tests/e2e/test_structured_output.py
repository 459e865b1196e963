"""Constrained output with real processes: the demo model writes what it must, and hostile structures cost their senders only."""

import json
import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.support.appliance import Appliance

MODEL = "casemate-demo"
WEATHER = [{"role": "user", "content": "What is the weather in Rome?"}]
STORY = [{"role": "user", "content": "What is Casemate?"}]
SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 20},
        "days": {"type": "integer", "minimum": 1, "maximum": 7},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}


def tool(name: str, parameter: str, kind: str, **options: Any) -> Any:
    schema = {
        "type": "object",
        "properties": {parameter: {"type": kind}},
        "required": [parameter],
        "additionalProperties": False,
    }
    return {"type": "function", "function": {"name": name, "description": name, "parameters": schema} | options}


TOOLS = [tool("get_weather", "city", "string"), tool("count_to", "number", "integer")]


def ask(sdk: openai.OpenAI, messages: Any = WEATHER, **options: Any) -> Any:
    return sdk.chat.completions.create(model=MODEL, messages=messages, temperature=0, **{"max_tokens": 80} | options)


def test_json_follows_its_schema(sdk: openai.OpenAI) -> None:
    """Whatever the model would rather say; several choices, each for itself."""
    answer_format = {"type": "json_schema", "json_schema": {"name": "trip", "strict": True, "schema": SCHEMA}}
    answer = ask(sdk, n=3, seed=5, response_format=answer_format)
    for choice in answer.choices:
        assert choice.finish_reason == "stop"
        value = json.loads(choice.message.content)
        assert set(value) == {"city", "days"}
        assert 1 <= value["days"] <= 7


def test_regex_and_ebnf(sdk: openai.OpenAI) -> None:
    """To the character."""
    assert re.fullmatch(
        "(yes|no) [0-9]{3}", ask(sdk, extra_body={"regex": "(yes|no) [0-9]{3}"}).choices[0].message.content
    )
    answer = ask(sdk, extra_body={"ebnf": 'root ::= "alpha" | "beta"'})
    assert answer.choices[0].message.content in ("alpha", "beta")


def test_the_demo_model_calls_the_right_tool_by_itself_and_any_when_it_must(sdk: openai.OpenAI) -> None:
    """Auto: the fitting one. Named: the other one all the same, with an argument of its type. Required: some."""
    free = ask(sdk, tools=TOOLS).choices[0]
    assert (free.finish_reason, free.message.tool_calls[0].function.name) == ("tool_calls", "get_weather")
    assert json.loads(free.message.tool_calls[0].function.arguments) == {"city": "Rome"}
    named = ask(sdk, tools=TOOLS, tool_choice={"type": "function", "function": {"name": "count_to"}}).choices[0]
    assert isinstance(json.loads(named.message.tool_calls[0].function.arguments)["number"], int)
    required = ask(sdk, STORY, tools=TOOLS, tool_choice="required", max_tokens=120).choices[0]
    assert required.message.tool_calls


def test_arguments_stream_in_pieces(sdk: openai.OpenAI) -> None:
    """Several events, which together are the whole."""
    stream = ask(sdk, tools=TOOLS, stream=True)
    calls = [call for chunk in stream for choice in chunk.choices for call in choice.delta.tool_calls or []]
    assert calls[0].function.name == "get_weather"
    assert len(calls) > 2
    assert json.loads("".join(call.function.arguments or "" for call in calls)) == {"city": "Rome"}


HOSTILE: list[dict[str, Any]] = [
    {"extra_body": {"regex": "(((((a{0,900}){0,900}){0,900}){0,900}b?){0,900}){0,900}"}},
    {"extra_body": {"regex": "([a-z]+x[0-9]?){1,120}" * 60}},
    {"extra_body": {"ebnf": "root ::= " + "(" * 4000 + '"a"' + ")" * 4000}},
    {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "x", "schema": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}},
        }
    },
    {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "x", "schema": {"enum": ["x" * 50 + str(number) for number in range(20_000)]}},
        }
    },
    {"tools": [tool(f"tool_{number}", "p" * 100, "string", strict=True) for number in range(1000)]},
]


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda change: next(iter(change)))
def test_a_hostile_structure_costs_its_sender_an_error_and_nobody_a_token(
    sdk: openai.OpenAI, hostile: dict[str, Any]
) -> None:
    """While it is compiled, another request gets every token that it gets alone."""
    alone = ask(sdk, STORY).choices[0].message.content
    with ThreadPoolExecutor(2) as pool:
        attack = pool.submit(ask, sdk, **hostile)
        beside = pool.submit(ask, sdk, STORY)
        assert beside.result().choices[0].message.content == alone
        with pytest.raises(openai.APIStatusError) as refused:
            attack.result()
    assert refused.value.status_code in (400, 413)


@pytest.mark.parametrize("pattern", ["((((a{0,9}){0,9}){0,9}b?){0,9}){0,9}", "x{50}(((a?){0,30}){0,30}){0,30}"])
def test_a_short_pattern_that_is_slow_to_follow_is_refused_while_a_stream_goes_on(
    sdk: openai.OpenAI, pattern: str
) -> None:
    """No engine gets it: the stream, which was there before, has all its tokens."""
    alone = ask(sdk, STORY).choices[0].message.content
    stream = ask(sdk, STORY, stream=True)
    first = next(stream)
    with pytest.raises(openai.BadRequestError) as refused:
        ask(sdk, extra_body={"regex": pattern})
    assert refused.value.code in ("grammar_too_slow", "grammar_timeout")
    chunks = [first, *stream]
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == alone


def test_only_the_engines_process_has_a_tensor_library(appliance: Appliance) -> None:
    """The compiler's has xgrammar, and of what comes with it nothing that a structure does not need."""
    try:
        maps = {name: Path(f"/proc/{pid}/maps").read_text() for name, pid in appliance.pids().items()}
    except PermissionError:
        pytest.skip("who is not root cannot look into confined processes")
    assert {name for name, mapped in maps.items() if "libtorch" in mapped} == {"engine/0"}
    assert {name for name, mapped in maps.items() if "libxgrammar" in mapped} == {"engine/0", "compiler/0"}


def test_the_compiler_may_be_killed_at_any_time(sdk: openai.OpenAI, appliance: Appliance) -> None:
    """Free answers go on, constrained ones are refused, and are served again when it is back."""
    os.kill(appliance.pids()["compiler/0"], signal.SIGKILL)
    assert ask(sdk, STORY, max_tokens=4).choices[0].message.content
    deadline = time.monotonic() + 60
    num_served = 0
    while num_served < 8:  # There are two workers, each with a link of its own.
        with sdk.with_options(http_client=openai.DefaultHttpxClient(verify=appliance.client.tls)) as fresh:
            try:
                ask(fresh, extra_body={"regex": f"[0-9]{{2}}{time.monotonic_ns() % 10}"})
                num_served += 1
            except openai.InternalServerError as away:
                if away.code != "compiler_unavailable" or time.monotonic() > deadline:
                    raise
                num_served = 0
                time.sleep(0.2)
    assert appliance.status("/health") == 200
