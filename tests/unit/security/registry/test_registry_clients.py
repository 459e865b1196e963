"""The client registry: what is stored, who may come in, and what happens to files that are not as they should be."""

import hashlib
import json
import multiprocessing
import shutil
import sqlite3
from pathlib import Path

import msgspec
import pytest
import sqlalchemy
from hypothesis import given
from hypothesis import strategies as st

from security.clients import ClientDefinition, hash_secret, is_secret_of, make_client_id, make_secret
from security.errors import ClientRejected, KeyUnusable, RegistryUnusable
from security.registry import database, migrating
from security.registry.migrating import REVISIONS
from security.scopes import GRANTABLE, Role, Scope
from tests.support.controls import control
from tests.support.definitions import Registry

KEY = b"k" * 32


@pytest.fixture
def path(tmp_path):
    return tmp_path / "authority" / "clients.sqlite"


@pytest.fixture
def registry(path, clock):
    opened = Registry(path, key=KEY, clock=clock)
    yield opened
    opened.close()


def test_a_client_is_what_was_defined(registry, clock):
    """And it is the same after the file was opened again."""
    definition = ClientDefinition(
        name="My App", tenant="acme", scopes=frozenset({Scope.INFERENCE}), models=("a/b:1", "c")
    )
    client = registry.create(definition, actor="ada").client
    assert (client.name, client.role, client.tenant, client.models) == ("My App", Role.USER, "acme", ("a/b:1", "c"))
    assert (client.created_at, client.disabled_at, client.scopes) == (int(clock.now), None, {Scope.INFERENCE})
    assert client.client_id.startswith("my-app-")
    assert registry.find(client.client_id) == client
    assert registry.all() == [client]
    assert client.may_use("c")
    assert not client.may_use("d")


def test_without_scopes_a_client_has_all_that_its_role_may_have(registry):
    """For each role."""
    for role in Role:
        assert registry.create(ClientDefinition(name="x", role=role), actor="t").client.scopes == GRANTABLE[role]


@control("3.5.2", "3.5.10", "IA-2", "IA-5", "IA-5(6)", "SC-28(1)")
def test_the_secret_is_nowhere_in_the_files(registry, path):
    """Neither the database nor its journal holds it."""
    secret = registry.create(ClientDefinition(name="x"), actor="t").secret
    assert secret.startswith("cms-")
    assert len(secret) == 47
    stored = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert secret.encode() not in stored
    assert secret.removeprefix("cms-").encode() not in stored


@control("3.13.16", "SC-28")
def test_files_are_for_their_owner_only(registry, path):
    """The journal too, as it holds the same rows."""
    registry.create(ClientDefinition(name="x"), actor="t")
    assert {file.stat().st_mode & 0o077 for file in path.parent.iterdir()} == {0}
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_authentication(registry):
    """Right secret, wrong secret, no such client, disabled client, another key file."""
    issued = registry.create(ClientDefinition(name="x"), actor="t")
    client_id = issued.client.client_id
    assert registry.authenticate(client_id, issued.secret) == issued.client
    for secret in ("", "cms-", issued.secret + "x", issued.secret.lower(), "x" * 10_000, "\0", "é"):
        assert registry.authenticate(client_id, secret) is None
    assert registry.authenticate("nobody", issued.secret) is None
    registry.disable(client_id, actor="t")
    assert registry.authenticate(client_id, issued.secret) is None


def test_a_registry_without_its_key_file_lets_nobody_in(path, registry):
    """The stored hashes are keyed: the database alone is worth nothing."""
    issued = registry.create(ClientDefinition(name="x"), actor="t")
    other = Registry(path, key=b"o" * 32)
    assert other.authenticate(issued.client.client_id, issued.secret) is None
    other.close()


def test_disabling_keeps_the_first_time_and_unknown_clients_are_named(registry, clock):
    """Twice is once."""
    client_id = registry.create(ClientDefinition(name="x"), actor="t").client.client_id
    first = registry.disable(client_id, actor="t").disabled_at
    clock.now += 100
    assert registry.disable(client_id, actor="t").disabled_at == first
    for act in (registry.disable, registry.rotate):
        with pytest.raises(ClientRejected, match="nobody"):
            act("nobody", actor="t")


@control("3.1.7", "AC-2(4)", "SI-4(20)")
def test_every_change_waits_in_the_outbox_until_it_is_recorded(registry):
    """In the same transaction, so there is no change without its record."""
    client_id = registry.create(ClientDefinition(name="x"), actor="ada").client.client_id
    registry.rotate(client_id, actor="bob")
    registry.disable(client_id, actor="eve")
    with pytest.raises(ClientRejected):
        registry.disable("nobody", actor="eve")
    changes = registry.changes()
    assert [(change.action, change.target, change.actor) for change in changes] == [
        ("client_created", client_id, "ada"),
        ("client_secret_rotated", client_id, "bob"),
        ("client_disabled", client_id, "eve"),
    ]
    registry.database.forget_change(changes[0].number)
    assert [change.action for change in registry.changes()] == ["client_secret_rotated", "client_disabled"]


