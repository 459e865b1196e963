"""The validator: what it accepts, everything that it refuses, and that nothing but its family of errors escapes."""

import asyncio
import base64
import hashlib
import hmac
import json
import string

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joserfc.jwk import ECKey

from security.errors import KeysUnavailable, TokenRejected
from security.oauth.algorithms import MODELS, import_private_key
from security.oauth.resource import MAX_TOKEN_CHARS, AccessTokenValidator
from tests.support.controls import control

NOW = 1_800_000_000
ISSUER = "https://authority.example:8444"
AUDIENCE = "https://gateway.example:8443"


def encode(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def forge(header, claims, signature):
    """A token with a signature made by `signature(signing input)`."""
    signed = f"{encode(json.dumps(header).encode())}.{encode(json.dumps(claims).encode())}"
    return f"{signed}.{encode(signature(signed.encode()))}"


def public_pem(issuer):
    return issuer.keys.current.key.as_bytes(encoding="PEM", private=False)


async def refused(issuer, token, match=None):
    with pytest.raises(TokenRejected, match=match):
        await issuer.validate(token)


async def test_a_good_token_gives_who_and_what(issuer):
    """Every field comes from the token."""
    token = await issuer.validate(issuer.sign())
    assert (token.client_id, token.subject, token.tenant, token.role) == ("demo-1", "demo-1", "default", "user")
    assert (token.issuer, token.kid, token.jti) == (ISSUER, issuer.keys.current.kid, "j" * 22)
    assert token.expires_at == NOW + 600


@control("3.5.2", "IA-2")
async def test_alg_none_is_refused(issuer):
    """With and without a signature, in any spelling."""
    for name in ("none", "None", "NONE", "nOnE"):
        await refused(issuer, forge(issuer.header(alg=name), issuer.claims(), lambda _: b"x"), "alg")
        await refused(issuer, forge(issuer.header(alg=name), issuer.claims(), lambda _: b""))


async def test_the_public_key_as_hmac_secret_is_refused(issuer):
    """CVE-2024-37568: the attacker knows the public key and signs with it as a shared secret."""
    await issuer.ring.load()
    for secret in (public_pem(issuer), public_pem(issuer).strip(), json.dumps(issuer.keys.public_key_set()).encode()):

        def sign(data, secret=secret):
            return hmac.new(secret, data, hashlib.sha256).digest()

        await refused(issuer, forge(issuer.header(alg="HS256"), issuer.claims(), sign), "alg")
        await refused(issuer, forge(issuer.header(), issuer.claims(), sign), "signature")


async def test_an_embedded_key_is_refused(issuer):
    """CVE-2026-27962: a key in the header is the attacker's."""
    attacker = import_private_key(generate_private_key(SECP256R1()))
    jwk = attacker.as_dict(private=False)
    header = issuer.header(jwk=jwk)
    await refused(issuer, forge(header, issuer.claims(), lambda data: MODELS["ES256"].sign(data, attacker)), "jwk")
    await refused(
        issuer,
        forge({**header, "kid": attacker.kid}, issuer.claims(), lambda data: MODELS["ES256"].sign(data, attacker)),
    )
    await refused(issuer, issuer.sign(header=header), "jwk")


@pytest.mark.parametrize(
    "member",
    [
        {"crit": ["exp"]},
        {"crit": []},
        {"crit": ["unknown"], "unknown": 1},
        {"b64": False, "crit": ["b64"]},
        {"jku": "https://attacker.example/keys"},
        {"x5u": "https://attacker.example/cert"},
        {"x5c": ["AAAA"]},
        {"zip": "DEF"},
        {"enc": "A256GCM"},
        {"cty": "JWT"},
    ],
)
async def test_header_members_that_change_the_rules_are_refused(issuer, member):
    """Even under a signature that holds: CVE-2025-59420 was an unknown `crit` that was ignored."""
    header, payload = json.dumps(issuer.header(**member)).encode(), json.dumps(issuer.claims()).encode()
    await refused(issuer, issuer.sign_text(header, payload), "header has")


@control("3.5.2", "IA-2")
async def test_a_foreign_key_is_refused(issuer):
    """Of the same kind, with the right id."""
    other = import_private_key(generate_private_key(SECP256R1()))
    await refused(
        issuer, forge(issuer.header(), issuer.claims(), lambda data: MODELS["ES256"].sign(data, other)), "signature"
    )


async def test_the_algorithm_must_be_the_keys_own(issuer):
    """ES256 claimed for an Ed25519 signature, and the other way."""
    edwards = import_private_key(Ed25519PrivateKey.generate())
    token = forge(issuer.header(alg="Ed25519"), issuer.claims(), lambda data: MODELS["Ed25519"].sign(data, edwards))
    await refused(issuer, token, "algorithm of the key")


async def test_a_signature_in_der_or_of_another_length_is_refused(issuer):
    """RFC 7518 section 3.4: two integers of 32 bytes, nothing else."""
    good = issuer.sign()
    signed, _, signature = good.rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    for changed in (raw[:-1], raw + b"\0", raw[:32], b"\x30\x44" + raw, bytes(64), b"\xff" * 64):
        await refused(issuer, f"{signed}.{encode(changed)}", "signature")


@control("3.5.2", "IA-2")
async def test_every_changed_byte_is_noticed(issuer):
    """One flipped character anywhere."""
    good = issuer.sign()
    for position in range(0, len(good), 7):
        if good[position] != ".":
            replacement = "A" if good[position] != "A" else "B"
            await refused(issuer, good[:position] + replacement + good[position + 1 :])


async def test_one_token_has_one_spelling(issuer):
    """Unused bits of the last character, padding and line ends would give other spellings of the same token."""
    good = issuer.sign()
    alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
    last = alphabet.index(good[-1])
    spellings = [
        good[:-1] + alphabet[last ^ 1],
        good + "=",
        good + "==",
        good + "\n",
        " " + good,
        good.replace("-", "+"),
    ]
    for spelling in spellings:
        if spelling != good:
            await refused(issuer, spelling)


@pytest.mark.parametrize(
    "token", ["", ".", "..", "a.b", "a.b.c.d", "a..c", "a.b.", "é.é.é", "a.b.c\0", "..." * 10, "a b.c.d"]
)
async def test_what_is_not_three_segments_is_refused(issuer, token):
    """The alphabet is checked before anything is decoded; five segments would be an encrypted token."""
    await refused(issuer, token, "not an access token")


async def test_huge_tokens_are_refused_unparsed(issuer):
    """By their length alone, without even asking for keys."""
    await refused(issuer, "a" * (MAX_TOKEN_CHARS + 1))
    await refused(issuer, "a" * 5_000_000)
    assert issuer.source.num_fetches == 0


async def test_deep_nesting_and_huge_numbers_are_refused(issuer):
    """Neither RecursionError nor the limit on digits escapes."""
    header = json.dumps(issuer.header()).encode()
    for payload in (
        b"[" * 5000,
        b'{"a":' * 1200,
        b'{"exp":' + b"9" * 5000 + b"}",
        b'{"exp":1e999}',
        b'{"exp":NaN}',
        b"\xff\xfe",
        b"null",
        b"[]",
        b'"x"',
        b"",
    ):
        await refused(issuer, issuer.sign_text(header, payload))


@pytest.mark.parametrize("name", ["iss", "sub", "aud", "client_id", "exp", "iat", "jti", "scope", "roles", "tenant"])
@pytest.mark.parametrize(
    "value", [..., None, 0, 1.5, True, "", [], {}, ["x", 1], "x" * 300, "line\nbreak", -1, 1 << 60, [["x"]]]
)
async def test_each_claim_has_one_type(issuer, name, value):
    """RFC 9068 section 2.2: all are required; a wrong JSON type is not converted."""
    await refused(issuer, issuer.sign(issuer.claims(**{name: value})), name)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"aud": [AUDIENCE + "/"]}, "aud"),
        ({"aud": AUDIENCE.upper()}, "aud"),
        ({"aud": [f"https://{n}.example" for n in range(20)] + [AUDIENCE]}, "aud"),
        ({"iss": ISSUER + "/"}, "iss"),
        ({"iss": ISSUER.replace("https", "http")}, "iss"),
        ({"exp": NOW - 5}, "exp"),
        ({"iat": NOW + 6, "exp": NOW + 100}, "iat"),
        ({"nbf": NOW + 6}, "nbf"),
        ({"nbf": "0"}, "nbf"),
        ({"nbf": None}, "nbf"),
        ({"nbf": True}, "nbf"),
        ({"exp": NOW + 1, "iat": NOW + 1}, "exp"),
        ({"scope": "public"}, "scope"),
        ({"scope": "inference admin"}, "scope"),
        ({"scope": "metrics.read"}, "scope"),
        ({"roles": ["user", "admin"]}, "roles"),
        ({"roles": ["root"]}, "roles"),
        ({"roles": "user"}, "roles"),
        ({"roles": ["operator"]}, "scope"),
    ],
)
async def test_wrong_values_are_refused(issuer, changes, match):
    """Each alone, under a signature that holds."""
    await refused(issuer, issuer.sign(issuer.claims(**changes)), match)


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": [AUDIENCE]},
        {"aud": ["https://other.example", AUDIENCE]},
        {"nbf": NOW + 5},
        {"iat": NOW + 5, "exp": NOW + 60},
        {"extra": {"any": 1}},
    ],
)
async def test_what_the_profile_allows_is_accepted(issuer, changes):
    """Several audiences with ours among them; clocks five seconds apart; claims that we do not know."""
    assert await issuer.validate(issuer.sign(issuer.claims(**changes)))


