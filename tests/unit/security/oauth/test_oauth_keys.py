"""Key sets as they come in, the ring that holds them, the files that sign, and rotation across all three."""

import asyncio
import json
import os
import warnings
from base64 import urlsafe_b64decode

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from security.errors import KeysUnavailable, KeyUnusable, MalformedDocument
from security.keys import encode_private_key, generate_p256, write_replacing
from security.oauth.algorithms import algorithms_of
from security.oauth.key_ring import KeyRing
from security.oauth.key_set import MAX_KEY_SET_BYTES, parse_key_set
from security.oauth.minting import AccessTokenMinter, Holder
from security.oauth.signing_keys import ACTIVATION_DELAY_S, RETENTION_S, SigningKeys
from tests.support.controls import control


def public(key, **members):
    return {**key.as_dict(private=False), **members}


@pytest.fixture(scope="module")
def ec():
    return ECKey.generate_key("P-256", {"kid": "ec"})


@pytest.fixture(scope="module")
def edwards():
    return OKPKey.generate_key("Ed25519", {"kid": "ed"})


def parse(*entries):
    return parse_key_set(json.dumps({"keys": list(entries)}).encode())


def test_keys_come_out_by_their_id(ec, edwards):
    """Both kinds, with and without `use` and `alg`."""
    keys = parse(public(ec), public(edwards, use="sig", alg="Ed25519"))
    assert set(keys) == {"ec", "ed"}
    assert keys["ec"].thumbprint() == ec.thumbprint()


def test_keys_of_other_kinds_are_left_out(ec):
    """RFC 7517 section 5: what is not understood is ignored; an encryption key signs nothing."""
    rsa = RSAKey.generate_key(2048, {"kid": "rsa"})
    with warnings.catch_warnings(action="ignore"):
        short = RSAKey.import_key(generate_private_key(65537, 1024), {"kid": "short"})
    keys = parse(
        public(ec),
        public(rsa),
        public(short),
        public(ECKey.generate_key("P-521"), kid="p521"),
        public(ECKey.generate_key("P-256"), kid="enc", use="enc"),
        public(ECKey.generate_key("P-256"), kid="agreement", alg="ECDH-ES"),
        public(rsa, kid="wrapping", alg="RSA-OAEP"),
        public(rsa, kid="longer", use="sig", alg="RS512"),
    )
    assert set(keys) == {"ec", "rsa"}


@pytest.mark.parametrize(
    "change",
    [
        {"kid": ...},
        {"kid": ""},
        {"kid": 7},
        {"kid": "k" * 300},
        {"x": "AAAA"},
        {"y": "AAAA"},
        {"x": ...},
        {"x": 7},
        {"x": "="},
        {"y": "A" * 43},
        {"alg": "ES384"},
        {"alg": "HS256"},
        {"alg": 5},
        {"kty": 5},
        {"kty": ...},
        {"d": "AAAA"},
        {"k": "AAAA"},
    ],
)
def test_a_key_of_ours_that_is_wrong_refuses_the_set(ec, change):
    """A publisher that gets this wrong is in trouble, or is not the publisher."""
    entry = {name: value for name, value in {**public(ec), **change}.items() if value is not ...}
    with pytest.raises(MalformedDocument):
        parse(entry, public(ECKey.generate_key("P-256"), kid="other"))


def test_what_is_no_key_set_is_refused(ec):
    """Shape, size, number, duplicates, emptiness, and shared secrets."""
    entry = public(ec)
    texts = [
        b"",
        b"[]",
        b"{}",
        b'{"keys":{}}',
        b'{"keys":[]}',
        b'{"keys":[7]}',
        b'{"keys":[],"keys":[]}',
        b"\xff",
        b'{"keys":' + b"[" * 5000,
        json.dumps({"keys": [entry, entry]}).encode(),
        json.dumps({"keys": [entry] * 33}).encode(),
        json.dumps({"keys": [OctKey.generate_key(256, {"kid": "o"}).as_dict()]}).encode(),
        b" " * (MAX_KEY_SET_BYTES + 1),
    ]
    for text in texts:
        with pytest.raises(MalformedDocument):
            parse_key_set(text)


