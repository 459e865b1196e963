"""Privileged roles need two people, and a change of role ends what was given out before."""

import json

import msgspec
import pytest

from security.clients import ClientDefinition
from security.errors import ClientRejected
from security.registry.snapshot import read_definitions
from security.scopes import GRANTABLE, PRIVILEGED_ROLES, Role
from security.users import UserDefinition
from tests.support.controls import control


@pytest.fixture
def strict(registry):
    registry.roles.set_two_person(True, actor="configuration")
    return registry


@control("3.1.5", "AC-6", "AC-6(5)")
def test_privileged_is_every_role_but_user():
    """A new role would have to be looked at."""
    assert {Role.OPERATOR, Role.STEWARD, Role.AUDITOR, Role.ADMIN} == PRIVILEGED_ROLES


@control("3.1.4", "3.4.5", "AC-5", "AC-6(5)", "CM-3(1)", "CM-5", "CM-5(1)")
@pytest.mark.parametrize("role", sorted(PRIVILEGED_ROLES))
def test_a_second_person_must_agree(strict, role):
    """Until then the old role stays; whoever asked cannot agree, under whatever way of asking."""
    strict.users.create(UserDefinition(login="bob", name="Bob"), actor="os:ada")
    asked = strict.roles.grant("bob", role, actor="os:ada")
    assert (asked.role, asked.pending_role, asked.is_disabled) == (Role.USER, role, False)
    with pytest.raises(ClientRejected, match="another person"):
        strict.roles.approve("bob", actor="os:ada")
    agreed = strict.roles.approve("bob", actor="os:eve")
    assert (agreed.role, agreed.granted_by, agreed.approved_by) == (role, "os:ada", "os:eve")
    assert (agreed.pending_role, agreed.pending_by) == (None, None)
    with pytest.raises(ClientRejected, match="no role that waits"):
        strict.roles.approve("bob", actor="os:eve")


def test_the_second_person_agrees_to_what_they_saw(strict):
    """The first one may have asked for another role between their look and their word."""
    strict.users.create(UserDefinition(login="bob", name="Bob"), actor="os:ada")
    strict.roles.grant("bob", Role.STEWARD, actor="os:ada")
    strict.roles.grant("bob", Role.ADMIN, actor="os:ada")
    with pytest.raises(ClientRejected, match="the role admin, not steward"):
        strict.roles.approve("bob", actor="os:eve", role=Role.STEWARD)
    assert strict.roles.approve("bob", actor="os:eve", role=Role.ADMIN).role is Role.ADMIN
    made = strict.create(ClientDefinition(name="watch", role=Role.OPERATOR), actor="os:ada").client
    with pytest.raises(ClientRejected, match="the role operator"):
        strict.roles.approve(made.client_id, actor="os:eve", role=Role.AUDITOR)
    assert not strict.roles.approve(made.client_id, actor="os:eve", role=Role.OPERATOR).is_disabled


def test_a_new_client_with_a_privileged_role_waits(strict):
    """It exists, and can do nothing."""
    made = strict.create(ClientDefinition(name="watch", role=Role.OPERATOR), actor="os:ada").client
    assert made.is_disabled
    assert [one.client_id for one in strict.roles.pending()] == [made.client_id]
    with pytest.raises(ClientRejected, match="another person"):
        strict.roles.approve(made.client_id, actor="os:ada")
    assert not strict.roles.approve(made.client_id, actor="os:eve").is_disabled
    assert strict.roles.pending() == []


KEYS = '{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}]}'
REPLACEMENTS = {
    "secret": (
        ClientDefinition(name="a", role=Role.AUDITOR),
        lambda registry, name: registry.rotate(name, actor="os:eve"),
    ),
    "keys": (
        ClientDefinition(name="a", role=Role.AUDITOR, auth_method="private_key_jwt", jwks=KEYS),
        lambda registry, name: registry.set_keys(name, KEYS, actor="os:eve"),
    ),
    "password": (
        UserDefinition(login="bob", name="Bob", role=Role.AUDITOR),
        lambda registry, name: registry.users.reset(name, actor="os:eve"),
    ),
}


@control("3.1.4", "AC-5", "AC-6(5)")
@pytest.mark.parametrize(("definition", "replace"), REPLACEMENTS.values(), ids=REPLACEMENTS)
def test_who_replaces_what_a_privileged_account_signs_in_by_is_not_its_owner(strict, definition, replace):
    """An administrator alone would be an auditor otherwise. Until a second person agrees the account can do nothing."""
    if isinstance(definition, ClientDefinition):
        name = strict.create(definition, actor="os:ada").client.client_id
    else:
        name = strict.users.create(definition, actor="os:ada").user.user_id
    assert not strict.roles.approve(name, actor="os:eve").is_disabled
    replace(strict, name)
    (waiting,) = strict.roles.pending()
    assert (waiting.is_disabled, waiting.granted_by, waiting.approved_by) == (True, "os:eve", None)
    with pytest.raises(ClientRejected, match="another person"):
        strict.roles.approve(name, actor="os:eve")
    assert not strict.roles.approve(name, actor="os:ada").is_disabled