THUMBPRINT = "A" * 43


@pytest.mark.parametrize(
    "confirmation",
    [
        None,
        THUMBPRINT,
        [],
        {},
        {"jkt": THUMBPRINT, "x5t#S256": THUMBPRINT},
        {"kid": THUMBPRINT},
        {"jwk": {"kty": "EC"}},
        {"x5t": THUMBPRINT},
        {"jkt": None},
        {"jkt": [THUMBPRINT]},
        {"jkt": 7},
        {"jkt": ""},
        {"jkt": THUMBPRINT + "A"},
        {"jkt": THUMBPRINT[1:] + "="},
        {"x5t#S256": THUMBPRINT + "\n"},
    ],
)
async def test_a_confirmation_that_is_not_understood_refuses_the_token(issuer, confirmation):
    """RFC 7800 section 3.1: believing such a token unbound would let in whoever has a copy of it."""
    await refused(issuer, issuer.sign(issuer.claims(cnf=confirmation)), "cnf")


async def test_a_token_is_bound_to_what_it_says(issuer):
    """To a key (RFC 9449 section 6.1), or to a certificate (RFC 8705 section 3.1)."""
    by_key = await issuer.validate(issuer.sign(issuer.claims(cnf={"jkt": THUMBPRINT})))
    by_certificate = await issuer.validate(issuer.sign(issuer.claims(cnf={"x5t#S256": THUMBPRINT})))
    loose = await issuer.validate(issuer.sign())
    assert (by_key.key_thumbprint, by_key.certificate_thumbprint) == (THUMBPRINT, "")
    assert (by_certificate.key_thumbprint, by_certificate.certificate_thumbprint) == ("", THUMBPRINT)
    assert [one.is_bound for one in (by_key, by_certificate, loose)] == [True, True, False]


