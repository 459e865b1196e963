"""What authlib's server framework would do otherwise, each seen in the library itself and closed in ours."""

import asyncio
import json
import logging

import pytest
from authlib.oauth2.rfc6749 import AuthorizationServer, grants
from authlib.oauth2.rfc6749.errors import UnsupportedResponseTypeError
from authlib.oauth2.rfc6749.util import extract_basic_authorization
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oauth2.rfc8628 import DeviceCodeGrant

from security.clients import ClientDefinition
from security.oauth.authority_request import Known
from security.oauth.authorization_request import RefusedRequest
from security.oauth.grant_server import GrantServer
from security.oauth.grant_types import DEVICE_GRANT, EXCHANGE_GRANT, GRANT_TYPES
from security.oauth.grants import CodeGrant, DevicePoll, ServiceGrant, Turnover
from security.oauth.token_request import ASSERTION_TYPE
from tests.support.authority import basic, run_now
from tests.support.oauth_house import CHALLENGE, REDIRECT, proof_by, sign

CANARY = "canary-7f3a"


def begin_device(house):
    return house.ask("device_authorization", {"client_id": house.app.client_id})[1]


def test_every_grant_runs_on_authlib():
    """The framework's server, and its class of each grant that it has."""
    assert issubclass(GrantServer, AuthorizationServer)
    pairs = (
        (ServiceGrant, grants.ClientCredentialsGrant),
        (CodeGrant, grants.AuthorizationCodeGrant),
        (Turnover, grants.RefreshTokenGrant),
        (DevicePoll, DeviceCodeGrant),
    )
    for ours, theirs in pairs:
        assert issubclass(ours, theirs)
        assert ours.create_token_response is theirs.create_token_response


def test_a_token_in_an_answer_is_not_logged(house, caplog):
    """authlib logs what each of its grants issues, at level DEBUG."""
    with caplog.at_level(logging.DEBUG, logger="authlib"):
        body = house.session()
        again = house.token({"grant_type": "refresh_token", "refresh_token": body["refresh_token"]})[1]
        own = house.token({"grant_type": "client_credentials"}, auth=house.by_service())[1]
    assert caplog.text.count("Issue token") == 3  # The line is there, and shows nothing.
    for answer in (body, again, own):
        assert answer["access_token"] not in caplog.text
        assert answer.get("refresh_token", answer["access_token"]) not in caplog.text
    assert house.service.secret not in caplog.text


@pytest.mark.parametrize("grant_type", [*GRANT_TYPES, CANARY, f'{CANARY}"é'])
def test_no_answer_repeats_what_was_sent(house, grant_type):
    """authlib repeats grant types and response types, and joserfc's words of an assertion."""
    fields = dict.fromkeys(
        ("code", "redirect_uri", "code_verifier", "device_code", "refresh_token", "subject_token", "subject_token_type",
         "actor_token", "actor_token_type", "requested_token_type", "scope", CANARY), CANARY,
    )  # fmt: skip
    fields["grant_type"] = grant_type
    senders = ({"auth": house.by_service()}, {}, {"auth": basic(CANARY, CANARY)}, {"proofs": [CANARY]})
    for sender in senders:
        status, body, _ = house.token(fields, **sender)
        assert status in (400, 401)
        assert CANARY not in json.dumps(body)
    for name in ("resource", "audience", "client_assertion"):
        _, body, _ = house.token({**fields, name: CANARY, "client_assertion_type": ASSERTION_TYPE}, **senders[0])
        assert CANARY not in json.dumps(body)


def test_a_basic_header_in_another_alphabet_is_a_refusal(house):
    """In authlib's reader the exception escapes."""
    header = "Basic //79/A=="
    with pytest.raises(UnicodeDecodeError):
        extract_basic_authorization({"Authorization": header})
    assert house.token({"grant_type": "client_credentials"}, auth=header)[0] == 401


@pytest.mark.parametrize("response_type", ['x"y', "é", "token", "code token"])
def test_another_response_type_is_refused_in_our_words(house, response_type):
    """authlib gives its error what the client sent, and then fails on a quotation mark in it."""
    with pytest.raises(ValueError, match="forbidden"):
        UnsupportedResponseTypeError("code", 'x"y')
    asked = {"response_type": response_type, "client_id": house.app.client_id, "code_challenge": CHALLENGE}
    query = "&".join(f"{name}={value}" for name, value in {**asked, "code_challenge_method": "S256"}.items())
    with pytest.raises(RefusedRequest) as refused:
        run_now(house.authority.read_authorization(query.replace('"', "%22").replace("é", "%C3%A9")))
    assert refused.value.location.startswith(f"{REDIRECT}?error=unsupported_response_type&iss=")


