"""Every route, by every method and every spelling: without a token there is nothing but the pinned public list."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from appliance.gateway.routes import PUBLIC_ROUTES
from security.scopes import Scope
from tests.support.controls import control
from tests.support.gateway import TOKEN, Gateway, principal, running_gateway
from tests.support.waiting import until
from tests.support.wire import Response, exchange

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "PROPFIND")
SPELLED_METHODS = ("GET", "POST", "OPTIONS")
UNKNOWN = (
    "/",
    "/docs",
    "/redoc",
    "/openapi.yaml",
    "/favicon.ico",
    "/static/x",
    "/v1",
    "/v1/",
    "/admin",
    "/metrics/",
    "/.well-known/x",
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(folder: Path) -> AsyncIterator[Gateway]:
    """Whose peers are believed for long, so that it is as ready for one request as for the next."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("appliance.gateway.api.health.FRESH_S", 3600.0)
        async with running_gateway(folder) as running:
            yield running


def example_of(path: str) -> str:
    """A path that the route takes."""
    return path.replace("{id}", "some-id").replace("{path}", "0/x001/x234/067.p/8")


def paths_of(gateway: Gateway) -> list[str]:
    return sorted({example_of(route.path) for route in gateway.worker.routes})


def is_for_people(response: Response) -> bool:
    """The scope is there, but this token stands for a program; whatever the variable segment of the path says."""
    return response.status == 403 and json.loads(response.body)["error"]["code"] == "needs_a_person"


def spellings(path: str) -> list[str]:
    """Ways to write a path that a router or a proxy might take for the same."""
    head, _, tail = path.rpartition("/")
    return [
        path + "/",
        "/" + path,
        path.replace("/", "//"),
        path + "?x=1",
        path + "#f",
        path + "%00",
        path + "/.",
        path + "/..",
        f"/x/..{path}",
        f"/%2e%2e{path}",
        f"/.{path}",
        f"{head}/%2e%2e{head}/{tail}",
        path.upper(),
        f"{head}/" + "".join(f"%{ord(character):02x}" for character in tail),
        path + ";a=b",
        path + ".",
        path + "%2f",
        path.replace("/", "\\"),
    ]


async def ask(gateway: Gateway, method: str, path: str, *headers: str, body: bytes = b"") -> Response:
    return await exchange(gateway.port, method, path, headers=headers, body=body)


@control("3.1.1", "3.1.12", "3.13.1", "AC-2", "AC-14", "AC-17", "AC-17(1)", "SC-7")
async def test_nothing_is_there_without_a_token(gateway: Gateway) -> None:
    """All methods, all spellings, known and unknown paths: 401 with a challenge, or the pinned list. No oracle."""
    public = {(method, path) for _, path in PUBLIC_ROUTES for method in ("GET", "HEAD")}
    bodies: set[bytes] = set()
    for path in [*paths_of(gateway), *UNKNOWN]:
        for method in METHODS:
            for spelled in [path, *(spellings(path) if method in SPELLED_METHODS else ())]:
                response = await ask(gateway, method, spelled)
                if (method, spelled.split("?")[0]) in public:
                    assert response.status in (200, 503), (method, spelled)
                    continue
                if response.status == 400:
                    # Not HTTP at all (a fragment or backslash in the request line): refused before there is a path.
                    assert json.loads(response.body)["error"]["code"] == "invalid_http", (method, spelled)
                    continue
                assert response.status == 401, (method, spelled, response.status)
                assert response.headers["www-authenticate"].startswith("Bearer"), (method, spelled)
                if method != "HEAD":
                    bodies.add(response.body)
    assert len(bodies) == 1


@control("3.1.2", "AC-3")
async def test_a_token_opens_what_is_registered_and_nothing_else(gateway: Gateway) -> None:
    """With a token an unknown path is 404, a wrong method 405 with the right ones; no spelling finds another route."""
    bearer = f"Authorization: Bearer {TOKEN}"
    for path in paths_of(gateway):
        routes = [route for route in gateway.worker.routes if example_of(route.path) == path]
        allowed = {route.method for route in routes}
        allowed |= {"HEAD" for route in routes if route.scope is Scope.PUBLIC}
        for method in METHODS:
            response = await ask(gateway, method, path, bearer)
            if method in allowed:
                assert response.status not in (401, 405), (method, path)
                assert response.status != 403 or is_for_people(response), (method, path)
            else:
                assert response.status == 405, (method, path)
                assert set(response.headers["allow"].split(", ")) == allowed
        for spelled in spellings(path):
            if "?" in spelled or "#" in spelled:
                continue
            method = "POST" if "POST" in allowed else "GET"
            response = await ask(gateway, method, spelled, bearer)
            # 405: where a word could also be an id, its percent-encoding is one, of a route that does not take the method.
            assert response.status in (400, 404, 405) or is_for_people(response), (method, spelled, response.status)
    for path in UNKNOWN:
        assert (await ask(gateway, "GET", path, bearer)).status == 404


