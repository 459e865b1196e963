"""Definitions and decisions: who may use which model, and that a refusal comes before any quota."""

import pytest

from security.clients import ClientDefinition
from security.policy.decisions import PolicyDecider, Refusal, RequestFacts, is_upstream
from security.policy.limits import LimitTable
from security.policy.quotas import QuotaBook, QuotaGrant
from security.registry.snapshot import read_definitions
from security.scopes import Role
from security.users import UserDefinition
from tests.support.controls import control
from tests.support.definitions import Registry


@pytest.fixture
def registry(tmp_path):
    opened = Registry(tmp_path / "definitions.sqlite")
    yield opened
    opened.close()


@pytest.fixture
def decider():
    return PolicyDecider(QuotaBook(LimitTable((), {}), block_tokens=64, clock_ns=lambda: 0))


@pytest.fixture
def decide(registry, decider):
    return lambda request: decider.decide(read_definitions(registry.database), request, 1)


def facts(client, user=None, **changes):
    holder = user or client
    values = {
        "client_id": client.client_id,
        "subject": client.client_id if user is None else user.user_id,
        "tenant": holder.tenant,
        "role": holder.role,
        "model": "tiny",
        "prompt_tokens": 1,
        "max_output_tokens": 1,
    }
    return RequestFacts(**{**values, **changes})


@control("3.1.2", "AC-3")
def test_a_registered_client_may_use_what_it_may(registry, decide):
    """All models without a list, else those on it; an empty list is none."""
    anything = registry.create(ClientDefinition(name="a"), actor="t").client
    listed = registry.create(ClientDefinition(name="b", models=("tiny",)), actor="t").client
    nothing = registry.create(ClientDefinition(name="c", models=()), actor="t").client
    assert isinstance(decide(facts(anything, model="other")), QuotaGrant)
    assert isinstance(decide(facts(listed)), QuotaGrant)
    assert decide(facts(listed, model="other")).code == "model_not_allowed"
    assert decide(facts(nothing)).code == "model_not_allowed"


def test_a_refused_request_reserves_nothing(registry, decide, decider):
    """Refusals come before quotas."""
    client = registry.create(ClientDefinition(name="b", models=("tiny",)), actor="t").client
    decide(facts(client, model="other"))
    assert decider.quotas.num_reservations == 0


@control("3.1.1", "3.9.2", "AC-2", "AC-2(13)")
def test_a_disabled_client_is_refused(registry, decide):
    """Whatever tokens it still holds; enabled again it may."""
    client = registry.create(ClientDefinition(name="a"), actor="t").client
    assert isinstance(decide(facts(client)), QuotaGrant)
    registry.disable(client.client_id, actor="t")
    assert decide(facts(client)) == Refusal("client_disabled", "the client is disabled or does not exist any more")
    registry.enable(client.client_id, actor="t")
    assert isinstance(decide(facts(client)), QuotaGrant)


@control("3.1.1", "3.14.7", "AC-2", "AC-6(10)")
def test_unknown_clients_and_changed_roles_are_refused(registry, decide):
    """A token of another registry, or of before a change."""
    client = registry.create(ClientDefinition(name="a"), actor="t").client
    for changes in ({"client_id": "nobody"}, {"role": "admin"}, {"tenant": "other"}, {"role": "root"}):
        assert isinstance(decide(facts(client, **changes)), Refusal)


@control("3.1.2", "AC-3", "IA-2(5)")
def test_a_person_needs_both_the_applications_and_their_own_permission(registry, decide):
    """And must still be what the token says."""
    application = registry.create(
        ClientDefinition(name="chat", kind="application", auth_method="none", models=("tiny", "big")), actor="t"
    ).client
    user = registry.users.create(UserDefinition(login="ada", name="Ada", models=("tiny", "huge")), actor="t").user
    assert isinstance(decide(facts(application, user)), QuotaGrant)
    for model in ("big", "huge"):
        assert decide(facts(application, user, model=model)).code == "model_not_allowed"
    assert decide(facts(application, user, subject="user-none")).code == "client_disabled"
    registry.users.disable("ada", actor="t")
    assert decide(facts(application, user)).code == "client_disabled"


@control("3.1.2", "AC-3")
def test_a_person_of_the_providers_is_bound_by_client_role_and_limits(registry, decide):
    """They are in no definition of ours, so no disabled one and no changed role stands against them; their client's list does."""
    app = registry.create(ClientDefinition(name="app", kind="application", models=("tiny",)), actor="t").client
    person = facts(app, subject="corp:f:1:ada", tenant="acme")
    assert isinstance(decide(person), QuotaGrant)
    assert ("user", "corp:f:1:ada") in person.subjects
    assert decide(facts(app, subject="corp:f:1:ada", model="other")).code == "model_not_allowed"
    registry.roles.set_models(Role.USER, ("other",), actor="t")
    assert decide(person).code == "model_not_allowed"
    registry.disable(app.client_id, actor="t")
    assert decide(facts(app, subject="corp:f:1:ada", model="other")).code == "client_disabled"


def test_no_account_of_ours_can_be_taken_for_one_of_the_providers(registry):
    """Ids of clients and people hold no colon."""
    user = registry.users.create(UserDefinition(login="a.b@c", name="A"), actor="t").user
    client = registry.create(ClientDefinition(name="a - b"), actor="t").client
    assert not is_upstream(user.user_id)
    assert not is_upstream(client.client_id)
    assert is_upstream("corp:ada")


@control("3.1.2", "AC-3")
def test_a_role_can_be_limited_to_models(registry, decide):
    """Also for tokens of an issuer elsewhere, whose clients are not in our definitions."""
    client = registry.create(ClientDefinition(name="a"), actor="t").client
    stranger = facts(client, client_id="entra:app", subject="entra:ada", is_registered=False)
    assert isinstance(decide(stranger), QuotaGrant)
    registry.roles.set_models(Role.USER, ("big",), actor="t")
    for request in (facts(client), stranger):
        assert decide(request).code == "model_not_allowed"
    assert isinstance(decide(facts(client, model="big")), QuotaGrant)
    registry.roles.set_models(Role.USER, None, actor="t")
    assert isinstance(decide(facts(client)), QuotaGrant)


@control("AC-6(5)", "CM-3(1)")
def test_a_privileged_role_that_waits_for_its_second_person_may_nothing(registry, decide):
    """Not even what everybody may."""
    registry.roles.set_two_person(True, actor="t")
    client = registry.create(ClientDefinition(name="a", role=Role.OPERATOR), actor="ada").client
    assert decide(facts(client)).code == "client_disabled"
    registry.roles.approve(client.client_id, actor="eve")
    assert isinstance(decide(facts(client)), QuotaGrant)
