"""Tokens bound to keys, and clients that authenticate by keys."""

import base64
import json

import pytest
from authlib.oauth2.rfc7523 import private_key_jwt_sign
from joserfc.jwk import ECKey, OKPKey, RSAKey

from security.clients import ClientDefinition
from security.oauth.dpop import normalize_url
from security.oauth.token_request import ASSERTION_TYPE
from security.scopes import Role
from tests.support.authority import basic, build_authority
from tests.support.controls import control
from tests.support.oauth_house import ISSUER, NOW, REDIRECT, RESOURCE, House, proof_by, sign, validate


@control("3.13.15", "AU-10", "IA-3", "IA-8(4)", "SC-23")
async def test_a_proof_binds_the_token_to_its_key(house, issuer, key, clock):
    """RFC 9449 section 5: type DPoP, `cnf.jkt`; a public client's refresh token is bound as well."""
    body = house.session(proofs=[proof_by(key, clock)])
    assert body["token_type"] == "DPoP"
    assert (await validate(issuer, body["access_token"])).key_thumbprint == key.thumbprint()
    fields = {"grant_type": "refresh_token", "refresh_token": body["refresh_token"]}
    house.refused("invalid_grant", fields)
    other = ECKey.generate_key("P-256")
    house.refused("invalid_grant", fields, proofs=[proof_by(other, clock)])
    assert house.token(fields, proofs=[proof_by(key, clock, again=1)])[0] == 200


@pytest.mark.parametrize(
    "change",
    [
        {"url": f"{ISSUER}/other"}, {"url": "https://authority.example/token"}, {"url": 7}, {"method": "GET"},
        {"iat": NOW - 121}, {"iat": NOW + 31}, {"iat": "now"}, {"iat": True}, {"iat": ...}, {"jti": ...}, {"jti": ""},
        {"jti": 7}, {"jti": "j" * 300}, {"jti": "\ud800"}, {"htm": ...}, {"htu": ...},
        {"header": {"typ": "JWT"}}, {"header": {"typ": ...}},
        {"header": {"jwk": ...}}, {"header": {"jwk": "x"}}, {"header": {"jwk": {"kty": "oct", "k": "AAAA"}}},
        {"header": {"crit": ["x"]}}, {"header": {"alg": "ES384"}},
        {"header": {"alg": "none"}}, {"header": {"alg": "HS256"}}, {"header": {"alg": 7}}, {"header": {"alg": ...}},
    ],
)  # fmt: skip
def test_bad_proofs_are_refused(house, key, clock, change):
    """RFC 9449 section 4.3, each of its checks: invalid_dpop_proof."""
    made = proof_by(key, clock, **change)
    house.refused("invalid_dpop_proof", {"grant_type": "client_credentials"}, auth=house.by_service(), proofs=[made])


@pytest.mark.parametrize(
    ("url", "taken"),
    [
        ("HTTPS://Authority.EXAMPLE:8444/token", True), (f"{ISSUER}/token?a=1", True), (f"{ISSUER}/token#part", True),
        (f"{ISSUER}/%74o%6Ben", True), (f"{ISSUER}/./a/../token", True), (f"{ISSUER}/%2e%2e/token", True),
        (f"{ISSUER}/TOKEN", False), (f"{ISSUER}/token/", False), (f"{ISSUER}//token", False), (f"{ISSUER}/token/..", False),
        (f"{ISSUER}%2Ftoken", False), (f"{ISSUER}/%zztoken", False), ("http://authority.example:8444/token", False),
        ("https://authority.example/token", False), ("https://someone@authority.example:8444/token", False),
        ("/token", False), ("https://authority.example:x/token", False), ("https://[authority/token", False),
    ],
)  # fmt: skip
def test_an_address_is_compared_after_it_is_normalized(house, key, clock, url, taken):
    """RFC 9449 section 4.3: by RFC 3986, sections 6.2.2 and 6.2.3, without query and fragment; and no further than that."""
    made = proof_by(key, clock, url=url)
    status, body, _ = house.token({"grant_type": "client_credentials"}, auth=house.by_service(), proofs=[made])
    assert (status == 200) is taken
    assert taken or body["error"] == "invalid_dpop_proof"


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("https://a.example:443", "https://a.example/"), ("https://a.example:", "https://a.example/"),
        ("https://a.example/b/..", "https://a.example/"),
        ("https://a.example/b/c/.", "https://a.example/b/c/"), ("https://a.example/../../b", "https://a.example/b"),
        ("https://a.example/b%2fc%c3%bc", "https://a.example/b%2Fc%C3%BC"), ("https://[::1]:443/.b", "https://[::1]/.b"),
    ],
)  # fmt: skip
def test_the_normal_form_of_an_address_is_its_own(url, normal):
    """Once is enough; octets that have a meaning where they stand keep their percent sign."""
    assert normalize_url(url) == normal
    assert normalize_url(normal) == normal


