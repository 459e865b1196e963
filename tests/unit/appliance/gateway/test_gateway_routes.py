"""The route table and the gate: a path is what was registered, byte for byte, and only for who may."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.gateway.errors import GatewayFault, MethodNotAllowed, NotFound, PeerUnavailable, Unauthenticated, http_of
from appliance.gateway.exchange import Exchange
from appliance.gateway.gate import Challenges, Gate
from appliance.gateway.identity import Presented, Principal, TokenIssuerUnavailable, TokenRefused
from appliance.gateway.routes import RouteTable
from security.scopes import Scope
from tests.support.controls import control
from tests.support.gateway import principal


async def answer(exchange: Exchange) -> None:
    raise NotImplementedError


@pytest.fixture
def table() -> RouteTable:
    routes = RouteTable()
    routes.register("GET", "/health", Scope.PUBLIC, answer)
    routes.register("GET", "/v1/models", Scope.MODELS_READ, answer)
    routes.register("GET", "/v1/models/{id}", Scope.MODELS_READ, answer)
    routes.register("GET", "/v1/models/{id}/parts", Scope.MODELS_READ, answer)
    routes.register("POST", "/v1/completions", Scope.INFERENCE, answer)
    return routes


def test_a_path_matches_byte_for_byte(table: RouteTable) -> None:
    """With its value where it has a variable segment."""
    assert table.match("GET", b"/v1/models").route.path == "/v1/models"
    assert table.match("GET", b"/v1/models/a%2Fb").segment == "a/b"
    assert table.match("GET", b"/v1/models/a%2Fb/parts").segment == "a/b"
    assert table.match("GET", b"/v1/models/parts").route.path == "/v1/models/{id}"
    with pytest.raises(MethodNotAllowed):
        table.match("POST", b"/v1/models")
    for path in (
        b"",
        b"/",
        b"/v1/models/",
        b"/v1/models/a/b",
        b"/v1/models//parts",
        b"/v1/models/../parts",
        b"/v1/models/a/parts/",
        b"/v1/models/a/b/parts",
        b"/v1/models\0parts",
        b"/v1/models/%ff",
        b"/v1/models/%0a",
        b"/V1/models",
        b"//v1/models",
    ):
        with pytest.raises(NotFound):
            table.match("GET", path)


@given(path=st.binary(max_size=40))
def test_no_other_bytes_are_a_route(path: bytes) -> None:
    """Whatever bytes come: a match is one of the registered paths, anything else is the family's own refusal."""
    routes = RouteTable()
    routes.register("GET", "/v1/models/{id}", Scope.MODELS_READ, answer)
    try:
        match = routes.match("GET", path)
    except NotFound:
        return
    assert path.startswith(b"/v1/models/")
    assert match.segment.isprintable()


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/secret", Scope.PUBLIC),
        ("GET", "/health", Scope.INFERENCE),
        ("POST", "/health", Scope.PUBLIC),
        ("GET", "/v1/", Scope.INFERENCE),
        ("GET", "/v1/{id}/x/y", Scope.INFERENCE),
        ("GET", "/v1/{id}/x/{id}", Scope.INFERENCE),
        ("GET", "/v1/{id}/", Scope.INFERENCE),
        ("GET", "v1", Scope.INFERENCE),
    ],
)
def test_registration_refuses_mistakes(method: str, path: str, scope: Scope) -> None:
    """A public route must be on the pinned list, a listed one public, and a path of a form that can be matched."""
    with pytest.raises(ValueError):
        RouteTable().register(method, path, scope, answer)


def test_a_route_is_registered_once(table: RouteTable) -> None:
    """Two endpoints for one route would be a race of imports."""
    with pytest.raises(ValueError):
        table.register("GET", "/v1/models", Scope.MODELS_READ, answer)


class Tokens:
    """Says what it was told to say."""

    def __init__(self, outcome: Principal | Exception) -> None:
        self.outcome = outcome
        self.asked: list[Presented] = []

    async def __call__(self, token: Presented) -> Principal:
        self.asked.append(token)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


async def refusal(gate: Gate, method: str, path: bytes, *headers: tuple[bytes, bytes]) -> GatewayFault:
    with pytest.raises(GatewayFault) as caught:
        await gate.admit(method, path, headers)
    fault: Any = caught.value
    assert isinstance(fault, GatewayFault)
    return fault


@control("AC-14", "SI-11")
async def test_strangers_cannot_tell_routes_apart(table: RouteTable) -> None:
    """Unknown path, unknown method, known route: one and the same refusal, and no token is checked for it."""
    tokens = Tokens(principal())
    gate = Gate(table, tokens)
    asked = [("GET", b"/v1/models"), ("PUT", b"/v1/models"), ("GET", b"/nothing"), ("OPTIONS", b"/health")]
    refusals = {
        (type(fault), str(fault), fault.code) for method, path in asked for fault in [await refusal(gate, method, path)]
    }
    assert len(refusals) == 1
    assert tokens.asked == []