async def test_a_probe_may_leave_the_answer_out(gateway: Gateway) -> None:
    """HEAD of what is public is GET without the body (RFC 9110 section 9.3.2). The metadata may be kept a while."""
    for _, path in PUBLIC_ROUTES:
        got, asked = await ask(gateway, "GET", path), await ask(gateway, "HEAD", path)
        assert (asked.status, asked.body) == (got.status, b"")
        same = ("content-type", "content-length", "cache-control")
        assert [asked.headers[name] for name in same] == [got.headers[name] for name in same]
        assert got.headers["cache-control"] == ("max-age=300" if "well-known" in path else "no-store")


async def test_parameters_in_the_query_are_refused_by_name(gateway: Gateway) -> None:
    """Everywhere but where a probe may put what it likes, and what Anthropic's SDK says of its beta members."""
    bearer = f"Authorization: Bearer {TOKEN}"
    for route in gateway.worker.routes:
        for query in ("store=true", "beta=true&stream", "=", "access_token=secret"):
            response = await ask(gateway, route.method, f"{example_of(route.path)}?{query}", bearer)
            if route.scope is Scope.PUBLIC:
                assert response.status in (200, 503), route
                continue
            error = json.loads(response.body)["error"]
            name = query.partition("&")[0].partition("=")[0]
            if name == "beta" and route.path == "/v1/models":
                name = "stream"  # Which has parameters of its own, and this among them.
            assert (response.status, error["param"]) == (400, name), route
            assert error["code"] in ("unknown_parameter", "unsupported_parameter"), route
            assert b"secret" not in response.body
    for path in ("/v1/messages", "/v1/messages/count_tokens"):
        answer = await ask(gateway, "POST", path + "?beta=true", bearer, "Content-Type: application/json", body=b"{}")
        assert json.loads(answer.body)["error"]["code"] == "missing_parameter"


@control("3.1.2", "3.1.6", "3.13.3", "AC-3", "AC-6(2)", "AC-6(10)", "SC-2")
async def test_a_token_without_the_scope_is_forbidden_everywhere(gateway: Gateway) -> None:
    """Every route names one scope; a valid token without it gets 403 and is told which one it lacks, and its next nonce."""
    known = gateway.tokens.good["no-scope"]
    gateway.tokens.good["no-scope"] = msgspec.structs.replace(known, dpop_nonce="next")
    for route in gateway.worker.routes:
        if route.scope is Scope.PUBLIC:
            continue
        path = example_of(route.path)
        response = await ask(gateway, route.method, path, "Authorization: Bearer no-scope")
        assert response.status == 403, route
        assert f'error="insufficient_scope", scope="{route.scope}"' in response.headers["www-authenticate"]
        assert response.headers["dpop-nonce"] == "next"


@pytest.mark.parametrize(
    ("header", "error"),
    [
        ("Authorization: Bearer wrong", "invalid_token"),
        ("Authorization: bearer wrong", "invalid_token"),
        ("Authorization: Bearer", "invalid_token"),
        ("Authorization: Bearer " + "x" * 20_000, "invalid_token"),
        ("Authorization: Basic Zm9vOmJhcg==", None),
        ("Authorization: " + TOKEN, None),
        ("X-Api-Key: " + TOKEN, None),
        ("Proxy-Authorization: Bearer " + TOKEN, None),
        ("X-Forwarded-User: admin", None),
    ],
)
async def test_other_credentials_do_not_count(gateway: Gateway, header: str, error: str | None) -> None:
    """Only a valid bearer token in the one header counts; the error code is there only if a token was."""
    response = await ask(gateway, "GET", "/v1/models", header)
    assert response.status == 401
    assert ("error=" in response.headers["www-authenticate"]) is (error is not None)