def test_a_proof_is_signed_by_the_key_that_it_shows(house, key, clock):
    """RFC 9449 section 4.3, check 7: who has seen somebody's public key has not its private one."""
    stranger = ECKey.generate_key("P-256")
    forged = proof_by(stranger, clock, header={"jwk": key.as_dict(private=False)})
    head, claims, signature = proof_by(key, clock, good=1).split(".")
    changed = base64.urlsafe_b64encode(b'{"jti":"x"}').rstrip(b"=").decode()
    for proof in (forged, f"{head}.{changed}.{signature}", f"{head}.{claims}.{'A' * 86}"):
        house.refused(
            "invalid_dpop_proof", {"grant_type": "client_credentials"}, auth=house.by_service(), proofs=[proof]
        )
    good = [f"{head}.{claims}.{signature}"]
    assert house.token({"grant_type": "client_credentials"}, auth=house.by_service(), proofs=good)[0] == 200


@control("3.5.4", "3.13.15", "IA-2(8)", "SC-23")
def test_a_proof_with_a_private_key_or_used_twice_or_doubled_is_refused(house, key, clock):
    """Section 4.3 (7), section 11.1, section 4.3 (1)."""
    fields, auth = {"grant_type": "client_credentials"}, house.by_service()
    private = proof_by(key, clock, header={"jwk": key.as_dict(private=True)})
    house.refused("invalid_dpop_proof", fields, auth=auth, proofs=[private])
    made = proof_by(key, clock)
    assert house.token(fields, auth=auth, proofs=[made])[0] == 200
    house.refused("invalid_dpop_proof", fields, auth=auth, proofs=[made])
    house.refused(
        "invalid_dpop_proof", fields, auth=auth, proofs=[proof_by(key, clock, a=1), proof_by(key, clock, a=2)]
    )
    house.refused("invalid_dpop_proof", fields, auth=auth, proofs=["nonsense"])


@pytest.mark.parametrize(
    ("make", "algorithm"),
    [
        (lambda: ECKey.generate_key("P-384"), "ES384"),
        (lambda: OKPKey.generate_key("Ed25519"), "Ed25519"),
        (lambda: RSAKey.generate_key(2048), "PS256"),
        (lambda: RSAKey.generate_key(2048), "RS256"),
    ],
)
def test_proofs_by_every_kind_of_key(house, clock, make, algorithm):
    """Those that the metadata names."""
    key = make()
    made = proof_by(key, clock, algorithm=algorithm)
    status, body, _ = house.token({"grant_type": "client_credentials"}, auth=house.by_service(), proofs=[made])
    assert (status, body["token_type"]) == (200, "DPoP")


@control("3.1.15", "3.13.15", "AC-6(3)", "AC-17(4)", "SC-23")
def test_in_production_privileged_roles_get_bound_tokens_only(tmp_path, clock, issuer, key):
    """Whoever copies an administrator's token has nothing."""
    house = House(tmp_path, clock, issuer.keys, binds_privileged=True)
    operator = house.registry.create(ClientDefinition(name="ops", role=Role.OPERATOR), actor="t")
    auth = basic(operator.client.client_id, operator.secret)
    assert (
        "DPoP" in house.refused("invalid_request", {"grant_type": "client_credentials"}, auth=auth)["error_description"]
    )
    assert house.token({"grant_type": "client_credentials"}, auth=auth, proofs=[proof_by(key, clock)])[0] == 200
    assert house.token({"grant_type": "client_credentials"}, auth=house.by_service())[0] == 200
    house.registry.roles.grant("ada", Role.ADMIN, actor="t")
    code = house.code(scope="models.read identity.manage")
    house.refused("invalid_request", house.exchange(code))
    native = ClientDefinition(name="native", kind="application", redirect_uris=(REDIRECT,))
    native = house.registry.create(native, actor="t")
    auth = basic(native.client.client_id, native.secret)
    code = house.code(scope="models.read", client_id=native.client.client_id)
    first = house.token(house.exchange(code), auth=auth, proofs=[proof_by(key, clock, number=3)])[1]
    again = {"grant_type": "refresh_token", "refresh_token": first["refresh_token"]}
    house.refused("invalid_request", again, auth=auth)  # Forgotten, and not spent by that.
    assert house.token(again, auth=auth, proofs=[proof_by(key, clock, number=4)])[0] == 200
    house.close()


