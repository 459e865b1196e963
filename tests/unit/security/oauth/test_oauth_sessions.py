"""Refresh tokens that turn over, and devices that wait for a person."""

import sqlite3
from contextlib import closing

import pytest

from security.clients import ClientDefinition
from security.errors import RegistryUnusable, SecurityUnavailable
from security.oauth.grant_types import DEVICE_GRANT
from security.oauth.interactions import MAX_DEVICES_PER_SOURCE
from security.oauth.refresh_store import RefreshStore
from security.registry.snapshot import read_definitions
from security.scopes import Role
from tests.support.authority import basic
from tests.support.controls import control
from tests.support.oauth_house import REDIRECT


@control("3.5.4", "IA-2(8)")
def test_refresh_tokens_turn_over_and_each_is_good_once(house):
    """RFC 9700 section 4.14.2: one that comes back ends the family, the newest included."""
    first = house.session()["refresh_token"]
    status, second, _ = house.token({"grant_type": "refresh_token", "refresh_token": first})
    assert (status, second["refresh_token"] != first) == (200, True)
    _, third, _ = house.token({"grant_type": "refresh_token", "refresh_token": second["refresh_token"]})
    _, body, answer = house.token({"grant_type": "refresh_token", "refresh_token": first})
    assert (body["error"], answer.reused_by) == ("invalid_grant", house.user.user_id)
    house.refused("invalid_grant", {"grant_type": "refresh_token", "refresh_token": third["refresh_token"]})


def test_a_refresh_may_ask_for_less_never_for_more(house):
    """RFC 6749 section 6; a mistake does not cost the token."""
    token = house.session()["refresh_token"]
    house.refused("invalid_scope", {"grant_type": "refresh_token", "refresh_token": token, "scope": "audit.read"})
    status, body, _ = house.token({"grant_type": "refresh_token", "refresh_token": token, "scope": "inference"})
    assert (status, body["scope"]) == (200, "inference")
    _, again, _ = house.token({"grant_type": "refresh_token", "refresh_token": body["refresh_token"]})
    assert again["scope"] == "inference models.read"


@control("3.1.11", "3.13.9", "AC-2(5)", "AC-12", "IA-11", "SC-10")
def test_refresh_tokens_end_when_idle_and_with_the_session(house, clock):
    """Whatever is used, the person signs in again."""
    idle = house.session()["refresh_token"]
    token = house.session()["refresh_token"]
    for _ in range(10):
        clock.now += 3599
        _, body, _ = house.token({"grant_type": "refresh_token", "refresh_token": token})
        token = body["refresh_token"]
    house.refused("invalid_grant", {"grant_type": "refresh_token", "refresh_token": idle})
    assert body["expires_in"] == 10
    clock.now += 20
    house.refused("invalid_grant", {"grant_type": "refresh_token", "refresh_token": token})


def test_refresh_tokens_are_their_clients_and_end_with_the_person(house):
    """Another client's attempt does not spend it; a disabled person's is worth nothing."""
    other = house.registry.create(ClientDefinition(name="o", kind="application", auth_method="none"), actor="t").client
    token = house.session()["refresh_token"]
    fields = {"grant_type": "refresh_token", "refresh_token": token}
    house.refused("invalid_grant", {**fields, "client_id": other.client_id})
    for nonsense in ("", "x", "cmr-" + "A" * 43, token + "x"):
        house.refused("invalid_grant" if nonsense else "invalid_request", {**fields, "refresh_token": nonsense})
    house.registry.users.disable("ada", actor="t")
    house.refused("invalid_grant", fields)


