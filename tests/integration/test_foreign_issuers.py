"""Issuers elsewhere, over the wire: a provider that serves its keys over TLS, a gateway's check by its configuration, and a
gateway's worker that a client speaks HTTP with.
"""

import asyncio
import http.client

import pytest

from appliance.authority.token_check import build_token_check
from appliance.config.loading import parse_configuration
from appliance.gateway.identity import Presented, TokenIssuerUnavailable, TokenRefused
from security.oauth import key_ring
from security.oauth.profiles import PROFILE_NAMES
from security.tls import provision_identity
from tests.support.identity_provider import AUDIENCE, HOST, IdentityProvider, Key


def check_of(folder, section):
    """The check of a gateway whose configuration holds this section."""
    model = '[[engines]]\nmodel_path = "/nowhere"\nserved_model_name = "tiny"\n'
    return build_token_check(parse_configuration(f'state_dir = "{folder}"\n{model}{section}'.encode(), folder, "t"))


def presented(token):
    return Presented(scheme="bearer", token=token, method="GET", path="/v1/models", address="192.0.2.1")


@pytest.fixture(params=PROFILE_NAMES)
def product(request):
    return request.param


@pytest.fixture
def provider(tmp_path, product):
    made = IdentityProvider(tmp_path / "provider", product)
    yield made
    made.close()


@pytest.fixture
def entra(tmp_path):
    made = IdentityProvider(tmp_path / "provider", "entra")
    yield made
    made.close()


async def test_each_products_tokens_are_understood_and_its_id_tokens_refused(provider, tmp_path):
    """With the keys that it publishes, whatever else is in them."""
    check = check_of(tmp_path, provider.section())
    principal = await check(presented(provider.access_token()))
    assert (principal.client_id, principal.subject) == ("corp:app", "corp:00u1ada")
    assert (principal.tenant, principal.role) == ("acme", "user")
    assert (principal.scopes, principal.is_registered) == ({"inference", "models.read"}, False)
    for token in (
        provider.id_token(),
        provider.access_token(aud="api://other"),
        provider.access_token(key=Key("key-1")),
        provider.access_token(header={"alg": "none"}),
        provider.access_token(header={"alg": "HS256"}),
    ):
        with pytest.raises(TokenRefused):
            await check(presented(token))
    # Of no issuer that is known: our own authority's keys decide, and there is no authority here.
    with pytest.raises((TokenRefused, TokenIssuerUnavailable)):
        await check(presented(provider.access_token(iss="https://evil.example")))
    assert provider.num_fetches == 1


async def test_a_rotation_at_the_provider_is_followed_and_garbage_costs_one_fetch(entra, tmp_path, monkeypatch):
    """An unknown key id causes a fetch, and a hundred of them no more than one."""
    check = check_of(tmp_path, entra.section())
    await check(presented(entra.access_token()))
    monkeypatch.setattr(key_ring, "MIN_REFRESH_INTERVAL_S", 0.0)
    entra.keys.append(Key("key-2"))
    assert (await check(presented(entra.access_token(key=entra.keys[1])))).client_id == "corp:app"
    assert entra.num_fetches == 2
    monkeypatch.setattr(key_ring, "MIN_REFRESH_INTERVAL_S", 3600.0)
    for number in range(100):
        with pytest.raises(TokenRefused):
            await check(presented(entra.access_token(key=entra.keys[1], header={"kid": f"unknown-{number}"})))
    assert entra.num_fetches == 2
    assert await check(presented(entra.access_token()))


async def test_a_provider_that_is_away_later_disturbs_nobody(entra, tmp_path, monkeypatch):
    """Keys at hand serve on; one that was never reached is unavailable, which is not unauthorized."""
    check = check_of(tmp_path, entra.section())
    token = entra.access_token()
    entra.answer = (500, {}, b"")
    with pytest.raises(TokenIssuerUnavailable):
        await check(presented(token))
    entra.answer = None
    monkeypatch.setattr(key_ring, "FIRST_REFRESH_INTERVAL_S", 0.0)
    assert await check(presented(token))
    entra.answer = (500, {}, b"")
    assert await check(presented(entra.access_token()))


@pytest.mark.parametrize(
    "answer",
    [
        (302, {"Location": "https://evil.example/keys"}, b""),
        (200, {}, b"{"),
        (200, {}, b'{"keys":[]}'),
        (200, {}, b" " * (70 << 10)),
        (404, {}, b""),
    ],
    ids=["redirect", "no JSON", "no keys", "too large", "not there"],
)
async def test_an_answer_that_is_no_key_set_is_not_believed(entra, tmp_path, answer):
    """No redirect is followed, nothing large is read."""
    entra.answer = answer
    with pytest.raises(TokenIssuerUnavailable):
        await check_of(tmp_path, entra.section())(presented(entra.access_token()))


async def test_the_providers_certificate_is_checked_for_its_name_by_its_authority(entra, tmp_path):
    """Whoever answers at the address must be the one that the URL names."""
    foreign = provision_identity(tmp_path / "foreign", [HOST])
    for section in (
        entra.section(ca_certificate=str(foreign.ca_certificate)),
        entra.section(jwks_url="https://other.corp.example/keys"),
    ):
        with pytest.raises(TokenIssuerUnavailable):
            await check_of(tmp_path, section)(presented(entra.access_token()))
    assert entra.num_fetches == 0


def _get(port, token):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        return answer.status, answer.getheader("www-authenticate") or "", answer.read()
    finally:
        connection.close()


async def test_a_client_with_the_companys_token_is_let_in_by_a_gateway(gateway, tmp_path):
    """By HTTP: models with its scope, 401 for an ID token, 403 without the scope."""
    provider = IdentityProvider(tmp_path / "provider", "keycloak")
    try:
        gateway.tokens.check = check_of(tmp_path, provider.section())
        status, _, body = await asyncio.to_thread(_get, gateway.port, provider.access_token())
        assert (status, b"tiny" in body) == (200, True), body
        status, challenge, _ = await asyncio.to_thread(_get, gateway.port, provider.id_token())
        assert status == 401
        assert 'error="invalid_token"' in challenge
        scope = {"scope": "openid Casemate.Ask"}
        status, challenge, _ = await asyncio.to_thread(_get, gateway.port, provider.access_token(**scope))
        assert status == 403
        assert 'scope="models.read"' in challenge
    finally:
        provider.close()
    assert AUDIENCE not in challenge
