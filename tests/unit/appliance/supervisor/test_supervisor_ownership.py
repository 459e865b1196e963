"""Whose each file of the state is, and that giving it away cannot be turned against somebody else's files."""

import os
import stat
from pathlib import Path

import pytest

from appliance.config import Configuration
from appliance.errors import StartRefused
from appliance.supervisor.ownership import Owner, find_owner, settle, verify_readable
from security.errors import KeyUnusable
from security.keys import load_private_file
from security.sandbox.profiles import CONFINED_ROLES
from security.sandbox.users import (
    DEFAULT_FIRST_UID,
    FIRST_FREE_ID,
    LAST_FREE_ID,
    NUM_IDS,
    ROLES,
    find_groups,
    find_user,
    is_reserved,
)
from tests.support.controls import control

FIRST = DEFAULT_FIRST_UID
GROUPS = find_groups(FIRST)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


def uid(role: str) -> int:
    """The user of a role."""
    return find_user(role, FIRST).uid  # type: ignore[arg-type]


@control("3.1.5", "AC-6")
@pytest.mark.parametrize(
    ("path", "user", "group"),
    [
        ("gateway/keyed-hash.key", uid("gateway"), uid("gateway")),
        ("run/metrics/1.db", uid("gateway"), uid("gateway")),
        ("run/statement.json", 0, 0),
        ("policy/definitions/definitions.sqlite", uid("policy"), uid("policy")),
        ("policy/credentials.key", 0, GROUPS.credentials),
        ("authority/signing/s.pem", uid("authority"), uid("authority")),
        ("audit/log/tile/0/000", uid("auditor"), GROUPS.log),
        ("tls/server.key", 0, GROUPS.tls),
        ("tls/ca.key", 0, 0),
        ("console/client.key", uid("console"), uid("console")),
        ("console/client.jwks", 0, uid("policy")),
        ("models/promoted/m/model.safetensors", 0, GROUPS.models),
        ("trust/root.json", 0, GROUPS.models),
        ("lock", 0, 0),
    ],
)
def test_each_file_has_its_owner(path: str, user: int, group: int) -> None:
    """What nobody was given is root's, and closed to everybody else."""
    owner = find_owner(path, FIRST)
    assert (owner.uid, owner.gid) == (user, group)
    assert owner.removes & 0o007 == 0o007


def test_ids_are_apart_and_nobodys() -> None:
    """One for each role, none shared with a group, all of them in the range that systemd leaves free."""
    ids = [uid(role) for role in ROLES] + list(GROUPS)
    assert len(set(ids)) == len(ids)
    assert max(ids) < FIRST + NUM_IDS <= LAST_FREE_ID + 1
    assert all(map(is_reserved, ids))
    assert set(ROLES) == set(CONFINED_ROLES)
    assert not is_reserved(FIRST_FREE_ID - 1)
    assert not is_reserved(0)


def make_state(base: Path) -> Path:
    """A state folder as one user has it."""
    state = base / "state"
    for name in ("audit/log/tile", "gateway", "tls", "policy/definitions"):
        (state / name).mkdir(parents=True, mode=0o700)
    for name in ("audit/log.key", "audit/log/checkpoint", "gateway/a", "tls/server.key", "tls/ca.key", "lock"):
        (state / name).write_bytes(b"x")
        (state / name).chmod(0o640 if name.startswith("audit/log/") else 0o600)
    return state


def shown(path: Path) -> tuple[int, int, int]:
    """Owner, group, permissions."""
    status = path.lstat()
    return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)


@as_root
def test_a_state_of_one_user_is_given_away_and_taken_back(tmp_path: Path) -> None:
    """An upgrade, and the way back; a second time changes nothing."""
    state = make_state(tmp_path)
    assert settle(state, lambda path: find_owner(path, FIRST)) > 0
    assert shown(state / "audit/log.key") == (uid("auditor"), GROUPS.log, 0o600)
    assert shown(state / "audit/log/checkpoint") == (uid("auditor"), GROUPS.log, 0o640)
    assert shown(state / "gateway/a") == (uid("gateway"), uid("gateway"), 0o600)
    assert shown(state / "tls/server.key") == (0, GROUPS.tls, 0o640)
    assert shown(state / "tls/ca.key") == (0, 0, 0o600)
    assert shown(state)[2] == 0o711
    assert load_private_file(state / "tls/server.key") == load_private_file(state / "gateway/a") == b"x"
    assert settle(state, lambda path: find_owner(path, FIRST)) == 0
    settle(state, lambda _path: Owner(0, 0, removes=0o077))
    assert {shown(path)[:2] for path in state.rglob("*")} == {(0, 0)}
    assert shown(state / "tls/server.key")[2] == 0o600


@as_root
def test_links_that_a_captured_process_left_give_nothing_away(tmp_path: Path) -> None:
    """A symbolic link is not followed, and a file with a second name keeps its owner."""
    state = make_state(tmp_path)
    victim, twin = tmp_path / "victim", tmp_path / "twin"
    victim.write_text("x")
    twin.write_text("x")
    (state / "gateway/link").symlink_to(victim)
    (state / "gateway/folder").symlink_to(tmp_path)
    os.link(twin, state / "gateway/twin")
    settle(state, lambda path: find_owner(path, FIRST))
    assert (shown(victim)[0], shown(twin)[0], shown(tmp_path)[0]) == (0, 0, 0)


@as_root
def test_a_key_that_another_group_reads_is_refused(tmp_path: Path) -> None:
    """The roles' groups are trusted with one, and no other group is."""
    key = tmp_path / "key"
    key.write_bytes(b"x")
    key.chmod(0o640)
    os.chown(key, 0, GROUPS.tls)
    assert load_private_file(key) == b"x"
    os.chown(key, 0, FIRST_FREE_ID - 1)
    with pytest.raises(KeyUnusable, match="open to others"):
        load_private_file(key)


@as_root
def test_what_a_role_cannot_read_stops_the_start(tmp_path: Path) -> None:
    """A file of the operator's does, by name; a file of the kernel's that nobody may read does not."""
    write_only = next(Path("/sys/bus").glob("*/uevent"))
    assert stat.S_IMODE(write_only.stat().st_mode) == 0o200
    verify_readable("engine", [str(write_only.parent)], Configuration(engines=[]))
    secret = tmp_path / "weights"
    secret.touch(mode=0o600)
    with pytest.raises(StartRefused, match=r"weights: cannot be read by uid \d+ .* as which engine runs"):
        verify_readable("engine", [str(secret)], Configuration(engines=[]))