def chain(number, **innermost):
    """`act` with so many actors (RFC 8693 section 4.1)."""
    nested = {"sub": f"s{number}", **innermost}
    for place in range(number - 1, 0, -1):
        nested = {"sub": f"s{place}", "act": nested}
    return nested


async def test_all_who_acted_are_known(issuer):
    """The nearest first; a chain that is too long, or has something else in it, is no token."""
    token = await issuer.validate(issuer.sign(issuer.claims(act=chain(4))))
    assert token.actors == ("s1", "s2", "s3", "s4")
    for act in (chain(5), "s1", [], {}, {"sub": 7}, chain(2, act="s3"), chain(2, act={})):
        await refused(issuer, issuer.sign(issuer.claims(act=act)), "act|sub")


async def test_an_accepted_token_expires_in_the_cache_too(issuer):
    """The second time is cheaper, not laxer."""
    token = issuer.sign()
    assert await issuer.validate(token) is await issuer.validate(token)
    issuer.clock.now = NOW + 604
    assert await issuer.validate(token)
    issuer.clock.now = NOW + 605
    issuer.ring_clock.now += 1
    await refused(issuer, token, "expired")


async def test_the_cache_knows_tokens_by_all_of_their_bytes(issuer):
    """A token that shares header and claims with an accepted one, but not the signature, is another token."""
    token = issuer.sign()
    await issuer.validate(token)
    signed, _, signature = token.rpartition(".")
    raw = bytearray(base64.urlsafe_b64decode(signature + "=="))
    raw[-1] ^= 1
    await refused(issuer, f"{signed}.{encode(bytes(raw))}", "signature")
    await refused(issuer, token[:-10] + "A" * 10)


async def test_the_cache_is_bounded(issuer):
    """The least recently used goes first."""
    validator = AccessTokenValidator(
        issuer.ring, issuer=ISSUER, audience=AUDIENCE, clock=issuer.clock, max_cached_tokens=3
    )
    tokens = [issuer.sign(issuer.claims(jti=f"t{number}")) for number in range(5)]
    first = await validator.validate(tokens[0])
    for token in tokens:
        await validator.validate(tokens[0])
        await validator.validate(token)
    assert len(validator._accepted) == 3
    assert await validator.validate(tokens[0]) is first


async def test_a_withdrawn_key_ends_the_tokens_it_signed(issuer):
    """Also those that are cached."""
    token = issuer.sign()
    await issuer.validate(token)
    other = ECKey.generate_key("P-256", auto_kid=True)
    issuer.source.publish = lambda: {"keys": [{**other.as_dict(private=False), "use": "sig", "alg": "ES256"}]}
    issuer.ring_clock.now += 601
    await refused(issuer, token, "does not publish")


