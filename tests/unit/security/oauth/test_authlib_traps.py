"""The eleven traps of authlib 1.9.9 and joserfc 1.8.0, each closed, each test named after its trap.

Where it shows the danger, a test also runs the library's own code to prove that the trap is still there.
"""

import asyncio
import base64
import json
import time

import pytest
from authlib.oauth2.rfc9068 import JWTBearerTokenValidator
from joserfc.jwk import KeySet

from security.clients import ClientDefinition
from security.errors import SecurityMisconfigured, TokenRejected
from security.oauth.resource import AccessTokenValidator
from security.oauth.signing_keys import SigningKeys
from security.oauth.token_request import TokenRequest
from tests.support.authority import FORM, basic, build_authority, decide
from tests.support.controls import control
from tests.support.definitions import Registry

NOW = 1_800_000_000
ISSUER = "https://authority.example:8444"
AUDIENCE = "https://gateway.example:8443"


class LibraryValidator(JWTBearerTokenValidator):
    """authlib's validator as its documentation says to use it."""

    def __init__(self, key_set):
        super().__init__(issuer=ISSUER, resource_server=AUDIENCE)
        self._key_set = key_set

    def get_jwks(self):
        return self._key_set


def library_accepts(issuer, token):
    """What authlib itself says of a token's signature and header."""
    keys = KeySet([key.key for key in issuer.keys._keys])
    LibraryValidator(keys).authenticate_token(token)
    return True


def decode_part(token, index):
    part = token.split(".")[index]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def issue_token(tmp_path, **form):
    """A token from the real authority, by a registered client."""
    registry = Registry(tmp_path / "clients.sqlite", clock=lambda: NOW)
    issued = registry.create(ClientDefinition(name="demo"), actor="test")
    keys = SigningKeys.load_or_create(tmp_path / "signing", clock=lambda: NOW)
    authority, _, refresh = build_authority(
        registry, keys, tmp_path, issuer=ISSUER, resource=AUDIENCE, clock=lambda: NOW
    )
    request = TokenRequest(
        query="",
        content_type=FORM,
        authorization=(basic(issued.client.client_id, issued.secret),),
        body="&".join(
            f"{name}={value}" for name, value in {"grant_type": "client_credentials", **form}.items()
        ).encode(),
    )
    decision = decide(authority, request)
    refresh.close()
    registry.close()
    assert decision.status == 200, decision.body
    return json.loads(decision.body)


async def test_trap_1_a_token_without_typ_is_refused(issuer):
    """authlib checks `typ` only if it is there; RFC 9068 section 4 requires it."""
    token = issuer.sign(header=issuer.header(typ=...))
    assert library_accepts(issuer, token)
    with pytest.raises(TokenRejected, match="typ"):
        await issuer.validate(token)


@pytest.mark.parametrize("typ", ["JWT", "at+JWT2", "", 7, None, ["at+jwt"], "dpop+jwt"])
async def test_trap_1_any_other_typ_is_refused(issuer, typ):
    """ID tokens and proofs are signed by the same key: the type tells them apart."""
    payload = json.dumps(issuer.claims()).encode()
    with pytest.raises(TokenRejected, match="typ"):
        await issuer.validate(issuer.sign_text(json.dumps(issuer.header(typ=typ)).encode(), payload))


@pytest.mark.parametrize("typ", ["at+jwt", "AT+JWT", "application/at+jwt"])
async def test_trap_1_the_type_is_compared_as_a_media_type(issuer, typ):
    """RFC 7515 section 4.1.9: media types are case-insensitive, and `application/` may be left out."""
    assert (await issuer.validate(issuer.sign(header=issuer.header(typ=typ)))).client_id == "demo-1"


async def test_trap_2_duplicate_claims_are_refused(issuer):
    """The library takes the last of two: a second "sub":"admin" would get through."""
    text = json.dumps(issuer.claims())[:-1] + ',"sub":"admin"}'
    token = issuer.sign_text(json.dumps(issuer.header()).encode(), text.encode())
    assert library_accepts(issuer, token)
    with pytest.raises(TokenRejected, match="twice"):
        await issuer.validate(token)