CUTS = {
    "a reset": lambda house: house.registry.users.reset("ada", actor="t"),
    "disabled for a while": lambda house: (
        house.registry.users.disable("ada", actor="t"),
        house.registry.users.enable("ada", actor="t"),
    ),
    "another role": lambda house: house.registry.roles.grant("ada", Role.ADMIN, actor="t"),
    "the application disabled for a while": lambda house: (
        house.registry.disable(house.app.client_id, actor="t"),
        house.registry.enable(house.app.client_id, actor="t"),
    ),
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
@control("3.1.11", "3.9.2", "AC-2(13)", "AC-12")
def test_what_a_person_had_signed_in_to_ends_with_a_cut(house, clock, cut):
    """Whoever had stolen a session goes on with none of it: neither its refresh token, nor a code or device agreed to before."""
    token, code, device = house.session()["refresh_token"], house.code(), begin(house)[1]
    grant = house.authority.interactions.find_device(device["user_code"])
    grant.state, grant.user_id, grant.auth_time = "approved", house.user.user_id, int(clock.now)
    watch = house.registry.create(ClientDefinition(name="watch", role=Role.OPERATOR), actor="t")
    ask = {"token": token}, {"auth": basic(watch.client.client_id, watch.secret)}
    assert house.ask("introspection", ask[0], **ask[1])[1]["active"] is True
    clock.now += 10
    cut(house)
    house.facts.revocations.replace(read_definitions(house.registry.database).revocations)
    assert house.ask("introspection", ask[0], **ask[1])[1] == {"active": False}
    house.refused("invalid_grant", {"grant_type": "refresh_token", "refresh_token": token})
    house.refused("invalid_grant", house.exchange(code))
    assert poll(house, device["device_code"])[1]["error"] == "invalid_grant"
    clock.now += 1
    assert house.session()["refresh_token"]


def test_a_refresh_token_survives_a_restart_and_is_in_no_file(house, tmp_path):
    """Only its hash is stored."""
    token = house.session()["refresh_token"]
    files = sorted(tmp_path.glob("sessions.sqlite*"))
    assert [path.name for path in files] == ["sessions.sqlite", "sessions.sqlite-shm", "sessions.sqlite-wal"]
    assert all(token.encode() not in path.read_bytes() for path in files)
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}

    again = RefreshStore.open(tmp_path / "sessions.sqlite", clock=house.clock)
    assert again.look(token).grant.user_id == house.user.user_id
    again.close()


def test_a_file_of_an_earlier_version_is_brought_up_to_date(house, tmp_path):
    """Sessions go on; what is new is made. A later version's is refused."""
    token = house.session()["refresh_token"]
    path = tmp_path / "sessions.sqlite"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DROP TABLE people")
        connection.execute("DROP TABLE passkey_counters")
        connection.execute("DROP TABLE used_once")
        connection.execute("PRAGMA user_version = 1")
    again = RefreshStore.open(path, clock=house.clock)
    assert again.look(token).grant.user_id == house.user.user_id
    assert again.advance_counter(b"key", 1)
    again.note_person(house.user)
    assert again.find_person(house.user.user_id) == house.user
    assert again.find_person("corp:nobody") is None
    house.clock.now += 32 * 86_400
    again.forget_expired()
    assert again.find_person(house.user.user_id) is None
    again.close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA user_version = 5")
    with pytest.raises(RegistryUnusable, match="later"):
        RefreshStore.open(path, clock=house.clock)


@control("AC-12", "3.1.11")
@pytest.mark.parametrize("is_reuse", [False, True])
def test_what_could_not_be_voided_is_voided_by_the_next_revocation(house, monkeypatch, is_reuse):
    """RFC 7009 section 2.2.1: a client that got 503 asks again, and 200 then means that the session's access tokens are void."""
    told, tell = [], house.facts.revoke

    async def fail(*_, **__):
        raise SecurityUnavailable("the disk is full")

    async def note(kind, value, *rest, **named):
        told.append(kind)
        await tell(kind, value, *rest, **named)

    first = house.session()["refresh_token"]
    revoke = {"token": first, "client_id": house.app.client_id}
    renew = {"grant_type": "refresh_token", "refresh_token": first}
    if is_reuse:
        house.token(renew)
    monkeypatch.setattr(house.facts, "revoke", fail)
    for _ in range(2):
        with pytest.raises(SecurityUnavailable):
            house.token(renew) if is_reuse and not told else house.ask("revocation", revoke)
        told.append("failed")
    monkeypatch.setattr(house.facts, "revoke", note)
    assert house.ask("revocation", revoke)[0] == 200
    assert told[2:] == ["session"]
    assert house.ask("revocation", revoke)[0] == 200
    assert told[2:] == ["session"]