@settings(max_examples=200)
@given(
    st.binary(max_size=200)
    | st.fixed_dictionaries(
        {
            "keys": st.lists(
                st.dictionaries(
                    st.sampled_from(["kty", "crv", "x", "y", "kid", "use", "alg"]),
                    st.sampled_from(["EC", "OKP", "P-256", "Ed25519", "sig", "AAAA", "", 7, None])
                    | st.text(max_size=5),
                ),
                max_size=3,
            )
        }
    ).map(lambda document: json.dumps(document).encode())
)
def test_nothing_but_the_family_escapes(data):
    """For any bytes, and for anything that looks like a key set."""
    try:
        parse_key_set(data)
    except MalformedDocument:
        pass


async def test_a_key_that_is_for_another_algorithm_now_is_another_key(issuer):
    """Its id and numbers are the same, and what was signed the old way is not good any more."""
    rsa = RSAKey.generate_key(2048, {"kid": "rsa"})
    issuer.source.publish = lambda: {"keys": [public(rsa, alg="RS256")]}
    await issuer.ring.load()
    issuer.source.publish = lambda: {"keys": [public(rsa, alg="PS256")]}
    await issuer.ring.load()
    assert algorithms_of(issuer.ring.find("rsa")) == ("PS256",)
    assert issuer.ring.generation == 2


async def test_many_waiters_cause_one_fetch(issuer):
    """A hundred requests with an unknown key id at once."""
    await asyncio.gather(*(issuer.ring.refresh() for _ in range(100)))
    assert issuer.source.num_fetches == 1
    assert issuer.ring.find(issuer.keys.current.kid) is not None


async def test_a_failing_source_is_asked_at_a_bounded_rate(issuer):
    """While the issuer is away, requests do not become a flood of connections to it."""
    issuer.source.is_down = True
    for _ in range(50):
        assert not await issuer.ring.refresh()
    assert issuer.source.num_fetches == 1
    issuer.ring_clock.now += 0.6
    assert not await issuer.ring.refresh()
    assert issuer.source.num_fetches == 2
    with pytest.raises(KeysUnavailable):
        await issuer.ring.load()


async def test_a_malformed_key_set_keeps_the_keys_at_hand(issuer):
    """A publisher's slip must not lock everybody out at once."""
    await issuer.ring.load()
    issuer.source.publish = lambda: {"keys": "oops"}
    issuer.ring_clock.now += 400
    assert not await issuer.ring.refresh()
    assert issuer.ring.find(issuer.keys.current.kid) is not None
    assert issuer.ring.generation == 1


async def test_a_fresh_ring_has_no_keys(issuer):
    """Asking it is an error, not "unknown key"."""
    with pytest.raises(KeysUnavailable):
        KeyRing(issuer.source).find("any")


@control("3.13.10", "SC-12")
def test_the_first_key_is_made_once_and_private(tmp_path, clock):
    """Mode 0600, in a folder of mode 0700, the same at the next start."""
    first = SigningKeys.load_or_create(tmp_path / "signing", clock=clock)
    again = SigningKeys.load_or_create(tmp_path / "signing", clock=clock)
    assert first.current.kid == again.current.kid
    assert first.current.path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "signing").stat().st_mode & 0o777 == 0o700
    assert first.current.algorithm == "ES256"


def test_published_keys_are_public(tmp_path, clock):
    """No private member, and `use`, `alg`, `kid` on each."""
    keys = SigningKeys.load_or_create(tmp_path, algorithm="Ed25519", clock=clock)
    (entry,) = keys.public_key_set()["keys"]
    assert entry.keys() == {"kty", "crv", "x", "kid", "use", "alg"}
    assert (entry["alg"], entry["use"], entry["kid"]) == ("Ed25519", "sig", keys.current.kid)
    assert set(parse_key_set(json.dumps(keys.public_key_set()).encode())) == {keys.current.kid}