async def test_trap_2_duplicate_header_members_and_nested_ones_are_refused(issuer):
    """Also in the header, also by an escaped spelling of the name, also deeper down."""
    claims = json.dumps(issuer.claims()).encode()
    header = json.dumps(issuer.header())
    for text in (header[:-1] + ',"alg":"ES256"}', header[:-1] + ',"\\u0061lg":"ES256"}'):
        with pytest.raises(TokenRejected, match="twice"):
            await issuer.validate(issuer.sign_text(text.encode(), claims))
    nested = json.dumps(issuer.claims())[:-1] + ',"extra":{"a":1,"a":2}}'
    with pytest.raises(TokenRejected, match="twice"):
        await issuer.validate(issuer.sign_text(header.encode(), nested.encode()))


async def test_trap_3_keys_are_imported_once(issuer, monkeypatch):
    """authlib imports a key set given as a dictionary at every call; ours is imported when it is fetched."""
    tokens = [issuer.sign(issuer.claims(jti=f"token-{number}")) for number in range(20)]
    await issuer.ring.load()
    monkeypatch.setattr("security.oauth.key_ring.parse_key_set", None)
    monkeypatch.setattr("joserfc.jwk.JWKRegistry.import_key", None)
    key = issuer.ring.find(issuer.keys.current.kid)
    for token in tokens:
        await issuer.validate(token)
    assert issuer.ring.find(issuer.keys.current.kid) is key
    assert issuer.source.num_fetches == 1


async def test_trap_4_algorithms_are_an_explicit_list(issuer):
    """authlib names none and relies on what joserfc recommends."""
    from security.oauth import algorithms

    assert tuple(algorithms.MODELS) == ("ES256", "Ed25519", "EdDSA", "PS256", "RS256")
    assert algorithms._registry.allowed == ["ES256", "ES384", "Ed25519", "PS256", "RS256"]
    for name in ("none", "HS256", "RS256", "PS256", "ES384", "ES512", "EdDSA", "ES256K", "es256", ""):
        token = issuer.sign_text(json.dumps(issuer.header(alg=name)).encode(), json.dumps(issuer.claims()).encode())
        with pytest.raises(TokenRejected, match="alg"):
            await issuer.validate(token)


async def test_trap_5_an_unknown_kid_causes_a_refresh_but_not_many(issuer):
    """authlib answers an error and never fetches again; ours fetches, at most once per interval."""
    await issuer.validate(issuer.sign())
    assert issuer.source.num_fetches == 1
    issuer.ring_clock.now += 60
    issuer.clock.now += 20_000
    issuer.keys.rotate("ES256")
    issuer.clock.now += 700
    now = int(issuer.clock.now)
    rotated = issuer.sign(issuer.claims(iat=now, exp=now + 600))
    assert (await issuer.validate(rotated)).kid == issuer.keys.current.kid
    assert issuer.source.num_fetches == 2
    for number in range(100):
        with pytest.raises(TokenRejected, match="does not publish"):
            await issuer.validate(issuer.sign(header=issuer.header(kid=f"unknown-{number}")))
    assert issuer.source.num_fetches == 2


async def test_trap_5_a_missing_kid_is_refused(issuer):
    """With several keys authlib refuses it too, with one it guesses."""
    with pytest.raises(TokenRejected, match="kid"):
        await issuer.validate(issuer.sign(header=issuer.header(kid=...)))


@control("3.1.11", "AC-2(5)", "AC-12")
def test_trap_6_tokens_live_ten_minutes_not_ten_days(tmp_path):
    """authlib's default for client_credentials is 864,000 seconds."""
    answer = issue_token(tmp_path)
    claims = decode_part(answer["access_token"], 1)
    assert answer["expires_in"] == 600
    assert claims["exp"] - claims["iat"] == 600