def test_a_change_says_what_was_and_what_is(registry):
    """Without any hash or secret, so that the log can hold it."""
    issued = registry.create(ClientDefinition(name="x"), actor="ada")
    registry.disable(issued.client.client_id, actor="eve")
    created, disabled = registry.changes()
    assert json.loads(created.before) == {}
    before, after = json.loads(disabled.before), json.loads(disabled.after)
    assert (before["disabled_at"], after["disabled_at"]) == (None, registry.database.now)
    assert before | {"disabled_at": after["disabled_at"]} == after
    for change in (created, disabled):
        text = change.before + change.after
        assert issued.secret not in text
        assert "hash" not in text


def test_the_generation_grows_with_every_change_and_not_without(registry):
    """Policy reads everything again only when it has grown."""
    before = registry.database.read_generation()
    client_id = registry.create(ClientDefinition(name="x"), actor="t").client.client_id
    assert registry.database.read_generation() == before + 1
    registry.find(client_id)
    with pytest.raises(ClientRejected):
        registry.disable("nobody", actor="t")
    assert registry.database.read_generation() == before + 1


@pytest.mark.parametrize(
    ("definition", "match"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 65}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": " a"}, "name"),
        ({"name": "é"}, "name"),
        ({"name": "a", "tenant": ""}, "tenant"),
        ({"name": "a", "tenant": "Acme"}, "tenant"),
        ({"name": "a", "tenant": "../x"}, "tenant"),
        ({"name": "a", "scopes": frozenset()}, "scopes"),
        ({"name": "a", "scopes": frozenset({Scope.METRICS_READ})}, "metrics.read"),
        ({"name": "a", "role": Role.OPERATOR, "scopes": frozenset({Scope.INFERENCE})}, "inference"),
        ({"name": "a", "scopes": frozenset({Scope.PUBLIC})}, "public"),
        ({"name": "a", "models": ("",)}, "model"),
        ({"name": "a", "models": ("x y",)}, "model"),
        ({"name": "a", "models": ("m",) * 257}, "models"),
    ],
)
def test_definitions_that_make_no_sense_are_refused(registry, definition, match):
    """And nothing is stored of them."""
    with pytest.raises(ClientRejected, match=match):
        registry.create(ClientDefinition(**definition), actor="t")
    assert registry.all() == []
    assert registry.changes() == []


def _create_many(path, count):
    database._BUSY_TIMEOUT_S = 120.0  # How long they wait for each other is the machine's business.
    registry = Registry(path, key=KEY)
    for number in range(count):
        registry.create(ClientDefinition(name=f"c {number}"), actor="t")
    registry.close()


def test_several_processes_create_clients_at_once(path):
    """None is lost, none is doubled, also while the file itself is being made."""
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_create_many, args=(path, 10)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(200)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    registry = Registry(path, key=KEY)
    assert len({client.client_id for client in registry.all()}) == 30
    assert len(registry.changes()) == 30
    registry.close()


def test_a_later_version_is_refused_and_left_alone(path, registry):
    """Its meaning is unknown to us."""
    registry.execute("UPDATE alembic_version SET version_num = '0099'")
    registry.close()
    before = path.read_bytes()
    with pytest.raises(RegistryUnusable, match=r"clients\.sqlite has schema version '0099'"):
        Registry(path, key=KEY)
    assert path.read_bytes() == before


def test_a_migration_that_fails_changes_nothing_and_stops(path, registry, monkeypatch, tmp_path):
    """Not even the statements before the one that failed."""
    issued = registry.create(ClientDefinition(name="x"), actor="t")
    registry.close()
    versions = tmp_path / "migrations" / "versions"
    shutil.copytree(Path(migrating.__file__).parent / "migrations", versions.parent)
    (versions / "v0004_broken.py").write_text(
        'from alembic import op\nimport sqlalchemy as sa\nrevision, down_revision = "0004", "0003"\n'
        "def upgrade():\n"
        '    op.create_table("extra", sa.Column("a", sa.Integer))\n'
        '    op.create_table("clients", sa.Column("a", sa.Integer))\n'
    )
    monkeypatch.setattr(migrating, "REVISIONS", (*REVISIONS, "0004"))
    monkeypatch.setattr(database, "REVISIONS", (*REVISIONS, "0004"))
    monkeypatch.setattr(migrating, "__file__", str(tmp_path / "migrating.py"))
    with pytest.raises(RegistryUnusable, match=r"clients\.sqlite"):
        Registry(path, key=KEY)
    monkeypatch.undo()
    reopened = Registry(path, key=KEY)
    with reopened.database.transaction() as connection:
        assert migrating.find_revision(connection, "x") == REVISIONS[-1] == "0003"
        assert "extra" not in sqlalchemy.inspect(connection).get_table_names()
    assert reopened.find(issued.client.client_id) == issued.client
    reopened.close()