def test_what_was_spent_for_an_answer_that_does_not_leave_is_as_it_was(house):
    """The client may ask again, with the code as with the refresh token; what came of it is nobody's."""
    code = house.code()
    _, lost, answer = house.token(house.exchange(code))
    answer.take_back()
    house.refused("invalid_grant", {"grant_type": "refresh_token", "refresh_token": lost["refresh_token"]})
    _, got, _ = house.token(house.exchange(code))
    renew = {"grant_type": "refresh_token", "refresh_token": got["refresh_token"]}
    _, lost, answer = house.token(renew)
    answer.take_back()
    house.refused("invalid_grant", {"grant_type": "refresh_token", "refresh_token": lost["refresh_token"]})
    status, new, _ = house.token(renew)
    assert status == 200
    assert house.token(renew)[2].reused_by == house.user.user_id
    house.refused("invalid_grant", {"grant_type": "refresh_token", "refresh_token": new["refresh_token"]})


def test_a_device_whose_tokens_do_not_leave_may_ask_again(house, clock):
    """At once, and once."""
    device = begin(house)[1]
    grant = house.authority.interactions.find_device(device["user_code"])
    grant.state, grant.user_id, grant.auth_time = "approved", house.user.user_id, int(clock.now)
    _, lost, answer = poll(house, device["device_code"])
    answer.take_back()
    house.refused("invalid_grant", {"grant_type": "refresh_token", "refresh_token": lost["refresh_token"]})
    assert poll(house, device["device_code"])[0] == 200
    assert poll(house, device["device_code"])[1]["error"] == "invalid_grant"


def test_a_code_that_is_given_back_lives_no_longer(house, clock):
    """Though younger codes were kept meanwhile."""
    code = house.code()
    clock.now += 30
    house.code()
    _, _, answer = house.token(house.exchange(code))
    answer.take_back()
    clock.now += 31
    house.refused("invalid_grant", house.exchange(code))


def test_no_token_is_given_that_is_void_already(house, clock):
    """Whoever was cut off and let in again within a second waits for the next."""
    house.registry.disable(house.service.client.client_id, actor="t")
    house.registry.enable(house.service.client.client_id, actor="t")
    house.facts.revocations.replace(read_definitions(house.registry.database).revocations)
    fields = {"grant_type": "client_credentials"}
    status, body, _ = house.token(fields, auth=house.by_service())
    assert (status, body["error"]) == (503, "temporarily_unavailable")
    clock.now += 1
    assert house.token(fields, auth=house.by_service())[0] == 200


def test_what_was_refused_stays_spent(house):
    """A guess at the verifier costs the code."""
    code = house.code()
    _, _, answer = house.token(house.exchange(code, code_verifier="x" * 43))
    assert (answer.error, answer.taken) == ("invalid_grant", ())
    house.refused("invalid_grant", house.exchange(code))


def test_nobody_ends_a_session_with_what_is_anothers(house):
    """Another client that presents a code or a refresh token of this one spends no token, and voids none."""
    code = house.code()
    first = house.token(house.exchange(code))[1]["refresh_token"]
    made = ClientDefinition(name="o", kind="application", auth_method="none", redirect_uris=(REDIRECT,))
    other = house.registry.create(made, actor="t").client.client_id
    house.refused("invalid_grant", {**house.exchange(code), "client_id": other})
    house.refused("invalid_grant", {"grant_type": "refresh_token", "refresh_token": first, "client_id": other})
    second = house.token({"grant_type": "refresh_token", "refresh_token": first})[1]["refresh_token"]
    house.refused("invalid_grant", {"grant_type": "refresh_token", "refresh_token": second, "client_id": other})
    assert house.token({"grant_type": "refresh_token", "refresh_token": second})[0] == 200


def begin(house, **fields):
    return house.ask("device_authorization", {"client_id": house.app.client_id, **fields})


def poll(house, code):
    return house.token({"grant_type": DEVICE_GRANT, "device_code": code})


