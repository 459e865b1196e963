"""Services that act for people, and who may ask about or void which token."""

import base64
import json

import pytest
from joserfc.jwk import ECKey

from security.clients import ClientDefinition
from security.oauth.grant_types import ACCESS_TOKEN_TYPE, EXCHANGE_GRANT
from security.registry.roles import RoleRegistry
from security.registry.snapshot import read_definitions
from security.registry.tables import USERS
from security.scopes import Role, Scope
from tests.support.authority import basic
from tests.support.controls import control
from tests.support.oauth_house import REDIRECT, RESOURCE, proof_by, sign, validate


def exchange_of(token, **changes):
    fields = {"grant_type": EXCHANGE_GRANT, "subject_token": token, "subject_token_type": ACCESS_TOKEN_TYPE, **changes}
    return {name: value for name, value in fields.items() if value is not None}


@control("3.3.2")
async def test_a_service_acts_for_a_person(house, issuer, clock):
    """RFC 8693: `sub` stays, `act` names the service, nothing lives longer, nothing is more."""
    subject = house.session()["access_token"]
    clock.now += 100
    status, body, _ = house.token(exchange_of(subject, scope="inference", resource=RESOURCE), auth=house.by_service())
    assert status == 200, body
    assert (body["issued_token_type"], body["expires_in"], body["scope"]) == (ACCESS_TOKEN_TYPE, 500, "inference")
    assert "refresh_token" not in body
    # Section 2.1: the target may be named in two ways, and more than once.
    assert house.token(exchange_of(subject, audience=[RESOURCE, RESOURCE]), auth=house.by_service())[0] == 200
    accepted = await validate(issuer, body["access_token"])
    assert (accepted.subject, accepted.client_id) == (house.user.user_id, house.service.client.client_id)
    assert accepted.actors == (house.service.client.client_id, house.app.client_id)
    house.registry.users.disable("ada", actor="t")
    house.refused("invalid_request", exchange_of(subject), auth=house.by_service())


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"subject_token": None}, "invalid_request"),
        ({"subject_token_type": None}, "invalid_request"),
        ({"subject_token_type": "urn:ietf:params:oauth:token-type:saml2"}, "invalid_request"),
        ({"subject_token": "nonsense"}, "invalid_request"),
        ({"requested_token_type": "urn:ietf:params:oauth:token-type:refresh_token"}, "invalid_request"),
        ({"actor_token": "x"}, "invalid_request"),
        ({"actor_token": "x", "actor_token_type": ACCESS_TOKEN_TYPE}, "invalid_request"),
        ({"audience": "https://other.example"}, "invalid_target"),
        ({"audience": [RESOURCE, "https://other.example"]}, "invalid_target"),
        ({"scope": "audit.read"}, "invalid_scope"),
    ],
)
def test_exchanges_are_refused_as_the_rfc_says(house, changes, error):
    """RFC 8693 section 2.2.2."""
    house.refused(error, exchange_of(house.session()["access_token"], **changes), auth=house.by_service())


def test_an_actor_is_the_service_that_asks(house):
    """RFC 8693 section 2.1: it may say so by a token of its own, and by nobody else's, nor by one of another type."""
    subject = house.session()["access_token"]
    own, other = (
        house.token({"grant_type": "client_credentials"}, auth=auth)[1]["access_token"]
        for auth in (house.by_service(), _service(house))
    )
    saml = "urn:ietf:params:oauth:token-type:saml2"
    good = exchange_of(subject, actor_token=own, actor_token_type=ACCESS_TOKEN_TYPE)
    assert house.token(good, auth=house.by_service())[0] == 200
    for token, kind in ((other, ACCESS_TOKEN_TYPE), (subject, ACCESS_TOKEN_TYPE), (own, saml), (None, saml)):
        wrong = exchange_of(subject, actor_token=token, actor_token_type=kind)
        house.refused("invalid_request", wrong, auth=house.by_service())


def _service(house):
    made = house.registry.create(ClientDefinition(name="s"), actor="t")
    return basic(made.client.client_id, made.secret)


