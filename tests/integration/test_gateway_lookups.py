"""What asks a model's tokenizer alone is counted by policy; what lists models lists those that whoever asks may use."""

import json
from typing import Any

import pytest

from appliance.messages.policy import Left
from tests.support.gateway import TOKEN, Gateway
from tests.support.model_folders import MODEL
from tests.support.wire import Response, exchange

MESSAGES = [{"role": "user", "content": "hi"}]


async def ask(gateway: Gateway, path: str, body: Any = None) -> Response:
    headers = (f"Authorization: Bearer {TOKEN}", "Content-Type: application/json")
    sent = b"" if body is None else json.dumps(body).encode()
    return await exchange(gateway.port, "GET" if body is None else "POST", path, headers=headers, body=sent)


COUNTED = [
    ("/v1/tokenize", {"model": MODEL, "prompt": "hi"}),
    ("/v1/tokenize", {"model": MODEL, "messages": MESSAGES}),
    ("/tokenize", {"model": MODEL, "prompt": "hi"}),
    ("/v1/detokenize", {"model": MODEL, "tokens": [97]}),
    ("/detokenize", {"model": MODEL, "tokens": [97]}),
    ("/v1/messages/count_tokens", {"model": MODEL, "messages": MESSAGES}),
    ("/v1/responses/input_tokens", {"model": MODEL, "input": "hi"}),
]


@pytest.mark.parametrize(("path", "body"), COUNTED)
async def test_what_asks_the_tokenizer_alone_is_counted(gateway: Gateway, path: str, body: Any) -> None:
    """With policy, which reserves no tokens for it, and before the tokenizer is asked."""
    gateway.policy.lookups_left = Left(60, 59, 1000)
    answer = await ask(gateway, path, body)
    assert (answer.status, answer.headers["x-ratelimit-remaining-requests"]) == (200, "59")
    assert [(one.client_id, one.model, one.prompt_tokens) for one in gateway.policy.lookups] == [("client-1", MODEL, 0)]
    gateway.policy.denial = ("rate_limit", "slow down", 7)
    answer = await ask(gateway, path, body)
    assert (answer.status, answer.headers["retry-after"]) == (429, "7")
    gateway.policy.denial = ("model_not_allowed", "not this one", 0)
    assert (await ask(gateway, path, body)).status == 403
    assert gateway.policy.reserves == []
    assert gateway.auditor.of_kind("inference_intent") == []


async def test_models_are_listed_to_whoever_may_use_them(gateway: Gateway) -> None:
    """Others are left out, and refused by name in the words of a request to them."""
    assert [model["id"] for model in json.loads((await ask(gateway, "/v1/models")).body)["data"]] == [MODEL]
    gateway.policy.forbidden = {MODEL}
    assert json.loads((await ask(gateway, "/v1/models")).body)["data"] == []
    assert json.loads((await ask(gateway, "/get_model_info")).body) == {"models": []}
    refused = await ask(gateway, f"/v1/models/{MODEL}")
    assert (refused.status, json.loads(refused.body)["error"]["code"]) == (403, "model_not_allowed")
    assert (await ask(gateway, "/v1/models/other")).status == 404


async def test_health_generate_asks_the_model_that_is_named(gateway: Gateway) -> None:
    """Or, as SGLang's tools do, none: the first one then."""
    assert (await ask(gateway, f"/health_generate?model={MODEL}")).status == 200
    assert gateway.policy.reserves[-1].model == MODEL
    assert (await ask(gateway, "/health_generate?model=other")).status == 404
    assert (await ask(gateway, "/health_generate?mode=x")).status == 400
