"""Secrets and prompts never reach an output: canaries go through every route, header and error, and all output is searched.

Searched are the operator's log of all processes, everything below the state folder, the metrics, what leaves for an OpenTelemetry
collector, and every error that strangers get. A canary is one word, so whatever shows a part of an input shows it.
"""

import http.client
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.gateway.routes import PUBLIC_ROUTES
from tests.support.appliance import Appliance, running_appliance
from tests.support.collector import Collector
from tests.support.controls import control
from tests.support.waiting import wait_until

MODEL = "casemate-demo"
CANARY = "KanarienvogelQ7"
"""In prompts, tools, schemas, bodies that do not parse, paths, queries and headers."""
SECRET = "GeheimschluesselZ9"
"""In credentials of every kind."""


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    collector = Collector(tmp_path_factory.mktemp("collector"))
    yield collector
    collector.close()


@pytest.fixture(scope="module")
def appliance(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Appliance]:
    with running_appliance(tmp_path_factory.mktemp("canaries") / "appliance", extra=collector.section) as running:
        yield running


def send(
    appliance: Appliance, method: str, path: str, *, token: str | None, body: bytes | None = None, **headers: str
) -> tuple[int, bytes]:
    """One request on a connection of its own; whatever comes back."""
    connection = http.client.HTTPSConnection(
        "127.0.0.1", appliance.gateway_port, timeout=60, context=appliance.client.tls
    )
    sent = {"X-Canary": CANARY, "User-Agent": CANARY, "X-Forwarded-For": CANARY, "X-Request-Id": CANARY} | headers
    sent |= {"Content-Type": "application/json"} if body is not None else {}
    sent |= {"Authorization": f"Bearer {token}"} if token is not None else {}
    try:
        connection.request(method, path, body, sent)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def bodies() -> list[Any]:
    """For every inferring route: what works, what is refused at each stage, what fails in the middle."""
    message = {"role": "user", "content": CANARY}
    schema = {"type": "object", "properties": {CANARY: {"type": "string", "pattern": f"{CANARY}+"}}}
    tool = {"type": "function", "function": {"name": CANARY, "description": CANARY, "parameters": schema}}
    chat = {"model": MODEL, "messages": [message], "max_tokens": 4}
    return [
        chat,
        chat | {"stream": True, "n": 2},
        chat | {"tools": [tool], "tool_choice": "required", "max_tokens": 30},
        chat | {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}},
        chat | {"response_format": {"type": "json_schema", "json_schema": {"name": CANARY, "schema": {CANARY: 1}}}},
        chat | {"regex": f"({CANARY}"},
        chat | {"regex": f"(?={CANARY})x"},
        chat | {"ebnf": f"root ::= {CANARY}"},
        chat | {"stop": [CANARY], "chat_template_kwargs": {CANARY: CANARY}},
        chat | {"model": CANARY},
        chat | {CANARY: CANARY},
        chat | {"messages": [{"role": CANARY, "content": CANARY}]},
        chat | {"messages": [message | {"content": f"{CANARY} " * 9000}]},
        {"model": MODEL, "prompt": CANARY, "max_tokens": 4, "echo": True, "logprobs": 2, "suffix": CANARY},
        {"model": MODEL, "prompt": CANARY, "max_tokens": 4, "echo": True, "logprobs": 2},
        {"text": CANARY, "sampling_params": {"max_new_tokens": 4, "json_schema": CANARY}},
        {"text": CANARY, "sampling_params": {"max_new_tokens": 4}},
        {"model": MODEL, "input": CANARY, "instructions": CANARY, "max_output_tokens": 4},
        {"model": MODEL, "max_tokens": 4, "messages": [message], "system": CANARY},
        {"model": MODEL, "prompt": CANARY},
        {"model": MODEL, "tokens": [5, 6, 7]},
        {"rid": CANARY},
    ]  # fmt: skip


BROKEN = [
    f'{{"model": "{CANARY}', f'{{"{CANARY}": 1, "{CANARY}": 2}}', f'["{CANARY}"]', f'{{"x": {CANARY}}}', f'"\\ud800{CANARY}"',
]  # fmt: skip


@control("CM-12", "SI-11")
def test_no_canary_is_in_any_output(appliance: Appliance, collector: Collector) -> None:
    """After all of it: the answers came, and nothing that was sent is found anywhere."""
    token = appliance.token()
    routes = re.findall(
        r"^\| `(\w+) (/[^`]*)` \|", (Path(__file__).parents[2] / "docs/api.md").read_text(), re.MULTILINE
    )
    assert len(routes) > 20
    statuses: set[int] = set()
    for method, path in routes:
        called = path.replace("{id}", CANARY)
        is_post = method == "POST"
        for query in ("", f"?access_token={SECRET}&q={CANARY}"):
            for credential in (None, SECRET, token):
                empty = b"{}" if is_post else None
                status, answer = send(appliance, method, called + query, token=credential, body=empty)
                statuses.add(status)
                if credential != token and (method, path) not in PUBLIC_ROUTES:
                    assert SECRET.encode() not in answer
        for body in [*map(json.dumps, bodies()), *BROKEN] if is_post else ():
            statuses.add(send(appliance, method, called, token=token, body=body.encode("utf-8", "surrogatepass"))[0])
    for headers in (
        {"Authorization": f"Basic {SECRET}"},
        {"Cookie": f"session={SECRET}"},
        {"X-Api-Key": SECRET},
        {"DPoP": SECRET},
    ):
        send(appliance, "GET", f"/{CANARY}", token=None, **headers)
        send(appliance, "POST", "/v1/chat/completions", token=None, body=CANARY.encode(), **headers)
    send(appliance, "GET", "/v1/models", token=token, traceparent=CANARY, Accept=CANARY)
    assert {200, 400, 401, 404} <= statuses
    verify_clean(appliance)
    verify_untold(collector)


def verify_untold(collector: Collector) -> None:
    """What left for the collector, which had the spans of all of that."""
    wait_until(lambda: len(collector.spans()) > 500)
    assert [body for _, body in collector.bodies if CANARY.encode() in body or SECRET.encode() in body] == []


def verify_clean(appliance: Appliance) -> None:
    """Log and state, byte for byte; also as hexadecimal and base64 would show them."""
    words = [word.encode() for word in (CANARY, SECRET)]
    words += [word.hex().encode() for word in words]
    found = []
    for file in [appliance.log_file, *(path for path in appliance.state.rglob("*") if path.is_file())]:
        content = file.read_bytes()
        found += [(str(file), word, context(content, word)) for word in words if word in content]
    assert found == []
    assert MODEL.encode() in appliance.log_file.read_bytes(), "the search finds what is there"


def context(content: bytes, word: bytes) -> bytes:
    """What stands around it."""
    at = content.index(word)
    return content[max(0, at - 200) : at + 100]
