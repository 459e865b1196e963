"""Nonces in proofs of possession: asked for, good for a while, and never a reason to lose a grant."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from security.oauth.dpop_nonces import DpopNonces, make_nonce_key
from tests.support.oauth_house import House, proof_by

GRANT = {"grant_type": "client_credentials"}


@pytest.fixture
def house(tmp_path, clock, issuer):
    made = House(tmp_path, clock, issuer.keys, dpop_nonces=DpopNonces(make_nonce_key(), 60, clock=clock))
    yield made
    made.close()


def nonce_of(answer):
    return dict(answer.headers)["DPoP-Nonce"]


def test_a_proof_without_a_nonce_is_answered_with_one(house, key, clock):
    """RFC 9449 section 8: use_dpop_nonce, 400, and the header; with it the same request is good."""
    auth = house.by_service()
    status, body, answer = house.token(GRANT, auth=auth, proofs=[proof_by(key, clock)])
    assert (status, body["error"]) == (400, "use_dpop_nonce")
    assert dict(answer.headers)["Cache-Control"] == "no-store"
    status, body, again = house.token(GRANT, auth=auth, proofs=[proof_by(key, clock, nonce=nonce_of(answer))])
    assert (status, body["token_type"]) == (200, "DPoP")
    assert nonce_of(again) == nonce_of(answer)


def test_without_a_proof_there_is_no_nonce(house):
    """Whoever does not use DPoP is not bothered with it."""
    status, _, answer = house.token(GRANT, auth=house.by_service())
    assert (status, "DPoP-Nonce" in dict(answer.headers)) == (200, False)


def test_a_nonce_is_asked_for_before_anything_is_spent(house, key, clock):
    """A code, and a refresh token, are good when the client comes back with it."""
    code = house.code()
    answer = house.token(house.exchange(code), proofs=[proof_by(key, clock)])[2]
    nonce = nonce_of(answer)
    status, body, _ = house.token(house.exchange(code), proofs=[proof_by(key, clock, nonce=nonce)])
    assert status == 200
    fields = {"grant_type": "refresh_token", "refresh_token": body["refresh_token"]}
    house.refused("use_dpop_nonce", fields, proofs=[proof_by(key, clock, more=1)])
    assert house.token(fields, proofs=[proof_by(key, clock, nonce=nonce, more=1)])[0] == 200


def test_a_stranger_is_told_no_nonce(house, key, clock):
    """Who the client is comes first."""
    status, body, _ = house.token({**GRANT, "client_id": "nobody"}, proofs=[proof_by(key, clock)])
    assert (status, body["error"]) == (401, "invalid_client")


@pytest.mark.parametrize("nonce", [7, None, "", "x", "é", "A" * 32, "A" * 5000, ["x"]])
def test_what_is_not_a_nonce_of_ours_is_none(house, key, clock, nonce):
    """Of whatever type."""
    proof = proof_by(key, clock, nonce=nonce, jti=f"j{nonce!r}"[:200])
    if isinstance(nonce, str) and len(nonce) > 4096:
        house.refused("invalid_dpop_proof", GRANT, auth=house.by_service(), proofs=[proof])
    else:
        house.refused("use_dpop_nonce", GRANT, auth=house.by_service(), proofs=[proof])


def test_a_nonce_is_good_for_its_span_and_the_next(clock):
    """At least the lifetime, at most twice that."""
    clock.now = 600.0
    nonces = DpopNonces(make_nonce_key(), 60, clock=clock)
    nonce = nonces.current()
    for now, is_good in ((600, True), (719.9, True), (720, False), (599.9, False)):
        clock.now = now
        assert nonces.is_good(nonce) is is_good


def test_processes_with_one_key_know_each_others_and_no_others(clock):
    """Gateway workers share policy's key."""
    key = make_nonce_key()
    one, other = DpopNonces(key, 60, clock=clock), DpopNonces(key, 60, clock=clock)
    assert other.is_good(one.current())
    assert not DpopNonces(make_nonce_key(), 60, clock=clock).is_good(one.current())


@given(st.text(max_size=80))
def test_no_text_is_a_nonce_by_accident(text):
    """And none makes it fail."""
    assert not DpopNonces(make_nonce_key(), 60).is_good(text)