def test_a_device_waits_for_a_person(house, clock):
    """RFC 8628: pending, then a token, once."""
    status, body = begin(house, scope="inference")
    assert status == 200
    assert body.keys() == {
        "device_code", "user_code", "verification_uri", "verification_uri_complete", "expires_in", "interval",
    }  # fmt: skip
    assert poll(house, body["device_code"])[1]["error"] == "authorization_pending"
    grant = house.authority.interactions.find_device(body["user_code"].lower().replace("-", " "))
    grant.state, grant.user_id, grant.auth_time = "approved", house.user.user_id, int(clock.now)
    clock.now += 5
    status, token, _ = poll(house, body["device_code"])
    assert (status, token["scope"]) == (200, "inference")
    assert "refresh_token" in token
    clock.now += 5
    assert poll(house, body["device_code"])[1]["error"] == "invalid_grant"


@pytest.mark.parametrize("state", ["approved", "denied", "pending"])
def test_nobody_decides_about_a_device_twice_or_too_late(house, clock, state):
    """Whoever has read its code over a shoulder cannot make it theirs after its owner has decided."""
    interactions, shown = house.authority.interactions, begin(house)[1]["user_code"]
    interactions.find_device(shown).state = state
    clock.now += 599
    assert (interactions.find_device(shown) is None) is (state != "pending")
    clock.now += 1
    assert interactions.find_device(shown) is None


def test_a_device_that_asks_too_often_must_slow_down(house, clock):
    """RFC 8628 section 3.5: five seconds more each time."""
    code = begin(house)[1]["device_code"]
    assert poll(house, code)[1]["error"] == "authorization_pending"
    clock.now += 4
    assert poll(house, code)[1]["error"] == "slow_down"
    clock.now += 9
    assert poll(house, code)[1]["error"] == "slow_down"
    clock.now += 15
    assert poll(house, code)[1]["error"] == "authorization_pending"


def test_one_address_cannot_take_the_place_of_all_devices(house, clock):
    """Who may begin is anybody who knows an application's id; its places come back when they are used or old."""
    interactions = house.authority.interactions
    for number in range(MAX_DEVICES_PER_SOURCE):
        assert interactions.add_device(f"d-{number}", f"code-{number}", "c", "s", "192.0.2.1")
    assert not interactions.add_device("one-more", "code-x", "c", "s", "192.0.2.1")
    assert interactions.add_device("elsewhere", "code-y", "c", "s", "192.0.2.2")
    interactions.spend_device("d-0")
    assert interactions.add_device("one-more", "code-x", "c", "s", "192.0.2.1")
    clock.now += 1201
    for number in range(MAX_DEVICES_PER_SOURCE):
        assert interactions.add_device(f"e-{number}", f"code-{number}", "c", "s", "192.0.2.1")


def test_a_device_code_expires_and_can_be_refused(house, clock):
    """expired_token and access_denied; of another client it is none."""
    first, second = begin(house)[1], begin(house)[1]
    house.authority.interactions.find_device(second["user_code"]).state = "denied"
    assert poll(house, second["device_code"])[1]["error"] == "access_denied"
    assert poll(house, second["device_code"])[1]["error"] == "invalid_grant"
    other = house.registry.create(ClientDefinition(name="o", kind="application", auth_method="none"), actor="t").client
    fields = {"grant_type": DEVICE_GRANT, "device_code": first["device_code"], "client_id": other.client_id}
    house.refused("invalid_grant", fields)
    clock.now += 600
    assert poll(house, first["device_code"])[1]["error"] == "expired_token"
    house.refused("invalid_request", {"grant_type": DEVICE_GRANT})


def test_device_authorization_errors(house):
    """A service has no people; unknown scopes and other resources are refused."""
    assert begin(house, scope="nonsense")[1]["error"] == "invalid_scope"
    assert begin(house, resource="https://other.example")[1]["error"] == "invalid_target"
    assert house.ask("device_authorization", {}, auth=house.by_service())[1]["error"] == "unauthorized_client"
    assert house.ask("device_authorization", {"client_id": "nobody"})[0] == 401
