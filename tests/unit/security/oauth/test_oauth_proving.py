"""What our own client signs is what our own servers take."""

import json

from security.keys import generate_p256
from security.oauth.client_keys import parse_client_keys
from security.oauth.dpop import verify_proof
from security.oauth.jws import is_signed_by, parse_jws
from security.oauth.key_set import parse_public_key
from security.oauth.proving import ProofKey, make_assertion, public_key_set

URL = "https://authority.example/token"
NOW = 1_800_000_000


def test_a_proof_is_bound_to_request_and_token():
    """RFC 9449 section 4.2; each has an id of its own."""
    key = ProofKey(clock=lambda: NOW)
    made = key.prove("POST", URL, token="t-1", nonce="n-1")
    proof = verify_proof((made,), method="POST", urls=frozenset({URL}), now=NOW, token="t-1")
    assert (proof.thumbprint, proof.nonce) == (key.thumbprint, "n-1")
    other = verify_proof((key.prove("POST", URL),), method="POST", urls=frozenset({URL}), now=NOW)
    assert other.digest != proof.digest
    header = parse_jws(made).header
    assert set(header["jwk"]) == {"kty", "crv", "x", "y"}


def test_an_assertion_is_the_registered_keys():
    """RFC 7523 section 3; the set holds no secret."""
    key = generate_p256()
    jws = parse_jws(make_assertion(key, "console-1", "https://authority.example", now=NOW))
    (entry,) = parse_client_keys(json.dumps(public_key_set(key)))
    assert is_signed_by(jws, parse_public_key(entry), "ES256")
    assert jws.payload()["exp"] == NOW + 60