def test_a_code_bound_to_a_key_needs_its_proof(house, key, clock):
    """RFC 9449 section 10: `dpop_jkt`."""
    house.refused("invalid_grant", house.exchange(house.code(key_thumbprint=key.thumbprint())))
    code = house.code(key_thumbprint=key.thumbprint())
    assert house.token(house.exchange(code), proofs=[proof_by(key, clock)])[0] == 200


def assertion_of(house, key, client_id, clock, *, header=None, **changes):
    claims = {
        "iss": client_id, "sub": client_id, "aud": ISSUER, "exp": int(clock.now) + 60, "jti": repr(changes), **changes,
    }  # fmt: skip
    return {
        "grant_type": "client_credentials",
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": sign(claims, key, {"alg": "ES256", **(header or {})}, "ES256"),
    }


@pytest.fixture
def keyed(house, key):
    jwks = json.dumps({"keys": [{**key.as_dict(private=False), "kid": "k1"}]})
    definition = ClientDefinition(name="keyed", auth_method="private_key_jwt", jwks=jwks)
    return house.registry.create(definition, actor="t").client.client_id


def test_a_client_authenticates_by_its_key(house, key, keyed, clock):
    """RFC 7523 section 3: for the issuer or the endpoint, once."""
    for number, audience in enumerate((ISSUER, f"{ISSUER}/token", ["https://x", ISSUER])):
        fields = assertion_of(house, key, keyed, clock, aud=audience, jti=f"j{number}")
        assert house.token(fields)[0] == 200
        status, body, _ = house.token(fields)
        assert (status, body["error"]) == (401, "invalid_client")
    fields = assertion_of(house, key, keyed, clock, header={"kid": "k1", "typ": "JWT"})
    assert house.token({**fields, "client_id": keyed})[0] == 200


def test_what_was_used_once_is_not_good_after_a_restart(house, key, keyed, clock, issuer, tmp_path):
    """Whoever waits for a crash, or causes one, with a copy of a proof or an assertion."""
    fields, proof = assertion_of(house, key, keyed, clock), proof_by(key, clock)
    assert house.token(fields, proofs=[proof])[0] == 200
    house.refresh.close()
    house.authority, house.facts, house.refresh = build_authority(
        house.registry, issuer.keys, tmp_path, issuer=ISSUER, resource=RESOURCE, clock=clock
    )
    assert house.token(fields)[1]["error"] == "invalid_client"
    later = assertion_of(house, key, keyed, clock, jti="later")
    assert house.token(later, proofs=[proof])[1]["error"] == "invalid_dpop_proof"
    clock.now += 400
    house.refresh.forget_expired()
    assert house.refresh.find_used() == []


@pytest.mark.parametrize("published", ["Ed25519", "EdDSA"])
@pytest.mark.parametrize("used", ["Ed25519", "EdDSA"])
def test_ed25519_goes_by_either_name(house, clock, published, used):
    """RFC 9864: libraries of today sign as Ed25519 by keys that others published as EdDSA, and the other way round."""
    key = OKPKey.generate_key("Ed25519")
    jwks = json.dumps({"keys": [{**key.as_dict(private=False), "alg": published}]})
    definition = ClientDefinition(name="edwards", auth_method="private_key_jwt", jwks=jwks)
    client_id = house.registry.create(definition, actor="t").client.client_id
    claims = {"iss": client_id, "sub": client_id, "aud": ISSUER, "exp": int(clock.now) + 60, "jti": "once"}
    fields = {"grant_type": "client_credentials", "client_assertion_type": ASSERTION_TYPE}
    assert house.token({**fields, "client_assertion": sign(claims, key, {"alg": used})})[0] == 200
    as_another = sign(claims, ECKey.generate_key("P-256"), {"alg": "ES256"})
    assert house.token({**fields, "client_assertion": as_another})[0] == 401


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "other"}, {"sub": "other"}, {"sub": ...}, {"aud": "https://other"}, {"aud": ...}, {"aud": []}, {"aud": 7},
        {"exp": NOW - 60}, {"exp": NOW + 320}, {"exp": ...}, {"exp": "soon"}, {"exp": True}, {"nbf": NOW + 60},
        {"iat": NOW + 60}, {"iat": None}, {"iat": "now"}, {"iat": NOW - 320}, {"iat": NOW, "exp": NOW + 3620},
        {"jti": ...}, {"jti": ""}, {"jti": 7},
        {"header": {"kid": "other"}}, {"header": {"typ": "at+jwt"}}, {"header": {"typ": "dpop+jwt"}}, {"header": {"crit": ["x"]}},
        {"header": {"jku": "https://x"}},
    ],
)  # fmt: skip
def test_bad_assertions_are_refused(house, key, keyed, clock, changes):
    """All in the same words, so that nobody learns which check failed."""
    status, body, _ = house.token(assertion_of(house, key, keyed, clock, **changes))
    assert (status, body) == (401, {"error": "invalid_client", "error_description": "Client authentication failed"})


