"""The same definitions on a PostgreSQL server of the test's own: migrated, changed by several at once, backed up across."""

import threading
from pathlib import Path

import pytest
import sqlalchemy

from appliance.policy.ownership import claim_definitions
from security.clients import ClientDefinition
from security.errors import ClientRejected, RegistryUnusable
from security.policy.limits import LimitRule, Limits
from security.registry.archive import export_definitions, import_definitions
from security.registry.snapshot import read_definitions
from security.scopes import Role
from security.users import UserDefinition
from tests.support.definitions import Registry
from tests.support.postgresql import driver_url, running_postgresql


@pytest.fixture(scope="module")
def server():
    with running_postgresql() as running:
        yield running


@pytest.fixture
def url(server):
    """An empty database."""
    return server.make_database()


@pytest.fixture
def registry(url):
    opened = Registry(url)
    yield opened
    opened.close()


def test_everything_that_is_defined_works_as_in_a_file(registry):
    """Create, change, refuse, read back."""
    client = registry.create(ClientDefinition(name="app", models=("m",)), actor="os:ada").client
    registry.roles.set_two_person(True, actor="configuration")
    user = registry.users.create(UserDefinition(login="bob", name="Bob"), actor="os:ada").user
    registry.roles.grant("bob", Role.AUDITOR, actor="os:ada")
    registry.roles.approve("bob", actor="os:eve")
    issued = registry.keys.create(client.client_id, "k", networks=("10.0.0.0/8",), days=1, actor="os:ada")
    registry.limits.set(LimitRule("tenant", "*", Limits(tokens_per_day=10**12)), actor="os:ada")
    registry.disable(client.client_id, actor="os:eve")
    with pytest.raises(ClientRejected):
        registry.users.create(UserDefinition(login="bob", name="Bob"), actor="os:ada")
    definitions = read_definitions(registry.database)
    assert definitions.clients[client.client_id].is_disabled
    assert definitions.users[user.user_id].role is Role.AUDITOR
    assert definitions.static_keys[issued.key.key_hash].key_id == issued.key.key_id
    assert definitions.rules[0].limits.tokens_per_day == 10**12
    assert {(one.kind, one.value) for one in definitions.revocations} >= {("client", client.client_id)}
    assert len(registry.changes()) == 8


def test_a_database_belongs_to_one_key(registry, url):
    """Whoever claims it first, from then on and after a backup of its own; a file needs no claim."""
    claim_definitions(registry.database, url, b"a" * 32)
    claim_definitions(registry.database, url, b"a" * 32)
    backup = export_definitions(registry.database)
    for _ in range(2):
        with pytest.raises(RegistryUnusable, match="another appliance's"):
            claim_definitions(registry.database, url, b"b" * 32)
        import_definitions(registry.database, backup, actor="os:ada", replace=True)
    claim_definitions(registry.database, url, b"a" * 32)
    claim_definitions(registry.database, Path("definitions.sqlite"), b"b" * 32)


def test_starting_and_changing_at_once_loses_nothing(url):
    """Several programs make the schema and create clients; each change is in the outbox once, in order."""
    faults = []

    def create(number):
        try:
            opened = Registry(url)
            for step in range(5):
                opened.create(ClientDefinition(name=f"c {number} {step}"), actor="t")
            opened.close()
        except Exception as fault:
            faults.append(fault)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert faults == []
    opened = Registry(url)
    assert len(opened.all()) == 20
    assert len(opened.changes()) == 20
    assert opened.database.read_generation() == 20
    opened.close()


def test_a_backup_of_a_file_restores_into_a_server_and_back(registry, tmp_path):
    """The document is the same; the outbox goes on counting."""
    source = Registry(tmp_path / "d.sqlite")
    client = source.create(ClientDefinition(name="app"), actor="t")
    import_definitions(registry.database, export_definitions(source.database), actor="t")
    assert registry.authenticate(client.client.client_id, client.secret) is not None
    registry.disable(client.client.client_id, actor="t")
    assert [change.action for change in registry.changes()] == [
        "client_created", "definitions_restored", "client_disabled",
    ]  # fmt: skip
    back = Registry(tmp_path / "back.sqlite")
    import_definitions(back.database, export_definitions(registry.database), actor="t")
    assert back.find(client.client.client_id).is_disabled
    for opened in (source, back):
        opened.close()


def test_a_migration_that_fails_changes_nothing_and_stops_the_start(url):
    """A schema said to be of version 1 whose people have version 2's column already: what a broken upgrade would leave."""
    Registry(url).close()
    engine = sqlalchemy.create_engine(driver_url(url))
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    for _ in range(2):
        with pytest.raises(RegistryUnusable, match="cannot be migrated"):
            Registry(url)
    with engine.begin() as connection:
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() == "0001"
        connection.exec_driver_sql("ALTER TABLE users DROP COLUMN passkeys")
        connection.exec_driver_sql("ALTER TABLE changes DROP COLUMN source")
    engine.dispose()
    Registry(url).close()


def test_foreign_databases_and_bad_addresses_are_refused_without_a_password_in_the_words(url, server):
    """What is not ours is left alone."""
    engine = sqlalchemy.create_engine(driver_url(url))
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE theirs (a integer)")
    engine.dispose()
    with pytest.raises(RegistryUnusable, match="not one of definitions"):
        Registry(url)
    for bad in ("mysql://x/y", "nonsense", server.url.replace("casemate@", "casemate:canary@") + "none"):
        with pytest.raises(RegistryUnusable) as refused:
            Registry(bad)
        assert "canary" not in str(refused.value)