async def test_trap_6_the_gateway_refuses_a_token_that_lives_too_long(issuer):
    """Whatever the issuer's settings say."""
    with pytest.raises(TokenRejected, match="exp"):
        await issuer.validate(issuer.sign(issuer.claims(exp=NOW + 864_000)))


def test_trap_7_the_audience_is_the_gateway_not_the_client(tmp_path):
    """authlib's default audience is the client's id."""
    claims = decode_part(issue_token(tmp_path)["access_token"], 1)
    assert claims["aud"] == AUDIENCE
    assert claims["aud"] != claims["client_id"]


async def test_trap_8_size_limits_are_ours(issuer):
    """joserfc refuses headers above 512 bytes and takes payloads of 128,000: ours are stated, and hold in both directions."""
    assert await issuer.validate(issuer.sign(header=issuer.header(x5t="a" * 700)))
    with pytest.raises(TokenRejected, match="header"):
        await issuer.validate(issuer.sign(header=issuer.header(x5t="a" * 2000)))
    with pytest.raises(TokenRejected, match="not an access token"):
        await issuer.validate(issuer.sign(issuer.claims(padding="a" * 9000)))
    started_s = time.process_time()
    with pytest.raises(TokenRejected):
        await issuer.validate("a." * 10_000_000)
    assert time.process_time() - started_s < 5


@pytest.mark.parametrize(
    "scope", [["inference"], [], "", " ", "inference  models.read", "inference ", None, 7, {"inference": 1}]
)
async def test_trap_9_scope_is_one_string_and_exact(issuer, scope):
    """authlib accepts a list, and reads lists as "or" and strings as "and"."""
    with pytest.raises(TokenRejected, match="scope"):
        await issuer.validate(issuer.sign(issuer.claims(scope=scope)))


async def test_trap_9_scopes_come_out_as_a_set(issuer):
    """So that "has this scope" has one meaning."""
    token = await issuer.validate(issuer.sign(issuer.claims(scope="models.read inference")))
    assert token.scopes == {"inference", "models.read"}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"exp": NOW - 100, "iat": NOW - 700}, "expired"),
        ({"aud": "https://elsewhere.example"}, "aud"),
        ({"iss": "https://elsewhere.example"}, "iss"),
    ],
)
async def test_trap_10_one_call_validates_everything(issuer, changes, match):
    """authlib's authenticate_token checks the signature only; whoever stops there believes expired and foreign tokens."""
    token = issuer.sign(issuer.claims(**changes))
    assert library_accepts(issuer, token)
    with pytest.raises(TokenRejected, match=match):
        await issuer.validate(token)


def test_trap_11_plain_http_is_refused_whatever_the_environment_says(tmp_path, monkeypatch):
    """AUTHLIB_INSECURE_TRANSPORT and loopback addresses relax authlib's check; the issuer's own is not relaxed."""
    monkeypatch.setenv("AUTHLIB_INSECURE_TRANSPORT", "1")
    keys = SigningKeys.load_or_create(tmp_path / "signing")
    registry = Registry(tmp_path / "d.sqlite")
    for url in ("http://127.0.0.1:8444", "http://authority.example", "ftp://x", "https://authority.example/"):
        with pytest.raises(SecurityMisconfigured, match="issuer"):
            build_authority(registry, keys, tmp_path / "x", issuer=url, resource=AUDIENCE)
    registry.close()


def test_trap_11_requests_behind_a_proxy_are_answered(tmp_path, monkeypatch):
    """The library sees the configured https address, never the one in a header, so a TLS proxy breaks nothing."""
    monkeypatch.delenv("AUTHLIB_INSECURE_TRANSPORT", raising=False)
    assert issue_token(tmp_path)["token_type"] == "Bearer"


def test_the_validator_cannot_be_built_without_issuer_and_audience(issuer):
    """An optional audience check is one that is forgotten."""
    for given in ({}, {"issuer": ISSUER}, {"issuer": ISSUER, "audience": ""}, {"audience": AUDIENCE}):
        with pytest.raises(ValueError):
            AccessTokenValidator(issuer.ring, **given)
    assert asyncio.iscoroutinefunction(issuer.validator.validate)