def test_a_users_secret_is_replaced_by_one_person(strict):
    """Role user needs nobody else."""
    made = strict.create(ClientDefinition(name="app"), actor="os:ada").client
    assert not strict.rotate(made.client_id, actor="os:ada").client.is_disabled
    strict.users.create(UserDefinition(login="bob", name="Bob"), actor="os:ada")
    assert not strict.users.reset("bob", actor="os:ada").user.is_disabled


def test_what_waits_can_be_taken_back(strict):
    """Nothing is left of it."""
    strict.users.create(UserDefinition(login="bob", name="Bob"), actor="os:ada")
    strict.roles.grant("bob", Role.ADMIN, actor="os:ada")
    assert strict.roles.refuse("bob", actor="os:eve").pending_role is None
    with pytest.raises(ClientRejected):
        strict.roles.approve("bob", actor="os:eve")


def test_going_back_to_user_needs_nobody_else(strict):
    """Taking power away must not wait."""
    strict.users.create(UserDefinition(login="bob", name="Bob"), actor="os:ada")
    strict.roles.grant("bob", Role.ADMIN, actor="os:ada")
    strict.roles.approve("bob", actor="os:eve")
    assert strict.roles.grant("bob", Role.USER, actor="os:ada").role is Role.USER


@control("AC-6(7)")
def test_switching_the_rule_on_suspends_what_one_person_alone_had_granted(registry):
    """Until somebody else agrees; switching it off again does not lose who agreed."""
    made = registry.create(ClientDefinition(name="watch", role=Role.OPERATOR), actor="os:ada").client
    assert not made.is_disabled
    registry.roles.set_two_person(True, actor="configuration")
    assert registry.find(made.client_id).is_disabled
    registry.roles.approve(made.client_id, actor="os:eve")
    registry.roles.set_two_person(False, actor="configuration")
    registry.roles.set_two_person(True, actor="configuration")
    assert not registry.find(made.client_id).is_disabled
    assert [change.action for change in registry.changes()].count("grant_rule_changed") == 3


@control("AC-6(7)", "AU-12")
def test_the_rules_record_names_whom_it_is_about(registry):
    """Who waits from now on as one person alone had decided on them, and who waits no more; nobody who is disabled or approved."""
    registry.users.create(UserDefinition(login="bob", name="Bob", role=Role.ADMIN), actor="os:ada")
    gone = registry.create(ClientDefinition(name="gone", role=Role.OPERATOR), actor="os:ada").client.client_id
    registry.disable(gone, actor="os:ada")
    registry.roles.set_two_person(True, actor="configuration")
    registry.roles.set_two_person(False, actor="configuration")
    told = [json.loads(change.after) for change in registry.changes() if change.action == "grant_rule_changed"]
    assert told == [{"needed": True, "suspended": ["bob"]}, {"needed": False, "released": ["bob"]}]


@control("AC-5", "AC-6(7)", "3.1.4")
@pytest.mark.parametrize("how", ["rotate", "reset", "keys"])
def test_another_secret_ends_an_agreement_also_where_none_is_asked_for(registry, how):
    """Or one person could switch the rule off, take an account that two had agreed to, and switch it on again."""
    registry.roles.set_two_person(True, actor="configuration")
    definition = ClientDefinition(name="watch", role=Role.OPERATOR)
    if how == "keys":
        definition = msgspec.structs.replace(definition, auth_method="private_key_jwt", jwks="{}")
    if how == "reset":
        name = registry.users.create(
            UserDefinition(login="bob", name="Bob", role=Role.OPERATOR), actor="os:ada"
        ).user.login
    else:
        name = registry.create(definition, actor="os:ada").client.client_id
    registry.roles.approve(name, actor="os:eve")
    registry.roles.set_two_person(False, actor="configuration")
    match how:
        case "rotate":
            changed = registry.rotate(name, actor="os:mallory").client
        case "reset":
            changed = registry.users.reset(name, actor="os:mallory").user
        case _:
            changed = registry.set_keys(name, "{}", actor="os:mallory")
    assert not changed.is_disabled
    registry.roles.set_two_person(True, actor="configuration")
    assert [one.granted_by for one in registry.roles.pending()] == ["os:mallory"]


@control("3.9.2", "AC-2(13)", "AC-6(7)", "IA-11")
def test_a_new_role_voids_tokens_and_brings_its_own_scopes(registry):
    """What it had of another role's it cannot keep."""
    client = registry.create(ClientDefinition(name="x"), actor="t").client
    changed = registry.roles.grant(client.client_id, Role.OPERATOR, actor="t")
    assert changed.scopes == GRANTABLE[Role.OPERATOR]
    (voided,) = read_definitions(registry.database).revocations
    assert (voided.kind, voided.value) == ("client", client.client_id)


def test_an_application_has_no_role(registry):
    """The people who sign in have."""
    made = registry.create(ClientDefinition(name="x", kind="application", auth_method="none"), actor="t").client
    with pytest.raises(ClientRejected, match="application"):
        registry.roles.grant(made.client_id, Role.ADMIN, actor="t")
    with pytest.raises(ClientRejected, match="does not exist"):
        registry.roles.grant("nobody", Role.ADMIN, actor="t")
