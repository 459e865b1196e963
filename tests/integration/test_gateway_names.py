"""Responses and messages are translated into chat: their refusals speak of what the client sent, not of what became of it."""

import json
from typing import Any

import pytest

from tests.support.gateway import TOKEN, Gateway
from tests.support.model_folders import MODEL
from tests.support.wire import exchange

HEADERS = (f"Authorization: Bearer {TOKEN}", "Content-Type: application/json")
HELLO: dict[str, Any] = {"role": "user", "content": "hello"}
WRONG = {"type": "object", "properties": {"a": {"type": "thing"}}}
RESPONSE: dict[str, Any] = {"model": MODEL, "input": "hello"}
MESSAGE: dict[str, Any] = {"model": MODEL, "messages": [HELLO], "max_tokens": 5}


def flat(name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "name": name, "parameters": parameters, "strict": True}


SPACE = {"type": "namespace", "name": "ns", "description": "d", "tools": [flat("a", {}), flat("b", WRONG)]}
SCHEMA = {"type": "json_schema", "schema": WRONG}


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"max_output_tokens": 100_000}, "max_output_tokens"),
        ({"input": "hello " * 2000}, "input"),
        ({"text": {"format": SCHEMA | {"name": "x"}}}, "text.format.schema.properties.a.type"),
        ({"text": {"format": SCHEMA}}, "text.format.name"),
        ({"text": {"format": {"type": "yaml"}}}, "text.format.type"),
        ({"reasoning": {"effort": "low"}}, "reasoning.effort"),
        ({"tools": [flat("a b", {})]}, "tools[0].name"),
        ({"tools": [flat("a", {}), flat("b", {"type": "thing"})]}, "tools[1].parameters"),
        ({"tools": [SPACE | {"tools": [flat("a", {}), flat("b", {"type": 1})]}]}, "tools[0].tools[1].parameters"),
        ({"tools": [SPACE], "tool_choice": "required"}, "tools[0].tools[1].parameters.properties.a.type"),
    ],
)  # fmt: skip
async def test_responses_name_their_own(gateway: Gateway, change: dict[str, Any], param: str) -> None:
    """By the whole path, in the message as well."""
    error = await refusal(gateway, "/v1/responses", RESPONSE | change)
    assert error["param"] == param
    assert "function" not in error["message"]
    assert "response_format" not in error["message"]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"max_tokens": 100_000}, "max_tokens"),
        ({"stop_sequences": ["a", ""]}, "stop_sequences[1]"),
        ({"output_config": {"format": SCHEMA}}, "output_config.format.schema.properties.a.type"),
        ({"output_config": {"effort": "low"}}, "output_config.effort"),
        ({"tools": [{"name": "a b", "input_schema": {}}]}, "tools[0].name"),
        ({"tools": [{"name": "a", "input_schema": {"type": "thing"}}]}, "tools[0].input_schema"),
    ],
)  # fmt: skip
async def test_messages_name_their_own(gateway: Gateway, change: dict[str, Any], param: str) -> None:
    """By the whole path, in the message as well."""
    error = await refusal(gateway, "/v1/messages", MESSAGE | change)
    assert error["param"] == param
    assert param in error["message"]


async def test_counting_names_its_own(gateway: Gateway) -> None:
    """Where only tokens are counted it is the same."""
    for change, param in (({"input": "hello " * 2000}, "input"), ({"tools": [flat("a b", {})]}, "tools[0].name")):
        assert (await refusal(gateway, "/v1/responses/input_tokens", RESPONSE | change))["param"] == param
    counted = {name: value for name, value in MESSAGE.items() if name != "max_tokens"}
    wrong = {"tools": [{"name": "a", "input_schema": {"type": "thing"}}]}
    error = await refusal(gateway, "/v1/messages/count_tokens", counted | wrong)
    assert error["param"] == "tools[0].input_schema"


async def refusal(gateway: Gateway, route: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = await exchange(gateway.port, "POST", route, headers=HEADERS, body=json.dumps(body).encode())
    assert answer.status == 400
    error: dict[str, Any] = json.loads(answer.body)["error"]
    return error