async def test_a_static_key_counts_where_anthropics_clients_put_it(gateway: Gateway) -> None:
    """Alone, once, and as a key: no token, and never instead of what Authorization says."""
    key = "cm-" + "k" * 43
    gateway.tokens.good[key] = principal()
    good = f"X-Api-Key: {key}"
    assert (await ask(gateway, "GET", "/v1/models", good)).status == 200
    for headers in (("X-Api-Key: cm-" + "x" * 43,), (good, "X-Api-Key: x"), (good, "Authorization: Bearer x")):
        assert (await ask(gateway, "GET", "/v1/models", *headers)).status == 401, headers
    assert (await ask(gateway, "GET", "/v1/models", good, good)).status == 400


async def test_two_authorization_headers_are_refused(gateway: Gateway) -> None:
    """A proxy may look at one of them and we at the other."""
    good, bad = f"Authorization: Bearer {TOKEN}", "Authorization: Bearer x"
    for headers in ((good, bad), (bad, good), (good, good)):
        assert (await ask(gateway, "GET", "/v1/models", *headers)).status == 400


async def test_tokens_in_the_query_do_not_count(gateway: Gateway) -> None:
    """RFC 6750 section 2.3 is not offered: addresses end up in logs."""
    assert (await ask(gateway, "GET", f"/v1/models?access_token={TOKEN}")).status == 401


async def test_websockets_are_answered_as_plain_requests(gateway: Gateway) -> None:
    """An upgrade opens nothing: 401 without a token on any path, and the connection ends."""
    upgrade = (
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    )
    for path in ("/v1/realtime", "/v1/models", "/", "/ws"):
        response = await ask(gateway, "GET", path, *upgrade)
        assert response.status == 401
        assert "upgrade" not in response.headers


async def test_asgi_websocket_scope_is_closed(gateway: Gateway) -> None:
    """Also a server that does speak WebSocket would find nothing here."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(event: Any) -> None:
        sent.append(event)

    await gateway.worker.application({"type": "websocket", "path": "/v1/models", "headers": []}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]


async def test_every_answer_carries_the_security_headers(gateway: Gateway) -> None:
    """Errors and answers alike: not cached, not sniffed, no server name, and an id of ours."""
    for path, headers in (("/health", ()), ("/nothing", ()), ("/v1/models", (f"Authorization: Bearer {TOKEN}",))):
        response = await ask(gateway, "GET", path, *headers, "X-Request-Id: chosen-by-client")
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["x-request-id"].startswith("req-")
        assert "server" not in response.headers


@control("3.1.12", "3.14.6", "AC-17", "AC-17(1)", "AU-3", "SI-4")
async def test_rejected_tokens_reach_the_log_together(folder: Path) -> None:
    """A flood of bad tokens is one record a source and kind, with their number."""
    async with running_gateway(folder) as gateway:
        for _ in range(5):
            await ask(gateway, "GET", "/v1/models", "Authorization: Bearer wrong")
        gateway.worker.rejections.flush()
        await until(lambda: bool(gateway.auditor.of_kind("token_rejected")))
        (event,) = gateway.auditor.of_kind("token_rejected")
    assert event["unmapped"]["casemate"]["num_times"] == event["count"] == 5
    assert 0 <= event["duration"] == event["end_time"] - event["start_time"]
    assert event["unmapped"]["casemate"]["route"] == "/v1/models"
    assert event["src_endpoint"]["ip"] == "127.0.0.1"


@control("3.1.7", "AC-6(10)", "AU-3", "SI-4")
async def test_whose_token_does_not_suffice_is_named_in_the_log(folder: Path) -> None:
    """Client, person, tenant and token of who asked for records without the scope for them."""
    async with running_gateway(folder) as gateway:
        assert (await ask(gateway, "POST", "/audit/search", "Authorization: Bearer no-scope")).status == 403
        gateway.worker.rejections.flush()
        await until(lambda: bool(gateway.auditor.of_kind("token_rejected")))
        (event,) = gateway.auditor.of_kind("token_rejected")
    assert event["status_code"] == "insufficient_scope"
    assert event["actor"]["app_uid"] == "client-1"
    assert (event["user"]["uid"], event["session"]["uid"]) == ("client-1", "jti-1")
    assert event["metadata"]["tenant_uid"] == "acme"
