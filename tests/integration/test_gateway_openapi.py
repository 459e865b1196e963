"""The OpenAPI document is the route table, and bodies made from it, good and bad, never make the gateway fail.

The values here are Hypothesis'; `tests/e2e/test_schemathesis.py` runs Schemathesis over the same document.
"""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.gateway.api.openapi import BODIES
from appliance.gateway.api.parameters import ACCEPTED_HINTS
from tests.support.gateway import TOKEN, Gateway, running_gateway
from tests.support.model_folders import MODEL
from tests.support.wire import Response, exchange

pytestmark = pytest.mark.asyncio(loop_scope="module")

MESSAGE = {"role": "user", "content": "hi"}
GOOD: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": MODEL, "messages": [MESSAGE]},
    "/v1/completions": {"model": MODEL, "prompt": "hi"},
    "/generate": {"text": "hi"},
    "/v1/embeddings": {"model": MODEL, "input": "hi"},
    "/v1/responses": {"model": MODEL, "input": "hi"},
    "/v1/responses/input_tokens": {"model": MODEL, "input": "hi"},
    "/v1/messages": {"model": MODEL, "messages": [MESSAGE], "max_tokens": 9},
    "/v1/messages/count_tokens": {"model": MODEL, "messages": [MESSAGE]},
    "/v1/tokenize": {"model": MODEL, "prompt": "hi"},
    "/v1/detokenize": {"model": MODEL, "tokens": [97]},
    "/tokenize": {"model": MODEL, "prompt": ["hi", "ho"]},
    "/detokenize": {"model": MODEL, "tokens": [[97], [98]]},
    "/abort_request": {"rid": "none"},
    "/audit/rules/propose": {"kind": "retention", "retention_days": 30, "reason": "the contract"},
    "/audit/search": {"actor": "ada"},
    "/audit/tail": {"count": 3},
}
OTHER_STATUS = {"/abort_request": 404, "/audit/rules/propose": 403}
"""Of a request that is not there, and of one that only a person who signed in may make."""
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 70), 1 << 70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=12),
    st.sampled_from(["auto", "required", "json_schema", "text", "function", "user", MODEL, "<|im_end|>", "\ufdd0"]),
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "type",
                    "role",
                    "content",
                    "name",
                    "function",
                    "schema",
                    "json_schema",
                    "format",
                    "text",
                    "parameters",
                    "x",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(folder: Path) -> AsyncIterator[Gateway]:
    async with running_gateway(folder) as running:
        yield running


async def ask(gateway: Gateway, path: str, body: Any = None) -> Response:
    headers = (f"Authorization: Bearer {TOKEN}", "Content-Type: application/json")
    if body is None:
        return await exchange(gateway.port, "GET", path, headers=headers)
    return await exchange(gateway.port, "POST", path, headers=headers, body=json.dumps(body).encode())


async def test_the_document_is_the_route_table(gateway: Gateway) -> None:
    """Each route with its method, its security, and its body if it has one; every reference leads somewhere."""
    document = json.loads((await ask(gateway, "/openapi.json")).body)
    shown = {(method.upper(), path) for path, operations in document["paths"].items() for method in operations}
    assert shown == {(route.method, route.path) for route in gateway.worker.routes}
    public = {
        path for path, operations in document["paths"].items() for one in operations.values() if not one["security"]
    }
    assert public == {route.path for route in gateway.worker.routes if route.scope == "public"}
    posts = {route.path for route in gateway.worker.routes if route.method == "POST"}
    assert {path for path in posts if "{id}" not in path} - {"/flush_cache"} == set(BODIES) == set(GOOD)
    listing = document["paths"]["/v1/responses/{id}/input_items"]["get"]
    assert [(one["name"], one["in"]) for one in listing["parameters"]] == [
        ("id", "path"),
        *((name, "query") for name in ("after", "limit", "order", "include")),
    ]
    text = json.dumps(document)
    for name in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in document["components"]["schemas"]


async def test_the_document_says_how_answers_come(gateway: Gateway) -> None:
    """Events where a stream can be asked for, and what a monitor of the log reads as its specification has it."""
    paths = json.loads((await ask(gateway, "/openapi.json")).body)["paths"]

    def media(path: str, method: str = "post") -> set[str]:
        return set(paths[path][method]["responses"]["200"]["content"])

    either = {"application/json", "text/event-stream"}
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/generate"):
        assert media(path) == either, path
    assert media("/v1/responses/{id}", "get") == either
    assert media("/v1/embeddings") == media("/v1/models", "get") == {"application/json"}
    assert media("/audit/log/checkpoint", "get") == media("/audit/log/cosigned", "get") == {"text/plain"}
    assert media("/audit/log/tile/{path}", "get") == {"application/octet-stream"}


@pytest.mark.parametrize("path", sorted(GOOD))
async def test_no_other_member_is_taken_but_null_and_hints(gateway: Gateway, path: str) -> None:
    """As the document has it, so that whoever validates by it accepts and refuses what the gateway does."""
    document = json.loads((await ask(gateway, "/openapi.json")).body)
    schema = document["components"]["schemas"][BODIES[path].__name__]
    good = OTHER_STATUS.get(path, 200)
    assert schema["additionalProperties"] == {"type": "null"}
    for value in (None, 1):
        expected = good if value is None else 400
        assert (await ask(gateway, path, GOOD[path] | {"unheard_of": value})).status == expected, value
    for hint in ACCEPTED_HINTS:
        assert hint in schema["properties"]
        assert (
            await ask(gateway, path, GOOD[path] | {hint: {} if hint == "client_metadata" else "a"})
        ).status == good, hint


async def test_the_good_bodies_are_good(gateway: Gateway) -> None:
    """So that what follows changes one thing of something that works."""
    for path, body in GOOD.items():
        assert (await ask(gateway, path, body)).status == OTHER_STATUS.get(path, 200), path


@pytest.mark.parametrize("path", sorted(GOOD))
async def test_null_is_as_if_absent_and_the_document_says_so(gateway: Gateway, path: str) -> None:
    """Of every member that a good body does without; a member that is needed is missing then."""
    document = json.loads((await ask(gateway, "/openapi.json")).body)
    schema = document["components"]["schemas"][BODIES[path].__name__]
    needed = schema.get("required", ())
    for name, member in schema["properties"].items():
        takes_null = {"type": "null"} in member.get("anyOf", []) or not set(member) - {"default", "description"}
        if name in needed:
            assert (await ask(gateway, path, GOOD[path] | {name: None})).status == 400, name
        elif name not in GOOD[path]:
            assert takes_null, name
            assert (await ask(gateway, path, GOOD[path] | {name: None})).status == OTHER_STATUS.get(path, 200), name


@pytest.mark.parametrize("path", sorted(GOOD))
async def test_any_value_anywhere_is_served_or_refused_in_words(gateway: Gateway, path: str) -> None:
    """No body makes the gateway fail: the answer is what was asked, or an error that names the member."""
    members = sorted({*BODIES[path].__struct_fields__, "x"})

    @settings(max_examples=10, suppress_health_check=list(HealthCheck), database=None)
    @given(changes=st.dictionaries(st.sampled_from(members), values, max_size=3))
    def changed(changes: dict[str, Any]) -> None:
        bodies.append({**GOOD[path], **changes})

    bodies: list[dict[str, Any]] = []
    changed()
    for body in bodies:
        response = await ask(gateway, path, body)
        assert response.status in (200, 400, 404, OTHER_STATUS.get(path)), (body, response.body)
        if response.status == 400:
            error = json.loads(response.body)["error"]
            assert error["code"]
            assert error["message"]
