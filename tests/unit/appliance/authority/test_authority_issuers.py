"""Tokens of issuers elsewhere at the gateway's check: chosen by what they say, believed for what is proven."""

import json
import time
from typing import get_args

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc.jwk import ECKey

from appliance.authority.foreign_issuers import ForeignIssuer, address_of
from appliance.authority.token_check import AuthorityTokenCheck
from appliance.gateway.identity import Presented, TokenIssuerUnavailable, TokenRefused
from security.errors import KeysUnavailable
from security.issuer_settings import IssuerSettings, ScopeName
from security.keys import generate_p256
from security.oauth.algorithms import import_private_key
from security.oauth.file_source import SignedFileJwksSource
from security.oauth.key_ring import KeyRing
from security.oauth.resource import AccessTokenValidator
from security.scopes import GRANTED_SCOPES
from tests.support.controls import control
from tests.support.oauth_house import sign

ISSUER = "https://idp.example/v2.0"


class Corporation:
    """An identity provider that cannot be reached, and the file that somebody carried here."""

    def __init__(self, folder):
        self.key = ECKey.generate_key("P-256", {"kid": "corp-1"})
        self.signer = generate_p256()
        self.file, self.signer_file = folder / "corp.jwks", folder / "signer.pem"
        pem = self.signer.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self.signer_file.write_bytes(pem)
        self.publish()

    def publish(self, signer=None, header=None, **members):
        document = {"keys": [{**self.key.as_dict(private=False), "kid": "corp-1", "use": "sig"}], **members}
        made = sign(document, import_private_key(signer or self.signer), {"alg": "ES256", **(header or {})}, "ES256")
        self.file.write_text(made + "\n")

    def settings(self, **changes):
        values = {
            "name": "corp", "issuer": ISSUER, "audience": "api://casemate", "profile": "entra", "tenant": "acme",
            "roles": {"LLM.User": "user"}, "scopes": {"Ask": "inference"},
            "jwks_file": str(self.file), "jwks_signer_file": str(self.signer_file), **changes,
        }  # fmt: skip
        return IssuerSettings(**values)

    def token(self, **changes):
        now = int(time.time())
        claims = {
            "iss": ISSUER, "aud": "api://casemate", "sub": "ada", "azp": "app", "uti": "j", "scp": "Ask",
            "roles": ["LLM.User"], "iat": now, "exp": now + 600, **changes,
        }  # fmt: skip
        return sign(claims, self.key, {"alg": "ES256", "typ": "JWT", "kid": "corp-1"})


@pytest.fixture
def corporation(tmp_path):
    return Corporation(tmp_path)


@pytest.fixture
def check(house, corporation):
    class Published:
        async def fetch(self):
            return json.dumps(house.authority.key_set()).encode()

    ring = KeyRing(Published())
    made = AuthorityTokenCheck(
        ring, AccessTokenValidator(ring, issuer=house.authority.issuer, audience=house.authority.resource)
    )
    made.trust(ISSUER, ForeignIssuer(corporation.settings(), "1.3"))
    return made


def presented(token):
    return Presented(scheme="bearer", token=token, method="GET", path="/v1/models", address="192.0.2.1")


@control("IA-8")
async def test_both_issuers_tokens_open_the_same_door(check, house, corporation):
    """Ours as before; theirs under a name that is nobody's here, with what is mapped and no more."""
    own = await check(presented((await house.ask()).json()["access_token"]))
    assert own.is_registered
    theirs = await check(presented(corporation.token()))
    assert (theirs.client_id, theirs.subject, theirs.tenant, theirs.role) == ("corp:app", "corp:ada", "acme", "user")
    assert (theirs.scopes, theirs.is_registered, theirs.issuer) == ({"inference"}, False, ISSUER)


async def test_one_provider_serves_several_tenants(house, corporation):
    """Entra names the directory that somebody is of; whoever is of another than those that are mapped does not come in."""
    ring = KeyRing(None)
    made = AuthorityTokenCheck(
        ring, AccessTokenValidator(ring, issuer=house.authority.issuer, audience=house.authority.resource)
    )
    settings = corporation.settings(tenant=None, tenant_claim="tid", tenants={"d-1": "acme", "d-2": "forge"})
    made.trust(ISSUER, ForeignIssuer(settings, "1.3"))
    for directory, tenant in (("d-1", "acme"), ("d-2", "forge")):
        assert (await made(presented(corporation.token(tid=directory)))).tenant == tenant
    with pytest.raises(TokenRefused, match="tenant"):
        await made(presented(corporation.token(tid="d-3")))
    for changes in ({"tenant": None}, {"tenant_claim": "tid"}):
        with pytest.raises(ValueError, match="tenants"):
            corporation.settings(**changes)