def test_a_token_of_before_a_change_of_role_is_not_exchanged(house):
    """Whatever revocations say: what it would give is another role's."""
    subject = house.session()["access_token"]
    RoleRegistry(house.registry.database).grant(house.user.user_id, Role.OPERATOR, actor="t")
    told = house.refused("invalid_request", exchange_of(subject), auth=house.by_service())
    assert "change of role" in told["error_description"]


def test_a_person_who_went_to_another_tenant_is_nobody_to_act_for(house):
    """The token is of the tenant before, as the service is; the person is not any more."""
    subject = house.session()["access_token"]
    with house.registry.database.transaction() as connection:
        connection.execute(USERS.update().values(tenant="other"))
    house.refused("invalid_request", exchange_of(subject), auth=house.by_service())


def test_a_service_cannot_exchange_its_own_token_nor_one_of_another_tenant(house):
    """There is nobody it would act for."""
    own = house.token({"grant_type": "client_credentials"}, auth=house.by_service())[1]["access_token"]
    house.refused("invalid_request", exchange_of(own), auth=house.by_service())
    other = house.registry.create(ClientDefinition(name="s", tenant="other"), actor="t")
    house.refused(
        "invalid_request",
        exchange_of(house.session()["access_token"]),
        auth=basic(other.client.client_id, other.secret),
    )
    house.refused("unauthorized_client", exchange_of(house.session()["access_token"]))


def test_nobody_is_left_out_of_a_long_chain(house):
    """A token that more services passed on than it can name is refused, not made without the first of them."""
    token, chain = house.session()["access_token"], [house.app.client_id]
    for _ in range(3):
        service = house.registry.create(ClientDefinition(name="s"), actor="t")
        status, body, answer = house.token(exchange_of(token), auth=basic(service.client.client_id, service.secret))
        chain, token = [service.client.client_id, *chain], body["access_token"]
        assert (status, list(answer.minted.actors)) == (200, chain)
    assert (
        "too often"
        in house.refused("invalid_request", exchange_of(token), auth=house.by_service())["error_description"]
    )


def test_an_exchanged_token_ends_with_each_through_whose_hands_it_came(house):
    """Whoever cuts off a program that was broken into means what others got by it, too."""
    first = house.registry.create(ClientDefinition(name="first"), actor="t")
    subject = house.session()["access_token"]
    auth = basic(first.client.client_id, first.secret)
    middle = house.token(exchange_of(subject), auth=auth)[1]["access_token"]
    last = house.token(exchange_of(middle), auth=house.by_service())[1]["access_token"]
    assert _active(house, last)
    house.registry.disable(first.client.client_id, actor="t")
    house.facts.revocations.replace(read_definitions(house.registry.database).revocations)
    assert [_active(house, one) for one in (subject, middle, last)] == [True, False, False]


def test_a_bound_token_cannot_be_exchanged_for_a_loose_one(house, key, clock):
    """Or a thief of the copy would have only to find a service."""
    bound = house.session(proofs=[proof_by(key, clock)])["access_token"]
    house.refused("invalid_request", exchange_of(bound), auth=house.by_service())
    status, body, _ = house.token(exchange_of(bound), auth=house.by_service(), proofs=[proof_by(key, clock, again=1)])
    assert (status, body["token_type"]) == (200, "DPoP")


def test_revocation_is_for_a_clients_own_tokens(house):
    """RFC 7009: 200 whatever is not known; a refresh token takes its access tokens along."""
    body = house.session()
    revoke = "revocation"
    mine = {"client_id": house.app.client_id}
    assert house.ask(revoke, {**mine, "token": "unknown"}) == (200, None)
    assert house.ask(revoke, {**mine, "token": "cmr-unknown", "token_type_hint": "refresh_token"}) == (200, None)
    for token in (body["access_token"], body["refresh_token"]):
        status, refusal = house.ask(revoke, {"token": token}, auth=house.by_service())
        assert (status, refusal["error"]) == (400, "invalid_grant")
    assert _active(house, body["access_token"])
    assert house.ask(revoke, {**mine, "token": body["refresh_token"]}) == (200, None)
    assert not _active(house, body["access_token"])
    house.refused("invalid_grant", {"grant_type": "refresh_token", "refresh_token": body["refresh_token"]})
    other = house.session()["access_token"]
    assert house.ask(revoke, {**mine, "token": other}) == (200, None)
    assert not _active(house, other)
    assert house.ask(revoke, {"client_id": "nobody", "token": other})[0] == 401


