"""A provider by which people sign in may have several tenants: an ID token tells them apart as an access token does."""

import json
import time
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from security.errors import TokenRejected
from security.oauth.id_token import IdTokenCheck
from security.oauth.key_ring import KeyRing
from security.scopes import Role

ISSUER, CLIENT, NONCE = "https://login.corp.example", "casemate", "n-1"
TENANTS = {"Finance": "finance", "Sales": "sales", "FIN 2": "finance"}


class Provider:
    """Its only key."""

    def __init__(self) -> None:
        self.key = ECKey.generate_key("P-256", {"kid": "key-1"})

    async def fetch(self) -> bytes:
        return json.dumps({"keys": [self.key.as_dict(private=False)]}).encode()


PROVIDER = Provider()


async def tenant_of(claims: dict[str, Any], **worth: Any) -> str:
    """The tenant here of a person of whom the provider says this."""
    now = int(time.time())
    said = {"iss": ISSUER, "aud": CLIENT, "sub": "ada-1", "iat": now, "exp": now + 300, "nonce": NONCE, **claims}
    check = IdTokenCheck(KeyRing(PROVIDER), issuer=ISSUER, client_id=CLIENT, roles={}, default_role=Role.USER, **worth)
    token = jwt.encode({"alg": "ES256", "kid": "key-1"}, said, PROVIDER.key)
    return (await check.verify(token, NONCE)).tenant


@pytest.mark.parametrize(
    ("claims", "tenant"),
    [
        ({"org": {"department": "Finance"}}, "finance"),
        ({"org": {"department": ["x", "Sales"]}}, "sales"),
        ({"org": {"department": ["Finance", "FIN 2"]}}, "finance"),
        ({"org": {"department": "finance"}, "tenant": "finance", "groups": ["Finance"]}, "acme"),
        ({"org": 7}, "acme"),
        ({}, "acme"),
    ],
)
async def test_a_persons_tenant_is_the_one_that_is_mapped(claims: dict[str, Any], tenant: str) -> None:
    """By the claim that the operator names and no other; who has none that is mapped is of the tenant for the rest."""
    assert await tenant_of(claims, tenant="acme", tenants=TENANTS, tenant_claim="org.department") == tenant


async def test_a_person_without_a_tenant_or_with_two_is_nobody_here() -> None:
    """Where nothing is said of the rest they are refused; without a claim that tells it, groups and roles do."""
    assert await tenant_of({"groups": ["staff", "Sales"]}, tenant=None, tenants=TENANTS) == "sales"
    nobody: list[list[str]] = [[], ["finance"], ["default"]]
    for groups in nobody:
        with pytest.raises(TokenRejected, match="tenant: none"):
            await tenant_of({"groups": groups}, tenant=None, tenants=TENANTS)
    with pytest.raises(TokenRejected, match="tenant: more than one"):
        await tenant_of({"groups": ["Sales"], "roles": ["Finance"]}, tenant=None, tenants=TENANTS)


async def test_a_provider_of_one_tenant_says_nothing_about_it() -> None:
    """Without a mapping its groups are no tenants, whatever they are called."""
    assert await tenant_of({"groups": ["Finance", "default"], "tenant": "sales"}, tenant="acme") == "acme"
