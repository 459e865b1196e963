"""Authorization codes and requests: PKCE always, redirects to registered addresses only, every error as its RFC words it."""

from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from security.clients import ClientDefinition
from security.oauth.authorization_request import RefusedRequest, UntrustedRequest, parse_query
from security.oauth.consent import Approval
from security.oauth.dpop import hash_token
from security.oauth.redirects import is_same_redirect
from tests.support.authority import run_now
from tests.support.oauth_house import CHALLENGE, ISSUER, REDIRECT, validate


async def test_a_code_becomes_a_token_for_the_person(house, issuer):
    """RFC 6749 section 4.1.3; the gateway's validator reads it."""
    body = house.session()
    assert body.keys() == {"access_token", "token_type", "expires_in", "scope", "refresh_token"}
    assert (body["token_type"], body["scope"]) == ("Bearer", "inference models.read")
    accepted = await validate(issuer, body["access_token"])
    assert (accepted.subject, accepted.client_id) == (house.user.user_id, house.app.client_id)
    assert accepted.session


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"code": "unknown"}, "invalid_grant"),
        ({"code": None}, "invalid_request"),
        ({"code_verifier": None}, "invalid_grant"),
        ({"code_verifier": "w" * 43}, "invalid_grant"),
        ({"code_verifier": "v" * 42}, "invalid_grant"),
        ({"code_verifier": "v" * 129}, "invalid_grant"),
        ({"code_verifier": "v" * 42 + "!"}, "invalid_grant"),
        ({"redirect_uri": None}, "invalid_grant"),
        ({"redirect_uri": REDIRECT + "/"}, "invalid_grant"),
        ({"resource": "https://other.example"}, "invalid_target"),
    ],
)
def test_a_code_is_refused_as_the_rfcs_say(house, changes, error):
    """RFC 6749 section 5.2, RFC 7636 section 4.6, RFC 8707 section 2."""
    fields = {**house.exchange(house.code()), **changes}
    house.refused(error, {name: value for name, value in fields.items() if value is not None})


def test_a_code_is_its_clients_and_is_spent_by_whoever_tries(house):
    """A stolen code is worth nothing to another client, and then to nobody."""
    other = house.registry.create(ClientDefinition(name="o", kind="application", auth_method="none"), actor="t").client
    code = house.code()
    house.refused("invalid_grant", house.exchange(code, client_id=other.client_id))
    house.refused("invalid_grant", house.exchange(code))


def test_a_code_is_good_for_a_minute(house, clock):
    """RFC 6749 section 4.1.2 wants it short."""
    code = house.code()
    clock.now += 60
    house.refused("invalid_grant", house.exchange(code))


async def test_a_code_that_comes_twice_voids_what_came_of_it(house, issuer):
    """RFC 6749 section 4.1.2: access and refresh tokens."""
    code = house.code()
    _, body, _ = house.token(house.exchange(code))
    accepted = await validate(issuer, body["access_token"])
    _, _, answer = house.token(house.exchange(code))
    assert (answer.error, answer.reused_by) == ("invalid_grant", house.user.user_id)
    assert house.facts.revocations.is_revoked(accepted)
    house.refused("invalid_grant", {"grant_type": "refresh_token", "refresh_token": body["refresh_token"]})


def test_a_person_who_may_not_sign_in_any_more_gets_nothing(house):
    """Looked up at the exchange, not at the click."""
    code = house.code()
    house.registry.users.disable("ada", actor="t")
    house.refused("invalid_grant", house.exchange(code))


def asked(house, *, also="", **changes):
    fields = {
        "response_type": "code", "client_id": house.app.client_id, "redirect_uri": REDIRECT, "scope": "inference",
        "state": "s t&ate", "code_challenge": CHALLENGE, "code_challenge_method": "S256", **changes,
    }  # fmt: skip
    query = urlencode({name: value for name, value in fields.items() if value is not None})
    return run_now(house.authority.read_authorization(query + also))