@pytest.mark.parametrize("entry", [{"use": "enc"}, {"alg": "ES384"}, {"alg": "RS256"}, {"kid": "other"}])
def test_a_key_is_good_for_what_it_was_registered_for(house, key, clock, entry):
    """RFC 7517 sections 4.2 to 4.5: another use, algorithm or id than the assertion's is another key."""
    for members, status in (({}, 200), (entry, 401)):
        jwks = json.dumps({"keys": [{**key.as_dict(private=False), "kid": "k1", **members}]})
        definition = ClientDefinition(name="keyed", auth_method="private_key_jwt", jwks=jwks)
        client_id = house.registry.create(definition, actor="t").client.client_id
        assert house.token(assertion_of(house, key, client_id, clock, header={"kid": "k1"}))[0] == status


def test_a_key_of_one_algorithm_signs_by_no_other(house, clock):
    """RFC 8725 section 3.1: RSA keys could sign in two ways."""
    key = RSAKey.generate_key(2048)
    jwks = json.dumps({"keys": [{**key.as_dict(private=False), "alg": "PS256"}]})
    definition = ClientDefinition(name="rsa", auth_method="private_key_jwt", jwks=jwks)
    client_id = house.registry.create(definition, actor="t").client.client_id
    fields = {"grant_type": "client_credentials", "client_assertion_type": ASSERTION_TYPE}
    for algorithm, status in (("RS256", 401), ("PS256", 200)):
        claims = {"iss": client_id, "sub": client_id, "aud": ISSUER, "exp": int(clock.now) + 60, "jti": algorithm}
        assert house.token({**fields, "client_assertion": sign(claims, key, {"alg": algorithm})})[0] == status


@pytest.mark.parametrize("ago_s", [0, 305])
def test_an_assertion_that_claims_an_hour_is_good_for_minutes(house, key, keyed, clock, ago_s):
    """As authlib's own client makes them, RFC 7523 section 3: once, and only soon after they were made."""
    pem = key.as_pem(private=True).decode()
    assertion = private_key_jwt_sign(ECKey.import_key(pem), keyed, f"{ISSUER}/token", alg="ES256", issued_at=NOW)
    fields = {
        "grant_type": "client_credentials",
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": assertion,
    }
    clock.now += ago_s
    assert [house.token(fields)[0] for _ in range(2)] == [200, 401]


def test_an_assertion_is_not_good_when_its_first_use_is_forgotten(house, key, keyed, clock):
    """For as long as it could be good it is remembered, however far its own clock is ahead of ours."""
    fields = assertion_of(house, key, keyed, clock, iat=int(clock.now) + 10, exp=int(clock.now) + 3600)
    assert house.token(fields)[0] == 200
    for _ in range(400):
        clock.now += 1
        assert house.token(fields)[0] == 401


def test_another_key_or_method_does_not_authenticate(house, key, keyed, clock):
    """A client is registered for one method; `none` is no algorithm."""
    stranger = ECKey.generate_key("P-256")
    assert house.token(assertion_of(house, stranger, keyed, clock))[0] == 401
    embedded = assertion_of(house, stranger, keyed, clock, header={"jwk": stranger.as_dict(private=False)})
    assert house.token(embedded)[0] == 401
    good = assertion_of(house, key, keyed, clock, jti="x")["client_assertion"].split(".")
    for head in ({"alg": "none"}, {"alg": "HS256"}):
        text = base64.urlsafe_b64encode(json.dumps(head).encode()).rstrip(b"=").decode()
        fields = {"grant_type": "client_credentials", "client_assertion_type": ASSERTION_TYPE}
        for signature in ("", "AAAA", good[2]):
            assert house.token({**fields, "client_assertion": f"{text}.{good[1]}.{signature}"})[0] == 401
    assert house.token({"grant_type": "client_credentials", "client_id": keyed, "client_secret": "x"})[0] == 401
    assert house.token({"grant_type": "client_credentials", "client_id": keyed})[0] == 401
    service = house.service.client.client_id
    assert house.token(assertion_of(house, key, service, clock))[0] == 401


def test_two_methods_at_once_are_an_invalid_request(house, key, keyed, clock):
    """RFC 6749 section 2.3."""
    fields = assertion_of(house, key, keyed, clock)
    house.refused("invalid_request", {**fields, "client_secret": "x"})
    house.refused("invalid_request", fields, auth=house.by_service())
    house.refused("invalid_request", {**fields, "client_assertion_type": "urn:other"})
    house.refused("invalid_request", {**fields, "client_id": "other"})