@pytest.mark.parametrize("algorithm", ["PS256", "RS256"])
async def test_a_key_of_rsa_signs_by_one_algorithm(issuer, tmp_path, clock, algorithm):
    """RFC 9068 section 2.1 wants RS256 of every authority; RFC 8725 section 3.1, that a key is used in one way."""
    keys = SigningKeys.load_or_create(tmp_path / "rsa", clock=clock)
    clock.now += 100
    keys.rotate(algorithm)
    clock.now += ACTIVATION_DELAY_S
    assert not keys.is_due(0, algorithm)
    again = SigningKeys.load_or_create(tmp_path / "rsa", clock=clock)
    assert again.current.algorithm == algorithm
    assert again.current.path.name.endswith(f"-{algorithm.lower()}.pem")
    old, entry = again.public_key_set()["keys"]
    assert (old["alg"], entry["alg"]) == ("ES256", algorithm)
    assert entry.keys() == {"kty", "n", "e", "kid", "use", "alg"}
    key = parse_key_set(json.dumps({"keys": [entry]}).encode())[entry["kid"]]
    assert algorithms_of(key) == (algorithm,)
    claims = issuer.claims()
    minter = AccessTokenMinter(issuer=claims["iss"], resource=claims["aud"], keys=again, lifetime_s=600, clock=clock)
    _, token = minter.mint(Holder(client_id="a", subject="a", tenant="t", role="user"), "inference")
    # By somebody else's implementation, from what is published.
    signed, _, signature = token.encode().rpartition(b".")
    head = json.loads(urlsafe_b64decode(signed.partition(b".")[0] + b"=="))
    assert (head["alg"], head["kid"]) == (algorithm, entry["kid"])
    spaces = PSS(MGF1(SHA256()), 32) if algorithm == "PS256" else PKCS1v15()
    number = [int.from_bytes(urlsafe_b64decode(entry[name] + "==")) for name in ("e", "n")]
    RSAPublicNumbers(*number).public_key().verify(urlsafe_b64decode(signature + b"=="), signed, spaces, SHA256())
    issuer.source.publish = again.public_key_set
    assert (await issuer.validate(token)).kid == entry["kid"]


async def test_ed25519_goes_by_the_name_that_is_asked_for(issuer, tmp_path, clock):
    """RFC 9864 calls it Ed25519, and many libraries know EdDSA alone: header and key set say the same."""
    for name, file in (("Ed25519", f"signing-{int(clock.now)}.pem"), ("EdDSA", f"signing-{int(clock.now)}-eddsa.pem")):
        keys = SigningKeys.load_or_create(tmp_path / name, algorithm=name, clock=clock)
        assert keys.current.path.name == file
        assert not keys.is_due(0, name)
        (entry,) = keys.public_key_set()["keys"]
        claims = issuer.claims()
        minter = AccessTokenMinter(issuer=claims["iss"], resource=claims["aud"], keys=keys, lifetime_s=600, clock=clock)
        _, token = minter.mint(Holder(client_id="a", subject="a", tenant="t", role="user"), "inference")
        signed, _, signature = token.encode().rpartition(b".")
        head = json.loads(urlsafe_b64decode(signed.partition(b".")[0] + b"=="))
        assert head == {"alg": name, "typ": "at+jwt", "kid": entry["kid"]}
        assert entry["alg"] == name
        public_bytes = urlsafe_b64decode(entry["x"] + "==")
        Ed25519PublicKey.from_public_bytes(public_bytes).verify(urlsafe_b64decode(signature + b"=="), signed)
        issuer.source.publish = keys.public_key_set
        await issuer.ring.load()
        assert (await issuer.validate(token)).kid == entry["kid"]
    wrong = tmp_path / "wrong"
    wrong.mkdir(mode=0o700)
    write_replacing(wrong / "signing-7-eddsa.pem", encode_private_key(generate_p256()))
    with pytest.raises(KeyUnusable, match=r"signing-7-eddsa\.pem holds a key of another kind"):
        SigningKeys.load_or_create(wrong, clock=clock)


