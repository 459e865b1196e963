"""Definitions and decisions: what the registry says takes effect, and soon."""

import pytest

from security.clients import ClientDefinition
from security.errors import SecurityUnavailable
from security.policy.decisions import PolicyDecider, Refusal, RequestFacts
from security.policy.definitions import ClientDefinitions
from security.policy.quotas import QuotaBook, QuotaGrant, QuotaLimits
from security.registry import ClientRegistry


@pytest.fixture
def path(tmp_path):
    return tmp_path / "clients.sqlite"


@pytest.fixture
def registry(path):
    opened = ClientRegistry.open(path, bytes(32))
    yield opened
    opened.close()


@pytest.fixture
def definitions(path, registry, clock):
    opened = ClientDefinitions(path, max_age_s=0.5, clock=clock)
    yield opened
    opened.close()


def facts(client, **changes):
    values = {
        "client_id": client.client_id,
        "tenant": client.tenant,
        "role": client.role,
        "model": "tiny",
        "prompt_tokens": 1,
        "max_output_tokens": 1,
    }
    return RequestFacts(**{**values, **changes})


def decider_of(definitions):
    return PolicyDecider(definitions, QuotaBook(QuotaLimits(), clock_ns=lambda: 0))


def test_a_registered_client_may_use_what_it_may(definitions, registry):
    """All models without a list, else those on it; an empty list is none."""
    anything = registry.create(ClientDefinition(name="a"), actor="t").client
    listed = registry.create(ClientDefinition(name="b", models=("tiny",)), actor="t").client
    nothing = registry.create(ClientDefinition(name="c", models=()), actor="t").client
    decider = decider_of(definitions)
    assert isinstance(decider.decide(facts(anything, model="other"), 1), QuotaGrant)
    assert isinstance(decider.decide(facts(listed), 1), QuotaGrant)
    assert decider.decide(facts(listed, model="other"), 1).code == "model_not_allowed"
    assert decider.decide(facts(nothing), 1).code == "model_not_allowed"


def test_a_refused_request_reserves_nothing(definitions, registry):
    """Refusals come before quotas."""
    client = registry.create(ClientDefinition(name="b", models=("tiny",)), actor="t").client
    decider = decider_of(definitions)
    decider.decide(facts(client, model="other"), 1)
    assert decider.quotas.num_reservations == 0


def test_a_disabled_client_is_refused_within_the_age(definitions, registry, clock):
    """Whatever tokens it still holds."""
    client = registry.create(ClientDefinition(name="a"), actor="t").client
    decider = decider_of(definitions)
    assert isinstance(decider.decide(facts(client), 1), QuotaGrant)
    registry.disable(client.client_id, actor="t")
    clock.now += 0.5
    assert decider.decide(facts(client), 1) == Refusal(
        "client_disabled", "the client is disabled or does not exist any more"
    )


def test_unknown_clients_and_changed_roles_are_refused(definitions, registry):
    """A token of another registry, or of before a change."""
    client = registry.create(ClientDefinition(name="a"), actor="t").client
    decider = decider_of(definitions)
    for changes in ({"client_id": "nobody"}, {"role": "admin"}, {"tenant": "other"}):
        assert decider.decide(facts(client, **changes), 1).code == "client_disabled"


def test_a_new_client_is_known_at_once(definitions, registry):
    """Also when policy has looked at the file just before: its first request must not be refused for half a second."""
    assert definitions.find("nobody") is None
    created = registry.create(ClientDefinition(name="new"), actor="t").client
    assert definitions.find(created.client_id) == created


def test_an_unchanged_registry_is_not_read_again(definitions, registry, clock, monkeypatch):
    """One pragma, not a table."""
    client = registry.create(ClientDefinition(name="a"), actor="t").client
    assert definitions.find(client.client_id)
    monkeypatch.setattr("security.policy.definitions.read_clients", None)
    clock.now += 10
    assert definitions.find(client.client_id) == client


def test_an_unreadable_registry_lets_nobody_in(definitions, registry, path, clock):
    """Old knowledge is not good enough; when the file is back, so is the answer."""
    client = registry.create(ClientDefinition(name="a"), actor="t").client
    assert definitions.find(client.client_id)
    registry._connection.execute("UPDATE clients SET role = 'root'")
    clock.now += 1
    for _ in range(2):
        with pytest.raises(SecurityUnavailable):
            definitions.find(client.client_id)
    registry._connection.execute("UPDATE clients SET role = 'user'")
    assert definitions.find(client.client_id) == client


def test_a_missing_registry_is_unavailable(tmp_path):
    """And is not made by looking."""
    with pytest.raises(SecurityUnavailable):
        ClientDefinitions(tmp_path / "none.sqlite", max_age_s=1).find("x")
    assert list(tmp_path.iterdir()) == []
