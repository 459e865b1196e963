"""Secrets and prompts never reach an output: canaries go through every route, header and error, and all output is searched.

The gateway's routes, the authority's, the admin API's and the console's, each as its own list has them: a new route is tried
when it is there. Searched are the operator's log of all processes, everything below the state folder, the metrics, what leaves
for an OpenTelemetry collector, and every error that strangers get. A canary is one word, so whatever shows a part of an input
shows it.
"""

import http.client
import json
import re
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.authority.application import PUBLIC_ROUTES as AUTHORITY_ROUTES
from appliance.gateway.routes import PUBLIC_ROUTES, RouteTable
from appliance.policy.administration.endpoints import Administration
from tests.support.appliance import Appliance, running_appliance
from tests.support.collector import Collector
from tests.support.controls import control
from tests.support.folders import contents_below
from tests.support.ports import free_port
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


ADMINISTRATION, CONSOLE = free_port(), free_port()
DOCS = Path(__file__).parents[2] / "docs"
FORM = "application/x-www-form-urlencoded"


@pytest.fixture(scope="module")
def appliance(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Appliance]:
    extra = f"[administration]\nenabled = true\nport = {ADMINISTRATION}\n[console]\nenabled = true\nport = {CONSOLE}\n"
    folder = tmp_path_factory.mktemp("canaries") / "appliance"
    with running_appliance(folder, extra=extra + collector.section) as running:
        yield running


def send(
    appliance: Appliance,
    method: str,
    path: str,
    *,
    token: str | None,
    body: bytes | None = None,
    port: int | None = None,
    **headers: str,
) -> tuple[int, bytes]:
    """One request on a connection of its own; whatever comes back."""
    connection = http.client.HTTPSConnection(
        "127.0.0.1", port or appliance.gateway_port, timeout=60, context=appliance.client.tls
    )
    sent = dict.fromkeys(("X-Canary", "User-Agent", "X-Forwarded-For", "X-Request-Id", "Referer", "Origin"), CANARY)
    sent |= {"Content-Type": "application/json"} if body is not None else {}
    sent |= headers
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
    routes = re.findall(r"^\| `(\w+) (/[^`]*)` \|", (DOCS / "api.md").read_text(), re.MULTILINE)
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
    for name in HEADERS:
        send(appliance, "GET", "/v1/models", token=token, **{name: CANARY})
        send(appliance, "POST", "/v1/chat/completions", token=token, body=b"{}", **{name: CANARY})
    assert {200, 400, 401, 404} <= statuses
    ask_the_other_listeners(appliance)
    verify_clean(appliance)
    verify_untold(collector)


HEADERS = (
    *("traceparent", "tracestate", "baggage", "Accept", "Accept-Encoding", "Content-Type", "Content-Encoding"),
    *(
        "Content-Length",
        "Transfer-Encoding",
        "Expect",
        "Host",
        "Forwarded",
        "Cookie",
        "anthropic-beta",
        "If-None-Match",
    ),
)
"""What a server might look at, and say something of."""


WORDS = ("scope", "user_code", "redirect_uri", "state", "resource", "q", "before", "next")
SECRETS = (
    "client_secret",
    "password",
    "code",
    "token",
    "refresh_token",
    "device_code",
    "code_verifier",
    "subject_token",
)
NAMES = ("client_id", "username", "login")
"""Of the forms that authority and console read. Who tried to sign in is in the log, by these names."""


def admin_routes() -> list[tuple[str, str]]:
    table = RouteTable()
    Administration(None, b"").register(table)  # type: ignore[arg-type]
    return [(route.method, route.path) for route in table]


def console_routes() -> list[tuple[str, str]]:
    """The document's, which a test of the console holds against its own."""
    rows = re.findall(
        r"^\| (`/[^|]*) \|", (DOCS / "identity.md").read_text().partition("## The console")[2], re.MULTILINE
    )
    return [(method, path) for row in rows for path in re.findall("`([^`]*)`", row) for method in ("GET", "POST")]


def ask_the_other_listeners(appliance: Appliance) -> None:
    """Authority, admin API and console: every route with secrets and canaries in all that it reads."""
    admin = appliance.token(appliance.create_client("canary-admin", "--role", "admin"))
    form = dict.fromkeys(WORDS, CANARY) | dict.fromkeys(SECRETS, SECRET) | dict.fromkeys(NAMES, "nobody")
    grants = ("client_credentials", "authorization_code", "refresh_token", "password", CANARY)
    forms = [urllib.parse.urlencode(form | {"grant_type": grant}).encode() for grant in grants]
    client = json.dumps({"name": CANARY, "role": CANARY, "jwks": {"keys": [{"kty": SECRET, "d": SECRET}]}}).encode()
    bodies = [(FORM, one) for one in forms] + [
        ("application/json", one) for one in (client, *map(str.encode, BROKEN[:4]))
    ]
    lists = [
        (appliance.authority_port, AUTHORITY_ROUTES),
        (ADMINISTRATION, admin_routes()),
        (CONSOLE, console_routes()),
    ]
    answered = 0
    for port, routes in lists:
        assert len(routes) > 10
        for method, path in routes:
            called = path.replace("{id}", CANARY)
            for credential in (None, SECRET, admin):
                for media, body in bodies if method in ("POST", "PUT") else [("", None)]:
                    headers = {"Content-Type": media} if media else {}
                    where = called if body is not None else f"{called}?{forms[0].decode()}"
                    status, answer = send(
                        appliance,
                        method,
                        where,
                        token=credential,
                        body=body,
                        port=port,
                        Cookie=f"session={SECRET}",
                        **headers,
                    )
                    answered += status != 0
                    # Pages carry the query of their visitor along, for after the sign-in.
                    assert answer.startswith(b"<!doctype") or SECRET.encode() not in answer, (method, path)
    assert answered > 500


def verify_untold(collector: Collector) -> None:
    """What left for the collector, which had the spans of all of that."""
    wait_until(lambda: len(collector.spans()) > 500)
    assert [body for _, body in collector.bodies if CANARY.encode() in body or SECRET.encode() in body] == []


def verify_clean(appliance: Appliance) -> None:
    """Log and state, byte for byte; also as hexadecimal and base64 would show them."""
    words = [word.encode() for word in (CANARY, SECRET)]
    words += [word.hex().encode() for word in words]
    found = []
    for file, content in [(appliance.log_file, appliance.log_file.read_bytes()), *contents_below(appliance.state)]:
        found += [(str(file), word, context(content, word)) for word in words if word in content]
    assert found == []
    assert MODEL.encode() in appliance.log_file.read_bytes(), "the search finds what is there"


def context(content: bytes, word: bytes) -> bytes:
    """What stands around it."""
    at = content.index(word)
    return content[max(0, at - 200) : at + 100]