def test_an_answer_goes_back_with_state_and_issuer(house):
    """RFC 6749 section 4.1.2, RFC 9207."""
    location = asked(house).answer(Approval(house.user.user_id, int(house.clock.now)))
    assert location.startswith(REDIRECT + "?")
    answer = parse_qs(urlsplit(location).query)
    code = answer.pop("code")[0]
    assert answer == {"state": ["s t&ate"], "iss": [ISSUER]}
    assert house.token(house.exchange(code))[1]["scope"] == "inference"
    assert asked(house, redirect_uri=None).redirect_uri == REDIRECT
    refusal = parse_qs(urlsplit(asked(house).answer(None)).query)
    assert (refusal["error"], refusal["state"], refusal["iss"]) == (["access_denied"], ["s t&ate"], [ISSUER])
    assert "code" not in refusal


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": None}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"scope": "nonsense"}, "invalid_scope"),
        ({"resource": "https://other.example"}, "invalid_target"),
        ({"request": "x"}, "request_not_supported"),
        ({"request_uri": "https://x"}, "request_uri_not_supported"),
        ({"dpop_jkt": "x"}, "invalid_request"),
        ({"state": "s" * 2000}, "invalid_request"),
    ],
)
def test_errors_go_back_to_the_application(house, changes, error):
    """RFC 6749 section 4.1.2.1."""
    with pytest.raises(RefusedRequest) as refused:
        asked(house, **changes)
    location = urlsplit(refused.value.location)
    assert f"{location.scheme}://{location.netloc}{location.path}" == REDIRECT
    answer = parse_qs(location.query)
    assert (answer["error"], answer["iss"]) == ([error], [ISSUER])


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": "nobody"}, {"client_id": None}, {"redirect_uri": REDIRECT + "/x"}, {"redirect_uri": "https://evil.example"},
        {"redirect_uri": REDIRECT + "?x=1"}, {"redirect_uri": REDIRECT.upper()}, {"redirect_uri": "javascript:alert(1)"},
    ],
)  # fmt: skip
def test_nobody_is_redirected_while_client_or_address_are_not_right(house, changes):
    """An open redirector helps whoever phishes."""
    with pytest.raises(UntrustedRequest):
        asked(house, **changes)


@pytest.mark.parametrize(
    "query", ["client_id=a&client_id=b", "redirect_uri=a&redirect_uri=b", "%ff", "x" * 5000, "a=1&" * 40]
)
def test_queries_that_cannot_be_read_are_refused(query):
    """Repeated parameters, other alphabets, too much."""
    with pytest.raises(UntrustedRequest):
        parse_query(query)


def test_what_has_no_value_is_as_if_it_were_not_there():
    """RFC 6749 section 3.1, with `=` or without, and with nothing between two marks."""
    assert parse_query("client_id=a&state&scope=&&").parameters == {"client_id": "a"}


@pytest.mark.parametrize("repeated", ["scope", "state", "response_type", "x"])
def test_the_application_hears_of_what_stands_twice(house, repeated):
    """RFC 6749 section 4.1.2.1: of one of two states nobody knows which is meant."""
    with pytest.raises(RefusedRequest) as refused:
        asked(house, also=f"&{repeated}=1&{repeated}=2")
    answer = parse_qs(urlsplit(refused.value.location).query)
    assert (answer["error"], answer["iss"]) == (["invalid_request"], [ISSUER])
    assert ("state" in answer) == (repeated != "state")


def test_redirect_addresses_are_compared_as_strings_but_for_a_local_port():
    """RFC 8252 section 7.3."""
    assert is_same_redirect("http://127.0.0.1:51004/cb", "http://127.0.0.1/cb")
    assert is_same_redirect("http://[::1]:1/cb", "http://[::1]:9/cb")
    for given in (
        "http://127.0.0.1:5/other", "http://127.0.0.1:5/cb?x=1", "http://localhost:5/cb", "https://127.0.0.1:5/cb",
        "http://127.0.0.1.evil.example/cb", "http://127.0.0.1:x/cb", "http://u@127.0.0.1/cb", "",
        "HTTP://127.0.0.1/cb", "http://127.0.0.1:5/c\tb", "\nhttp://127.0.0.1:5/cb", "http://127.0.0.1:/cb", "http://127.0.0.1:5/cb#",
    ):  # fmt: skip
        assert not is_same_redirect(given, "http://127.0.0.1/cb")
    assert not is_same_redirect("https://app.example:444/back", REDIRECT)


def test_ath_is_the_digest_of_the_token():
    """RFC 9449 section 4.2, the example's form: base64url of SHA-256, unpadded."""
    token = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"
    assert hash_token(token) == "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo"