@pytest.mark.parametrize(
    "header",
    [
        {}, {"alg": "none"}, {"alg": "HS256"}, {"alg": "Ed25519"}, {"kid": "other"}, {"typ": "JWT"}, {"typ": ...}, {"jwk": {}},
        {"crit": ["x"]},
    ],
)  # fmt: skip
def test_the_authority_takes_no_token_that_it_did_not_sign(house, issuer, header):
    """Neither in exchange nor for active: one by another key that is right in all else, and its own under another header."""
    good = house.session()["access_token"]
    head, claims, _ = (json.loads(base64.urlsafe_b64decode(part + "==")) if part else "" for part in _parts(good))
    assert house.token(exchange_of(good), auth=house.by_service())[0] == 200
    key = issuer.keys.current.key if header else ECKey.generate_key("P-256")
    wrong = sign(claims, key, head | header, head["alg"])
    house.refused("invalid_request", exchange_of(wrong), auth=house.by_service())
    assert not _active(house, wrong)
    assert _active(house, good)


def _parts(token):
    head, claims, _signature = token.split(".")
    return head, claims, ""


def _introspect(house, token):
    house.watch = getattr(house, "watch", None) or house.registry.create(
        ClientDefinition(name="watch", role=Role.OPERATOR, scopes=frozenset({Scope.TOKENS_INTROSPECT})), actor="t"
    )
    auth = basic(house.watch.client.client_id, house.watch.secret)
    return house.ask("introspection", {"token": token}, auth=auth)


def _active(house, token):
    status, body = _introspect(house, token)
    assert status == 200
    return body["active"]


def test_introspection_tells_all_of_an_active_token_and_nothing_of_others(house, clock, key):
    """RFC 7662 section 2.2."""
    body = house.session(proofs=[proof_by(key, clock)])
    _, told = _introspect(house, body["access_token"])
    assert told["active"] is True
    assert (told["sub"], told["client_id"], told["token_type"]) == (house.user.user_id, house.app.client_id, "DPoP")
    assert told["cnf"] == {"jkt": key.thumbprint()}
    assert told["username"] == house.user.login
    refresh = _introspect(house, body["refresh_token"])[1]
    assert (refresh["active"], refresh["sub"]) == (True, house.user.user_id)
    assert "token_type" not in refresh, "RFC 6749 section 5.1 has no name for it"
    clock.now += 601
    for token in (body["access_token"], "nonsense", "cmr-nonsense", "a.b.c"):
        assert _introspect(house, token) == (200, {"active": False})


def test_introspection_is_for_who_may(house):
    """Without the scope a service sees its own tokens only; a public client none."""
    own = house.token({"grant_type": "client_credentials"}, auth=house.by_service())[1]["access_token"]
    foreign = house.session()["access_token"]
    ask = "introspection"
    assert house.ask(ask, {"token": own}, auth=house.by_service())[1]["active"] is True
    assert house.ask(ask, {"token": foreign}, auth=house.by_service()) == (200, {"active": False})
    status, body = house.ask(ask, {"token": foreign, "client_id": house.app.client_id})
    assert (status, body["error"]) == (400, "unauthorized_client")
    assert house.ask(ask, {"token": foreign})[0] == 401


def test_an_application_sees_its_own_tokens_only_whatever_people_may_do_with_it(house):
    """By default an application may have every scope, for the people who sign in: by itself it may use none of them."""
    made = house.registry.create(ClientDefinition(name="web", kind="application", redirect_uris=(REDIRECT,)), actor="t")
    assert Scope.TOKENS_INTROSPECT in made.client.scopes
    foreign, auth = house.session()["access_token"], basic(made.client.client_id, made.secret)
    assert house.ask("introspection", {"token": foreign}, auth=auth) == (200, {"active": False})