async def test_a_refused_token_says_why_without_breaking_the_header(table: RouteTable) -> None:
    """The description of RFC 6750 may hold no quotes and no line breaks, whatever the validator said."""
    gate = Gate(table, Tokens(TokenRefused('bad "quote"\r\nX-Evil: 1 \\ é')))
    fault = await refusal(gate, "GET", b"/v1/models", (b"authorization", b"Bearer x"))
    assert isinstance(fault, Unauthenticated)
    ((name, value),) = fault.headers
    assert name == b"www-authenticate"
    assert value == b'Bearer realm="casemate", error="invalid_token", error_description="bad .quote...X-Evil: 1 . ."'


@pytest.mark.parametrize("authorization", [b"Bearer abc", b"bEARER abc", b"Bearer   abc", b"dpop  abc"])
async def test_a_scheme_has_any_case_and_any_spaces_behind_it(table: RouteTable, authorization: bytes) -> None:
    """RFC 9110 section 11.4, RFC 6750 section 2.1: one space or more."""
    tokens = Tokens(principal())
    await Gate(table, tokens).admit("GET", b"/v1/models", [(b"authorization", authorization)])
    (presented,) = tokens.asked
    assert (presented.scheme, presented.token) == (authorization.lower().split()[0].decode(), "abc")


@pytest.mark.parametrize(
    "authorization",
    [
        b"",
        b"Bearer",
        b"Bearer  ",
        b"Basic abc",
        b"abc",
        b"BearerX abc",
        b"Bearer\tabc",
        b"Bearer \xe9",
        b"Bearer " + b"a" * 20_000,
    ],
)
async def test_what_is_no_token_is_never_looked_at(table: RouteTable, authorization: bytes) -> None:
    """Another scheme, another white space, or nothing behind it."""
    tokens = Tokens(principal())
    fault = await refusal(Gate(table, tokens), "GET", b"/v1/models", (b"authorization", authorization))
    assert (http_of(fault).status, tokens.asked) == (401, [])


async def test_two_tokens_are_a_malformed_request(table: RouteTable) -> None:
    """RFC 6750 section 3.1: invalid_request, 400; neither is looked at."""
    tokens = Tokens(principal())
    twice = [(b"authorization", b"Bearer a"), (b"authorization", b"Bearer a")]
    fault = await refusal(Gate(table, tokens), "GET", b"/v1/models", *twice)
    assert (http_of(fault).status, fault.code, tokens.asked) == (400, "invalid_request", [])
    assert b'error="invalid_request"' in fault.headers[0][1]


async def test_who_has_no_token_is_told_of_every_scheme(table: RouteTable) -> None:
    """RFC 9449 section 7.1: DPoP beside Bearer, where it is taken."""
    gate = Gate(table, Tokens(principal()), Challenges("https://x/m", ("ES256",)))
    fault = await refusal(gate, "GET", b"/v1/models")
    assert [value for _, value in fault.headers] == [
        b'Bearer realm="casemate", resource_metadata="https://x/m"',
        b'DPoP realm="casemate", algs="ES256", resource_metadata="https://x/m"',
    ]


async def test_a_token_that_does_not_hold_is_told_of_the_other_scheme(table: RouteTable) -> None:
    """RFC 9449 section 7.2: one that is bound to a key is no bearer's, and its client learns which scheme there is for it."""
    gate = Gate(table, Tokens(TokenRefused("no")), Challenges("", ("ES256",)))
    wrong = b'realm="casemate", error="invalid_token", error_description="no"'
    for scheme, told in (
        (b"Bearer", [b"Bearer " + wrong, b'DPoP realm="casemate", algs="ES256"']),
        (b"DPoP", [b"DPoP " + wrong + b', algs="ES256"', b'Bearer realm="casemate"']),
    ):
        fault = await refusal(gate, "GET", b"/v1/models", (b"authorization", scheme + b" x"))
        assert [value for _, value in fault.headers] == told


async def test_keys_that_cannot_be_had_are_503_not_401(table: RouteTable) -> None:
    """The client's token may be perfect: it should come again, not throw it away."""
    gate = Gate(table, Tokens(TokenIssuerUnavailable("the authority is away")))
    fault = await refusal(gate, "GET", b"/v1/models", (b"authorization", b"Bearer x"))
    assert isinstance(fault, PeerUnavailable)


async def test_public_routes_need_no_check(table: RouteTable) -> None:
    """Health is answered while the authority is away; a token that comes all the same is checked."""
    gate = Gate(table, Tokens(TokenRefused("no")))
    assert (await gate.admit("GET", b"/health", [])).principal is None
    assert (await refusal(gate, "GET", b"/health", (b"authorization", b"Bearer x"))).code == "invalid_token"
