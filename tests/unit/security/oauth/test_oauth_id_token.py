"""ID tokens of a provider by themselves: its keys change, and not all that it says of a person is fit to be shown."""

import json
import time

import pytest

from security.errors import TokenRejected
from security.oauth.id_token import IdTokenCheck
from security.oauth.key_ring import MIN_REFRESH_INTERVAL_S, KeyRing
from security.scopes import Role
from tests.support.identity_provider import Key

ISSUER, CLIENT, NONCE = "https://login.corp.example", "casemate", "n-1"


class Provider:
    """Its keys, and what holds them here, with a clock of its own."""

    def __init__(self):
        self.now = 0.0
        self.keys = [Key("key-1")]
        self.num_fetches = 0
        ring = KeyRing(self, clock=lambda: self.now)
        self.check = IdTokenCheck(ring, issuer=ISSUER, client_id=CLIENT, roles={}, default_role=Role.USER)

    async def fetch(self):
        self.num_fetches += 1
        return json.dumps({"keys": [key.jwk("keycloak") for key in self.keys]}).encode()

    async def vouch(self, **changes):
        now = int(time.time())
        claims = {"iss": ISSUER, "aud": CLIENT, "sub": "ada-1", "iat": now, "exp": now + 300, "nonce": NONCE, **changes}
        return await self.check.verify(self.keys[-1].sign({}, claims), NONCE)


@pytest.fixture(scope="module")
def another_key():
    return Key("key-2")


async def test_a_key_that_is_new_is_looked_for_at_once_but_not_each_time(another_key):
    """People sign in after a rotation as before it; unknown keys cause no flood at the provider."""
    provider = Provider()
    assert (await provider.vouch()).subject == "ada-1"
    provider.now += MIN_REFRESH_INTERVAL_S
    first = provider.keys
    provider.keys = [another_key]
    assert (await provider.vouch()).subject == "ada-1"
    provider.keys = first
    for _ in range(3):
        with pytest.raises(TokenRejected):
            await provider.vouch()
    assert provider.num_fetches == 2


@pytest.mark.parametrize(
    ("claims", "login", "name"),
    [
        ({}, "ada-1", "ada-1"),
        ({"preferred_username": "ada", "upn": "no", "name": "Ada"}, "ada", "Ada"),
        ({"preferred_username": "a\nda", "upn": " ada ", "name": "A\x1b[2Jda"}, "ada", "ada"),
        (
            {"preferred_username": "  ", "email": "ada@corp.example", "name": ["A"]},
            "ada@corp.example",
            "ada@corp.example",
        ),
    ],
)
async def test_a_person_is_called_by_the_first_name_that_can_be_shown(claims, login, name):
    """Not by one with control characters, which pages, records and terminals would be shown, or without any letter."""
    vouched = await Provider().vouch(**claims)
    assert (vouched.subject, vouched.login, vouched.name) == ("ada-1", login, name)
