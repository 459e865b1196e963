"""Backups: what comes back is what was there, and what is not a backup of ours changes nothing."""

import hashlib
import json
import os

import pytest

from appliance.errors import CommandFailed
from appliance.policy import backup
from appliance.policy.backup import read_backup, restore_files, write_backup
from audit.governance import RULES, Decider, Hold, Proposal, Rules, load_rules, save_rules
from audit.sealing import KeyContext, new_key_id
from audit.shares import ShareStore
from audit.storage import Disk
from security.clients import ClientDefinition
from security.errors import KeyUnusable, RegistryUnusable
from security.policy.limits import LimitRule, Limits
from security.registry.archive import export_definitions, import_definitions
from security.registry.snapshot import read_definitions
from security.scopes import Role
from security.stewards.outbox import Outbox
from security.users import UserDefinition
from tests.support.commands import run_casemate
from tests.support.controls import control
from tests.support.definitions import Registry


def unheard(sha256, num_members):
    """Nobody keeps word of it."""


@pytest.fixture
def filled(registry):
    client = registry.create(ClientDefinition(name="app", models=("m",)), actor="t").client
    registry.users.create(UserDefinition(login="ada", name="Ada"), actor="t")
    registry.keys.create(client.client_id, "k", networks=("::1",), days=1, actor="t")
    registry.limits.set(LimitRule("tenant", "acme", Limits(tokens_per_day=5)), actor="t")
    registry.roles.set_models(Role.USER, ("m",), actor="t")
    registry.revocations.revoke("token", "jti", registry.database.now + 60, actor="t")
    return registry


@pytest.fixture
def other(tmp_path, clock):
    opened = Registry(tmp_path / "other.sqlite", clock=clock)
    yield opened
    opened.close()


def contents(registry):
    definitions = read_definitions(registry.database)
    return {name: getattr(definitions, name) for name in definitions.__struct_fields__ if name != "generation"}


@control("3.8.9", "SC-12(1)")
def test_what_comes_back_is_what_was_there(filled, other):
    """Every table, the outbox too; and that it was restored is a change itself."""
    import_definitions(other.database, export_definitions(filled.database), actor="os:root")
    assert contents(other) == contents(filled)
    assert other.changes()[:-1] == filled.changes()
    assert other.changes()[-1].action == "definitions_restored"
    assert other.database.read_generation() > filled.database.read_generation()


def test_definitions_that_are_there_are_not_lost_unasked(filled, other):
    """Only with a word more."""
    other.create(ClientDefinition(name="mine"), actor="t")
    data = export_definitions(filled.database)
    before = contents(other)
    with pytest.raises(RegistryUnusable, match="--replace"):
        import_definitions(other.database, data, actor="t")
    assert contents(other) == before
    import_definitions(other.database, data, actor="t", replace=True)
    assert contents(other) == contents(filled)


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document | {"revision": "0099"},
        lambda document: document | {"tables": {}},
        lambda document: document | {"extra": 1},
        lambda document: document["tables"]["clients"][0].pop("role") and document,
        lambda document: document["tables"]["clients"][0].update(secret_hash="base64:!") or document,
    ],
)
def test_what_is_not_ours_changes_nothing(filled, other, change):
    """Another version, missing tables, missing columns, broken bytes."""
    document = change(json.loads(export_definitions(filled.database)))
    with pytest.raises(RegistryUnusable):
        import_definitions(other.database, json.dumps(document).encode(), actor="t")
    for data in (b"", b"{", b"[]", b"\xff"):
        with pytest.raises(RegistryUnusable):
            import_definitions(other.database, data, actor="t")
    assert contents(other)["clients"] == {}
    assert other.changes() == []


@control("3.8.9", "SC-12(1)")
def test_a_backup_holds_the_keys_and_is_its_owners_alone(tmp_path):
    """And refuses to go over another file."""
    state, again = tmp_path / "state", tmp_path / "again"
    for name in ("policy/credentials.key", "authority/signing/signing-1.pem", "tls/ca.key", "audit/log.key", "lock"):
        (state / name).parent.mkdir(parents=True, exist_ok=True)
        (state / name).write_text(name)
    path = tmp_path / "b.tar"
    write_backup(path, state, b"{}", unheard)
    assert path.stat().st_mode & 0o077 == 0
    with pytest.raises(CommandFailed, match="exists"):
        write_backup(path, state, b"{}", unheard)
    definitions, files = read_backup(path)
    assert definitions == b"{}"
    assert files.keys() == {"policy/credentials.key", "authority/signing/signing-1.pem", "tls/ca.key"}
    restore_files(again, files, replace=False)
    assert (again / "tls/ca.key").read_text() == "tls/ca.key"
    assert (again / "tls/ca.key").stat().st_mode & 0o077 == 0
    (again / "tls/ca.key").write_text("other")
    with pytest.raises(CommandFailed, match=r"ca\.key exists"):
        restore_files(again, files, replace=False)


@control("AU-12", "3.3.1")
def test_who_takes_every_key_is_told_before_they_have_them(tmp_path):
    """By the command: the file's digest waits for the log; where no word can be left there is no backup."""
    state, path = tmp_path / "state", tmp_path / "b.tar"
    words = ("state", "backup", "--state", str(state))
    run_casemate("client", "create", "x", "--state", str(state))
    run_casemate(*words, str(path))
    ((_, notice),) = Outbox(state / "outbox").waiting()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert (notice.kind, notice.digest) == ("state_backed_up", f"sha256:{digest}")
    assert notice.facts == {"file": str(path), "num_members": len(read_backup(path)[1]) + 1}

    def refuse(*_told):
        assert not (tmp_path / "second.tar").exists()
        raise KeyUnusable("for the test")

    with pytest.raises(KeyUnusable):
        write_backup(tmp_path / "second.tar", state, b"{}", refuse)
    assert not (tmp_path / "second.tar").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be led by another user's link")
