"""An outcome says how many choices the gateway itself ended, at a stop string that the engine knows nothing of."""

import json
from typing import Any

import pytest

from tests.support.gateway import TOKEN, Gateway
from tests.support.model_folders import MODEL
from tests.support.wire import exchange


@pytest.mark.parametrize(
    ("asked", "num_cut"), [({"stop": ["two"]}, 1), ({"stop": ["two"], "n": 3}, 3), ({"stop": ["x"]}, None)]
)
async def test_choices_that_a_stop_string_ended_are_counted(
    gateway: Gateway, asked: dict[str, Any], num_cut: int | None
) -> None:
    """None where there are none, as in most records."""
    gateway.says("one two three")
    body = json.dumps({"model": MODEL, "prompt": "hi", "max_tokens": 50, **asked}).encode()
    headers = (f"Authorization: Bearer {TOKEN}", "Content-Type: application/json")
    answer = await exchange(gateway.port, "POST", "/v1/completions", headers=headers, body=body)
    texts = {choice["text"] for choice in json.loads(answer.body)["choices"]}
    assert texts == {"one " if num_cut else "one two three"}
    (outcome,) = gateway.auditor.of_kind("inference_outcome")
    assert outcome["unmapped"]["casemate"].get("num_cut") == num_cut