def test_pkce_is_for_clients_with_a_secret_too(house):
    """authlib's `required` means public clients, and its default method is plain."""
    assert CodeChallenge.DEFAULT_CODE_CHALLENGE_METHOD == "plain"
    definition = ClientDefinition(name="confidential", kind="application", redirect_uris=(REDIRECT,))
    issued = house.registry.create(definition, actor="t")
    auth, client_id = basic(issued.client.client_id, issued.secret), issued.client.client_id
    house.refused("invalid_grant", house.exchange(house.code(client_id=client_id), code_verifier=None), auth=auth)
    plain = house.code(client_id=client_id, challenge="v" * 43)
    house.refused("invalid_grant", house.exchange(plain), auth=auth)
    assert house.token(house.exchange(house.code(client_id=client_id)), auth=auth)[0] == 200


def test_a_device_code_is_good_once(house, clock):
    """authlib has no step that spends it."""
    assert not any("delete" in name or "revoke" in name for name in vars(DeviceCodeGrant))
    begun = begin_device(house)
    grant = house.authority.interactions.find_device(begun["user_code"])
    grant.state, grant.user_id, grant.auth_time = "approved", house.user.user_id, int(clock.now)
    fields = {"grant_type": DEVICE_GRANT, "device_code": begun["device_code"]}
    assert house.token(fields)[0] == 200
    clock.now += 60
    house.refused("invalid_grant", fields)


def test_a_hint_that_nobody_knows_is_ignored(house):
    """RFC 7009 section 2.1; authlib answers 401 with an error that is for something else."""
    with pytest.raises(Exception, match="unsupported_token_type"):
        RevocationEndpoint().check_params(type("Request", (), {"form": {"token": "x", "token_type_hint": "y"}}), None)
    fields = {"client_id": house.app.client_id, "token": "x", "token_type_hint": "nonsense"}
    assert house.ask("revocation", fields) == (200, None)
    for endpoint in ("revocation", "introspection"):
        auth = house.by_service()
        assert house.ask(endpoint, {"token_type_hint": "access_token"}, auth=auth)[1]["error"] == "invalid_request"


def test_an_assertion_with_a_claim_twice_is_refused(house, key, clock):
    """authlib reads assertions with a parser that takes the last one."""
    jwks = json.dumps({"keys": [key.as_dict(private=False)]})
    definition = ClientDefinition(name="keyed", auth_method="private_key_jwt", jwks=jwks)
    client_id = house.registry.create(definition, actor="t").client.client_id

    class Doubled(dict):
        """`iss` twice in JSON."""

        def items(self):
            return [("iss", "somebody"), *super().items()]

    claims = {"iss": client_id, "sub": client_id, "aud": house.authority.issuer, "exp": int(clock.now) + 60, "jti": "a"}
    fields = {"grant_type": "client_credentials", "client_assertion_type": ASSERTION_TYPE}
    doubled = sign(Doubled(claims), key, {"alg": "ES256"})
    assert house.token({**fields, "client_assertion": sign(claims, key, {"alg": "ES256"})})[0] == 200
    assert house.token({**fields, "client_assertion": doubled})[0] == 401


def test_a_proof_that_does_not_hold_costs_no_code(house, key, clock):
    """What holds for every grant is seen to before the grant spends anything."""
    code = house.code()
    house.refused("invalid_dpop_proof", house.exchange(code), proofs=[proof_by(key, clock, method="GET")])
    house.refused("invalid_target", {**house.exchange(code), "resource": "https://other.example"})
    assert house.token(house.exchange(code))[0] == 200