async def test_keys_are_refreshed_beside_the_work_before_they_must_be(issuer):
    """A request in between does not wait for the issuer; the next sees what it published."""
    token = issuer.sign()
    await issuer.validate(token)
    other = ECKey.generate_key("P-256", auto_kid=True)
    issuer.source.publish = lambda: {"keys": [{**other.as_dict(private=False), "use": "sig", "alg": "ES256"}]}
    issuer.ring_clock.now += 301
    assert await issuer.validate(token)
    assert issuer.source.num_fetches == 1
    await asyncio.sleep(0.01)
    assert issuer.source.num_fetches == 2
    await refused(issuer, token, "does not publish")


async def test_keys_that_cannot_be_had_are_no_reason_to_let_in_or_to_blame(issuer):
    """No keys yet: unavailable. Keys too old: unavailable, for cached tokens too."""
    token = issuer.sign()
    issuer.source.is_down = True
    with pytest.raises(KeysUnavailable):
        await issuer.validate(token)
    issuer.source.is_down = False
    issuer.ring_clock.now += 1
    assert await issuer.validate(token)
    issuer.source.is_down = True
    issuer.ring_clock.now += 700
    assert await issuer.validate(token)
    issuer.ring_clock.now += 3600
    with pytest.raises(KeysUnavailable):
        await issuer.validate(token)


async def test_messages_hold_nothing_of_the_token(issuer):
    """What the client sent is not repeated into logs, beyond the bounded name of a scope or role."""
    for changes in (
        {"sub": 7},
        {"aud": "https://canary.example"},
        {"iss": "https://canary.example"},
        {"jti": ["canary"]},
    ):
        with pytest.raises(TokenRejected) as caught:
            await issuer.validate(issuer.sign(issuer.claims(**changes)))
        assert "canary" not in str(caught.value)


SEGMENT = st.text(alphabet=string.ascii_letters + string.digits + "-_.=+/ ", max_size=60)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(
    [
        "iss",
        "sub",
        "aud",
        "client_id",
        "exp",
        "iat",
        "nbf",
        "jti",
        "scope",
        "roles",
        "tenant",
        "alg",
        "typ",
        "kid",
        "crit",
    ]
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(token=st.text(max_size=200) | st.tuples(SEGMENT, SEGMENT, SEGMENT).map(".".join))
async def test_nothing_but_the_family_escapes_for_any_text(issuer, token):
    """Any text at all."""
    with pytest.raises(TokenRejected):
        await issuer.validate(token)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(header=st.dictionaries(NAMES, JSON, max_size=4), claims=st.dictionaries(NAMES, JSON, min_size=1, max_size=6))
async def test_nothing_but_the_family_escapes_for_any_signed_json(issuer, header, claims):
    """Any JSON under a signature that holds: it is either refused, or what came out is what went in."""
    whole = issuer.claims(**claims)
    token = issuer.sign_text(json.dumps(issuer.header(**header)).encode(), json.dumps(whole).encode())
    try:
        accepted = await issuer.validate(token)
    except (TokenRejected, KeysUnavailable):
        return
    assert (accepted.subject, accepted.client_id, accepted.tenant) == (
        whole["sub"],
        whole["client_id"],
        whole["tenant"],
    )
    assert NOW - 5 < accepted.expires_at <= NOW + 3605


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(header=st.binary(max_size=80), payload=st.binary(max_size=200))
async def test_nothing_but_the_family_escapes_for_any_signed_bytes(issuer, header, payload):
    """Any bytes under a signature that holds."""
    good = json.dumps(issuer.header()).encode()
    for token in (issuer.sign_text(good, payload or b"x"), issuer.sign_text(header or b"x", b"{}")):
        with pytest.raises(TokenRejected):
            await issuer.validate(token)


async def test_keys_on_other_curves_are_never_used(issuer):
    """A P-384 key may be in the set for others; no token of ours is believed under it, whatever algorithm it names."""
    other = ECKey.import_key(
        generate_private_key(SECP384R1()).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    own = issuer.keys.public_key_set()["keys"]
    issuer.source.publish = lambda: {"keys": [*own, {**other.as_dict(private=False), "kid": "p384"}]}
    await refused(issuer, issuer.sign(header=issuer.header(kid="p384")), "not the algorithm of the key")
    await refused(issuer, issuer.sign_text(json.dumps(issuer.header(kid="p384", alg="ES384")).encode(), b"{}"), "alg")
    assert await issuer.validate(issuer.sign())