def test_links_that_another_user_made_are_not_followed(tmp_path):
    """A role's process that was captured would have root read a file of the host into a backup, or write one by a restore."""
    state, host = tmp_path / "state", tmp_path / "host"
    host.mkdir()
    (host / "secret.pem").write_bytes(b"secret")
    (state / "authority" / "signing").mkdir(parents=True)
    planted = state / "authority" / "signing" / "planted.pem"
    planted.symlink_to(host / "secret.pem")
    os.chown(planted, 60612, 60612, follow_symlinks=False)
    with pytest.raises(CommandFailed, match=r"planted\.pem: a link that uid 60612 made"):
        write_backup(tmp_path / "new.tar", state, b"{}", unheard)
    planted.unlink()
    (state / "authority" / "signing").rmdir()
    (state / "authority" / "signing").symlink_to(host)
    os.chown(state / "authority" / "signing", 60612, 60612, follow_symlinks=False)
    with pytest.raises(CommandFailed, match="signing: a link that uid 60612 made"):
        restore_files(state, {"authority/signing/1.pem": b"key"}, replace=True)
    assert sorted(path.name for path in host.iterdir()) == ["secret.pem"]
    (state / "authority" / "signing").unlink()
    (state / "authority" / "signing").symlink_to(host)  # The operator's own choice of a place.
    restore_files(state, {"authority/signing/1.pem": b"key"}, replace=True)
    assert (host / "1.pem").read_bytes() == b"key"


@control("3.8.9")
def test_a_changed_backup_is_noticed(tmp_path):
    """One byte of a member, or a file that is none."""
    state = tmp_path / "state"
    (state / "policy").mkdir(parents=True)
    (state / "policy/credentials.key").write_text("k" * 32)
    path = tmp_path / "b.tar"
    write_backup(path, state, b"{}", unheard)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"k" * 32, b"k" * 31 + b"x"))
    with pytest.raises(CommandFailed, match="not what it was"):
        read_backup(path)
    for garbage in (b"", b"no tar", data[:700]):
        path.write_bytes(garbage)
        with pytest.raises(CommandFailed):
            read_backup(path)


@control("AU-11")
def test_a_backup_of_an_earlier_release_comes_back_without_the_key_of_all_days(tmp_path, monkeypatch):
    """From `gateway/keyed-hash.key` every day's keyed hashes followed: it is checked, as all is, and left out."""
    state, path = tmp_path / "state", tmp_path / "b.tar"
    for name in ("tls/ca.key", "gateway/keyed-hash.key"):
        (state / name).parent.mkdir(parents=True)
        (state / name).write_text(name)
    with monkeypatch.context() as earlier:
        earlier.setattr(backup, "FILES", (*backup.FILES, "gateway/keyed-hash.key"))
        assert "files/gateway/keyed-hash.key" in write_backup(path, state, b"{}", unheard)
    assert read_backup(path)[1] == {"tls/ca.key": b"tls/ca.key"}


@control("AU-11")
def test_shares_of_sealed_bodies_are_backed_up_under_a_hold_only(tmp_path):
    """The others must die with their period, wherever copies are."""
    state = tmp_path / "state"
    store = ShareStore(state / "audit" / "shares")
    keys = {tenant: KeyContext(tenant, "2026-11-20", new_key_id()) for tenant in ("acme", "umbrella")}
    for context in keys.values():
        store.keep(context, b"[]")
    write_backup(tmp_path / "none.tar", state, b"{}", unheard)
    assert read_backup(tmp_path / "none.tar")[1] == {}
    hold = Hold("hold-1", "acme", "2026-11-01", "2026-11-30", "a case")
    save_rules(state / "audit" / RULES, Rules(30, (hold,)), Disk())
    write_backup(tmp_path / "held.tar", state, b"{}", unheard)
    files = read_backup(tmp_path / "held.tar")[1]
    assert files.keys() == {f"audit/shares/2026-11-20/{keys['acme'].key_id}.json", "audit/rules.json"}
    restore_files(tmp_path / "again", files, replace=False)
    restored = ShareStore(tmp_path / "again" / "audit" / "shares")
    assert restored.load("2026-11-20", keys["acme"].key_id) == store.load("2026-11-20", keys["acme"].key_id)
    (state / "audit" / RULES).write_bytes(b"{")
    with pytest.raises(CommandFailed, match="legal hold"):
        write_backup(tmp_path / "unknown.tar", state, b"{}", unheard)


@control("AU-11", "AU-9(5)")
def test_what_is_held_is_held_after_a_restore_too(tmp_path):
    """Holds and retention come back where there are none; what was decided on a host since stands, and no proposal comes back."""
    state, again = tmp_path / "state", tmp_path / "again"
    hold = Hold("hold-1", "", "2026-11-01", "2026-11-30", "a case")
    proposal = Proposal("change-1", "rotation", Decider("ada", "auditor"), 1, "a new year")
    rules = Rules(90, (hold,), (proposal,), rotation_index=7)
    for folder in (state, again):
        (folder / "audit").mkdir(parents=True)
    save_rules(state / "audit" / RULES, rules, Disk())
    write_backup(tmp_path / "held.tar", state, b"{}", unheard)
    files = read_backup(tmp_path / "held.tar")[1]
    restore_files(again, files, replace=False)
    assert load_rules(again / "audit" / RULES, 1) == Rules(90, (hold,))
    for replace in (False, True):
        restore_files(state, files, replace=replace)
        assert load_rules(state / "audit" / RULES, 1) == rules