def test_foreign_and_damaged_files_are_refused(tmp_path):
    """A text file, another program's database, a damaged page, a folder."""
    text = tmp_path / "text.sqlite"
    text.write_text("this is not a database at all" * 100)
    foreign = tmp_path / "foreign.sqlite"
    connection = sqlite3.connect(foreign)
    connection.execute("CREATE TABLE t (a)")
    connection.commit()
    connection.close()
    (tmp_path / "folder.sqlite").mkdir()
    for name in ("text", "foreign", "folder"):
        with pytest.raises(RegistryUnusable, match=name):
            Registry(tmp_path / f"{name}.sqlite")


def test_a_damaged_registry_is_noticed_at_the_start(path, registry):
    """Zeros in the middle of the file."""
    for _ in range(50):
        registry.create(ClientDefinition(name="x"), actor="t")
    registry.close()
    data = bytearray(path.read_bytes())
    data[4096 : 4096 * 3] = bytes(4096 * 2)
    path.write_bytes(data)
    with pytest.raises(RegistryUnusable, match=r"clients\.sqlite"):
        Registry(path, key=KEY)


def test_a_row_that_makes_no_sense_is_not_served(path, registry):
    """Somebody edited the file by hand: an unknown role is not a role."""
    client_id = registry.create(ClientDefinition(name="x"), actor="t").client.client_id
    registry.execute("UPDATE clients SET role = 'root'")
    with pytest.raises(RegistryUnusable, match="root"):
        registry.find(client_id)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    """The state directory's parent is a file."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(KeyUnusable, match="file"):
        Registry(tmp_path / "file" / "x" / "clients.sqlite")


@control("3.5.1", "3.5.5", "IA-4", "IA-4(4)")
@given(st.text(max_size=80))
def test_ids_are_safe_whatever_the_name(name):
    """Lower-case letters, digits and hyphens."""
    client_id = make_client_id(name)
    assert client_id.replace("-", "").isalnum()
    assert client_id.isascii()
    assert client_id == client_id.lower()


@given(st.text(max_size=40), st.text(max_size=40))
def test_hashes_belong_to_one_client_and_one_secret(client_id, secret):
    """Concatenation is unambiguous."""
    stored = hash_secret(KEY, client_id, secret)
    assert is_secret_of(KEY, client_id, stored, secret)
    assert not is_secret_of(KEY, client_id, stored, secret + "x")
    assert not is_secret_of(KEY, client_id + "x", stored, secret)
    assert hash_secret(KEY, "a", "bc") != hash_secret(KEY, "ab", "c")
    assert make_secret() != make_secret()


@control("AU-12", "CM-3", "3.4.3")
def test_the_record_of_other_keys_tells_which_they_were_and_are(registry):
    """By their digests: before and after differ, though all else is the same."""
    first, second = '{"keys":[1]}', '{"keys":[2]}'
    client_id = registry.create(
        ClientDefinition(name="x", auth_method="private_key_jwt", jwks=first), actor="t"
    ).client.client_id
    registry.set_keys(client_id, second, actor="eve")
    changed = registry.changes()[-1]
    told = [json.loads(state).pop("jwks_sha256") for state in (changed.before, changed.after)]
    assert told == [hashlib.sha256(keys.encode()).hexdigest() for keys in (first, second)]


def test_a_client_of_ours_is_registered_once_and_kept_up_to_date(registry):
    """Another key or address is one recorded change, the same ones are none; a disabled client stays so."""
    definition = ClientDefinition(
        name="console", kind="application", auth_method="private_key_jwt", jwks='{"keys":[1]}',
        redirect_uris=("https://a.example/callback",), scopes=frozenset({Scope.MODELS_READ}),
    )  # fmt: skip
    for _ in range(2):
        registry.ensure("console-1", definition, actor="configuration")
    registry.disable("console-1", actor="ada")
    moved = msgspec.structs.replace(definition, jwks='{"keys":[2]}', redirect_uris=("https://b.example/callback",))
    client = registry.ensure("console-1", moved, actor="configuration")
    assert (client.jwks, client.redirect_uris) == (moved.jwks, moved.redirect_uris)
    assert client.is_disabled
    actions = [(one.action, one.actor) for one in registry.changes()]
    assert actions == [
        ("client_created", "configuration"), ("client_disabled", "ada"), ("client_changed", "configuration"),
    ]  # fmt: skip