def test_a_request_is_authenticated_once(house, key, clock):
    """An assertion and a proof are good once, and authlib's device grant is run so that it asks twice."""
    jwks = json.dumps({"keys": [key.as_dict(private=False)]})
    definition = ClientDefinition(name="tv", kind="application", auth_method="private_key_jwt", jwks=jwks)
    client_id = house.registry.create(definition, actor="t").client.client_id

    def signed(number):
        claims = {"iss": client_id, "sub": client_id, "aud": house.authority.issuer, "exp": int(clock.now) + 60}
        assertion = sign({**claims, "jti": f"j{number}"}, key, {"alg": "ES256"})
        return {"client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion}

    begun = house.ask("device_authorization", signed(1))[1]
    fields = {"grant_type": DEVICE_GRANT, "device_code": begun["device_code"], **signed(2)}
    house.refused("authorization_pending", fields, proofs=[proof_by(key, clock)])


class Waiting:
    """Facts that let somebody else in before they answer."""

    def __init__(self, facts, meanwhile=lambda: None):
        self._facts = facts
        self._meanwhile = meanwhile

    async def find_client(self, client_id):
        await asyncio.sleep(0)
        return await self._facts.find_client(client_id)

    async def find_user(self, login):
        await asyncio.sleep(0)
        self._meanwhile()
        return await self._facts.find_user(login)

    async def revoke(self, *arguments, **options):
        await asyncio.sleep(0)
        await self._facts.revoke(*arguments, **options)


async def ask(house, fields):
    pending = house.authority.parse("token", house.request({**fields, "client_id": house.app.client_id}))
    return await house.authority.answer(pending, await house.authority.look_up(pending))


async def test_of_many_requests_with_one_code_one_gets_tokens_and_loses_them(house):
    """Decided one after the other, whatever was waited for before; the second is a replay."""
    house.authority._facts = Waiting(house.facts)
    answers = await asyncio.gather(*(ask(house, house.exchange(code)) for code in [house.code()] * 8))
    assert sorted(answer.status for answer in answers) == [200] + [400] * 7
    body = json.loads(next(answer.body for answer in answers if answer.status == 200))
    assert all(answer.reused_by == house.user.user_id for answer in answers if answer.status == 400)
    house.authority._facts = house.facts
    house.refused("invalid_grant", {"grant_type": "refresh_token", "refresh_token": body["refresh_token"]})


async def test_of_many_requests_with_one_refresh_token_one_gets_tokens(house):
    """And its family ends with the second."""
    token = house.session()["refresh_token"]
    house.authority._facts = Waiting(house.facts)
    fields = {"grant_type": "refresh_token", "refresh_token": token}
    answers = await asyncio.gather(*(ask(house, fields) for _ in range(8)))
    assert sorted(answer.status for answer in answers) == [200] + [400] * 7
    body = json.loads(next(answer.body for answer in answers if answer.status == 200))
    house.authority._facts = house.facts
    house.refused("invalid_grant", {"grant_type": "refresh_token", "refresh_token": body["refresh_token"]})


async def test_who_is_confirmed_while_we_wait_is_looked_up_as_well(house, clock):
    """A device's code is confirmed between its question and our answer: it gets its token and not an error."""
    begun = begin_device(house)
    grant = house.authority.interactions.find_device(begun["user_code"])

    class Confirming(Waiting):
        async def find_client(self, client_id):
            grant.state, grant.user_id, grant.auth_time = "approved", house.user.user_id, int(clock.now)
            return await super().find_client(client_id)

    house.authority._facts = Confirming(house.facts)
    answer = await ask(house, {"grant_type": DEVICE_GRANT, "device_code": begun["device_code"]})
    assert answer.status == 200


def test_what_was_not_looked_up_is_never_guessed(house):
    """A grant for a person of whom nobody asked is a mistake of ours, not an answer."""
    pending = house.authority.parse("token", house.request(house.exchange(house.code(), client_id=house.app.client_id)))
    with pytest.raises(KeyError):
        run_now(house.authority.answer(pending, Known(house.app, {})))


def test_a_foreign_clients_question_does_not_slow_a_device_down(house):
    """Nor tells it whether the code is known."""
    begun = begin_device(house)
    other = house.registry.create(ClientDefinition(name="o", kind="application", auth_method="none"), actor="t").client
    fields = {"grant_type": DEVICE_GRANT, "device_code": begun["device_code"]}
    for _ in range(3):
        house.refused("invalid_grant", {**fields, "client_id": other.client_id})
    house.refused("authorization_pending", fields)


def test_an_exchange_answers_without_a_refresh_token(house):
    """RFC 8693 section 2.2.1, by an extension grant: authlib's own package for it is empty."""
    fields = {
        "grant_type": EXCHANGE_GRANT,
        "subject_token": house.session()["access_token"],
        "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
    }
    status, body, answer = house.token(fields, auth=house.by_service())
    assert (status, "refresh_token" in body, answer.minted.subject) == (200, False, house.user.user_id)