@control("3.1.20", "3.5.1", "AC-20", "AC-20(1)", "IA-4(4)", "IA-8", "IA-8(2)")
async def test_neither_can_pass_for_the_other(check, house, corporation):
    """A token is checked with the keys of the issuer that it names, and with no others."""
    for changes in (
        {"iss": house.authority.issuer},
        {"iss": "https://evil.example"},
        {"aud": "api://other"},
        {"azp": ...},
    ):
        with pytest.raises(TokenRefused):
            await check(presented(corporation.token(**changes)))
    forged = (await house.ask()).json()["access_token"].split(".")
    theirs = corporation.token().split(".")
    for mixed in (
        ".".join((forged[0], theirs[1], forged[2])),
        ".".join((theirs[0], forged[1], theirs[2])),
        "x.y.z",
        "",
    ):
        with pytest.raises(TokenRefused):
            await check(presented(mixed))


def test_an_older_file_than_the_last_is_not_believed(corporation):
    """Rightly signed as it is: a key may have been withdrawn since. The same file, and a newer one, are."""
    source = SignedFileJwksSource(corporation.file, corporation.signer_file)
    for issued_at in (100, 100, 200):
        corporation.publish(iat=issued_at)
        assert source.read()
    for older in ({"iat": 199}, {}, {"iat": "300"}, {"iat": True}):
        corporation.publish(**older)
        with pytest.raises(KeysUnavailable, match="older"):
            source.read()
    corporation.publish(iat=200)
    assert source.read()


async def test_keys_that_the_supervisor_brings_are_in_force_at_once(check, corporation):
    """A sandbox may not show the file that took the old one's place. What is not to be believed changes nothing."""
    old = corporation.token()
    assert (await check(presented(old))).client_id == "corp:app"
    corporation.key = ECKey.generate_key("P-256", {"kid": "corp-1"})
    corporation.publish(iat=200)
    brought = corporation.file.read_bytes()
    corporation.file.write_text("what the sandbox shows")
    await check.renew_keys(ISSUER, brought)
    with pytest.raises(TokenRefused):
        await check(presented(old))
    new = corporation.token()
    assert (await check(presented(new))).client_id == "corp:app"
    corporation.publish(signer=generate_p256(), iat=300)
    for refused in (corporation.file.read_bytes(), b"\xff", b""):
        await check.renew_keys(ISSUER, refused)
        assert (await check(presented(new))).client_id == "corp:app"


async def test_keys_that_are_not_rightly_signed_are_not_used(corporation, house, check):
    """By another key, expired, with a header that brings a key, or no file at all: later, not 401."""
    source = SignedFileJwksSource(corporation.file, corporation.signer_file)
    assert b"corp-1" in source.read()
    corporation.publish(exp=int(time.time()) + 60)
    assert source.read()
    stranger = generate_p256()
    for publish in (
        lambda: corporation.publish(signer=stranger),
        lambda: corporation.publish(exp=int(time.time()) - 1),
        lambda: corporation.publish(exp="never"),
        lambda: corporation.publish(header={"jku": "https://x"}),
        lambda: corporation.publish(header={"alg": "none"}),
        lambda: corporation.file.write_text("no jws"),
        lambda: corporation.file.write_bytes(b"\xff"),
        lambda: corporation.file.unlink(),
    ):
        publish()
        with pytest.raises(KeysUnavailable, match=r"corp\.jwks"):
            source.read()
    with pytest.raises(TokenIssuerUnavailable):
        await check(presented(corporation.token()))


@pytest.mark.parametrize(
    "changes",
    [
        {"jwks_file": None},
        {"jwks_signer_file": None},
        {"jwks_url": "https://idp.example/keys"},
        {"jwks_file": None, "jwks_signer_file": None},
        {"jwks_file": None, "jwks_signer_file": None, "jwks_url": "https://idp.example/keys"},
    ],
)
def test_keys_come_from_one_place_that_is_named_in_full(corporation, changes):
    """Half a source, two sources, or none."""
    with pytest.raises(ValueError, match="jwks_file"):
        corporation.settings(**changes)


def test_addresses_are_numbers_as_nothing_is_looked_up():
    """IPv4 and IPv6, with a port."""
    fields = {
        "name": "a",
        "issuer": "i",
        "audience": "a",
        "tenant": "t",
        "jwks_url": "https://x",
        "ca_certificate": "/c",
    }
    for text, found in (("10.0.0.5:443", ("10.0.0.5", 443)), ("[::1]:8443", ("::1", 8443))):
        assert address_of(msgspec.convert({**fields, "jwks_address": text}, IssuerSettings)) == found
    for text in ("idp.example:443", "10.0.0.5", "::1:443"):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({**fields, "jwks_address": text}, IssuerSettings)


def test_every_scope_can_be_mapped():
    """A list of its own, as configuration is parsed: a new scope must be on it."""
    assert set(get_args(ScopeName)) == {str(scope) for scope in GRANTED_SCOPES}
