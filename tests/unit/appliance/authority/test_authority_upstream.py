"""People of one provider and their tenants: what the configuration says reaches whoever signs in, and what is kept of them."""

import json
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from appliance.authority.sign_in import SignInRefused
from appliance.authority.upstream import UpstreamDesk
from security.issuer_settings import UpstreamSettings
from security.oauth.https_client import HttpsClient
from security.oauth.refresh_store import RefreshStore
from security.tls import provision_identity
from security.users import User

ISSUER, CLIENT = "https://login.corp.example", "casemate"
SignIn = Callable[..., Awaitable[User]]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RefreshStore]:
    made = RefreshStore.open(tmp_path / "authority" / "sessions.sqlite")
    yield made
    made.close()


@pytest.fixture
def sign_in(tmp_path: Path, store: RefreshStore, monkeypatch: pytest.MonkeyPatch) -> SignIn:
    """Somebody comes back from a provider that says this of them, to a desk of these settings."""
    ca_certificate = provision_identity(tmp_path / "provider", ["login.corp.example"]).ca_certificate
    key = ECKey.generate_key("P-256", {"kid": "key-1"})

    async def sign_in(settings: dict[str, Any], claims: dict[str, Any]) -> User:
        made = UpstreamSettings(
            name="corp", issuer=ISSUER, client_id=CLIENT, authorization_endpoint=f"{ISSUER}/auth",
            token_endpoint=f"{ISSUER}/token", jwks_url=f"{ISSUER}/keys", address="127.0.0.1:443",
            ca_certificate=str(ca_certificate), default_role="user", **settings,
        )  # fmt: skip
        desk = UpstreamDesk(made, store, "https://authority.example/callback")
        cookie, location = desk.begin("/device", "192.0.2.1")
        asked = parse_qs(urlsplit(location).query)
        now = int(time.time())
        said = {"iss": ISSUER, "aud": CLIENT, "sub": "ada", "iat": now, "exp": now + 300, "nonce": asked["nonce"][0]}
        token = jwt.encode({"alg": "ES256", "kid": "key-1"}, said | claims, key)

        async def ask(client: HttpsClient, *_: object, **__: object) -> tuple[int, bytes]:
            is_exchange = client.url.endswith("/token")
            answer = {"id_token": token} if is_exchange else {"keys": [key.as_dict(private=False)]}
            return 200, json.dumps(answer).encode()

        monkeypatch.setattr(HttpsClient, "ask", ask)
        user, _ = await desk.finish(cookie, urlencode({"code": "c", "state": asked["state"][0]}))
        return user

    return sign_in


@pytest.mark.parametrize(
    ("settings", "claims", "tenant"),
    [
        ({}, {"groups": ["Finance"]}, "default"),
        ({"tenant": "acme"}, {"groups": ["Finance"]}, "acme"),
        ({"tenants": {"Finance": "finance"}}, {"groups": ["Finance"]}, "finance"),
        ({"tenants": {"t-1": "finance"}, "tenant_claim": "tid"}, {"tid": "t-1", "groups": ["x"]}, "finance"),
        ({"tenants": {"t-1": "finance"}, "tenant_claim": "tid", "tenant": "acme"}, {"tid": "t-2"}, "acme"),
    ],
)
async def test_who_signs_in_is_of_the_tenant_that_the_configuration_says(
    sign_in: SignIn, store: RefreshStore, settings: dict[str, Any], claims: dict[str, Any], tenant: str
) -> None:
    """And stays of it while the session goes on without the provider."""
    assert (await sign_in(settings, claims)).tenant == tenant
    kept = store.find_person("corp:ada")
    assert kept is not None
    assert kept.tenant == tenant


@pytest.mark.parametrize("claims", [{}, {"tid": "t-2"}, {"tid": ["t-1", "t-3"]}, {"groups": ["t-1"]}])
async def test_who_is_of_no_tenant_or_of_two_does_not_come_in(
    sign_in: SignIn, store: RefreshStore, claims: dict[str, Any]
) -> None:
    """And nothing is kept of them."""
    settings = {"tenants": {"t-1": "finance", "t-3": "sales"}, "tenant_claim": "tid"}
    with pytest.raises(SignInRefused, match="tenant"):
        await sign_in(settings, claims)
    assert store.find_person("corp:ada") is None