def test_a_key_of_rsa_that_is_short_or_in_a_file_of_another_kind_is_refused(tmp_path, clock):
    """The file's name says how it is used, so it must hold what it says."""
    path = tmp_path / "signing-7-rs256.pem"
    for key in (generate_private_key(65537, 2048), generate_p256()):
        write_replacing(path, encode_private_key(key))
        with pytest.raises(KeyUnusable, match=r"signing-7-rs256\.pem holds a key of another kind"):
            SigningKeys.load_or_create(tmp_path, clock=clock)


@pytest.mark.parametrize("named", ["PS256", "RS256", None])
def test_a_key_of_rsa_is_used_as_its_publisher_says(named):
    """RFC 8725 section 3.1; whoever names nothing may use either."""
    rsa = RSAKey.generate_key(2048, {"kid": "rsa"})
    (key,) = parse(public(rsa, alg=named)).values()
    assert algorithms_of(key) == (("PS256", "RS256") if named is None else (named,))


@control("3.13.10", "CM-3(6)", "SC-12")
def test_rotation_publishes_first_signs_later_and_keeps_the_old_key_while_needed(tmp_path, clock):
    """Nobody is refused at any moment of it."""
    keys = SigningKeys.load_or_create(tmp_path, clock=clock)
    old = keys.current
    clock.now += 100_000
    new = keys.rotate("ES256")
    assert keys.current is old
    assert {entry["kid"] for entry in keys.public_key_set()["keys"]} == {old.kid, new.kid}
    with pytest.raises(KeyUnusable, match="does not sign yet"):
        keys.rotate("ES256")
    clock.now += ACTIVATION_DELAY_S
    assert keys.current is new
    assert SigningKeys.load_or_create(tmp_path, clock=clock).current.kid == new.kid
    clock.now += RETENTION_S + 1
    third = keys.rotate("ES256")
    assert not old.path.exists()
    assert {entry["kid"] for entry in keys.public_key_set()["keys"]} == {new.kid, third.kid}


def test_a_key_is_due_when_it_is_old_or_of_another_algorithm_and_none_is_on_its_way(tmp_path, clock):
    """And what nothing needs any more goes without waiting for the next rotation."""
    keys = SigningKeys.load_or_create(tmp_path, clock=clock)
    assert not keys.is_due(86_400, "ES256")
    assert keys.is_due(86_400, "Ed25519")
    clock.now += 86_400
    assert keys.is_due(86_400, "ES256")
    assert not keys.is_due(0, "ES256")
    keys.rotate("ES256")
    assert not keys.is_due(86_400, "Ed25519")
    clock.now += ACTIVATION_DELAY_S
    assert not keys.is_due(86_400, "ES256")
    assert not keys.retire()
    clock.now += RETENTION_S + 1
    assert keys.retire()
    assert len(keys.all) == 1
    assert not keys.retire()


def test_an_exposed_or_broken_signing_key_is_named(tmp_path, clock):
    """One clear error that names the file."""
    path = SigningKeys.load_or_create(tmp_path, clock=clock).current.path
    path.chmod(0o640)
    with pytest.raises(KeyUnusable, match=path.name):
        SigningKeys.load_or_create(tmp_path, clock=clock)
    path.chmod(0o600)
    path.write_bytes(b"garbage")
    with pytest.raises(KeyUnusable, match=path.name):
        SigningKeys.load_or_create(tmp_path, clock=clock)


def test_other_files_in_the_folder_are_ignored(tmp_path, clock):
    """Half-written and foreign files do not become keys."""
    for name in (".signing-1.pem.0123", "signing-x.pem", "signing-1.pem.bak", "README"):
        (tmp_path / name).write_text("no key")
    os.chmod(tmp_path, 0o700)
    assert len(SigningKeys.load_or_create(tmp_path, clock=clock).public_key_set()["keys"]) == 1
