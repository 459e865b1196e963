"""Whose each file below the state folder is, where each role is a user of its own; and the way back to one user.

| path | owner : group | who else reads it |
|---|---|---|
| `gateway`, `bodies`, `run/metrics` | gateway | |
| `policy/definitions` | policy | |
| `authority` | authority | |
| `audit` | auditor : log | the reader `audit/log` and `audit/log.vkey`; keys beside them stay the auditor's alone |
| `reader` | reader | |
| `console/client.key` | console | |
| `console/client.jwks` | root : policy | policy |
| `models`, `trust` | root : models | engine, gateway, compiler |
| `tls/server.key` and certificates | root : tls, 0640 | gateway, policy, authority, console |
| `policy/credentials.key` | root : credentials, 0640 | policy, authority |
| everything else | root | nobody; folders on the way may be entered by everybody, and not listed |

Settled at every start, before anything runs, whatever the state folder was before: an installation of one user is taken over
so, and one that gives up users of its own. Only permissions change. Links are not followed, and a file with a second name is left
alone, since what a captured process has put into its folder must not make root give away something else.
"""

import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import structlog

from appliance.config import Configuration
from appliance.console.identity import CLIENT_KEY, CLIENT_KEY_SET
from appliance.errors import StartRefused
from appliance.policy.locations import CREDENTIALS_FILE, DATABASE_FILE
from security.sandbox.namespaces import try_in_child
from security.sandbox.platform import probe_platform
from security.sandbox.privileges import may_administer
from security.sandbox.profiles import ConfinedRole
from security.sandbox.users import become_user, find_groups, find_user, is_reserved

log = structlog.get_logger(__name__)

_FOLDERS: dict[str, ConfinedRole] = {
    "gateway": "gateway",
    "bodies": "gateway",
    "run/metrics": "gateway",
    str(Path(DATABASE_FILE).parent): "policy",
    "authority": "authority",
    "audit": "auditor",
    "reader": "reader",
}
_ENTERED = (".", "run", "tls", "console", str(Path(CREDENTIALS_FILE).parent))
_SHARED_KEYS = ("tls/server.key", CREDENTIALS_FILE)
_SHARED = (*_SHARED_KEYS, "tls/server.pem", "tls/ca.pem")
_KERNEL_FILES = ("/proc/", "/sys/")
_OTHERS = 0o007
_LOG = "audit/log"


class Owner(NamedTuple):
    """What a path is to be."""

    uid: int
    gid: int
    adds: int = 0
    """Permissions that others get; to enter is for folders alone."""
    removes: int = 0


def has_own_users(configuration: Configuration) -> bool:
    """Whether each role of this appliance is a user of its own."""
    settings = configuration.confinement
    return settings.enabled and not probe_platform(settings.first_uid).no_own_users


def settle_owners(configuration: Configuration) -> None:
    """Give each file to whom it belongs; folders of roles that are not there yet are made.

    Raises: StartRefused, where a file cannot be given.
    """
    state, first_uid = configuration.state_path, configuration.confinement.first_uid
    try:
        if has_own_users(configuration):
            for name in _FOLDERS:
                (state / name).mkdir(mode=0o700, parents=True, exist_ok=True)
            num_changed = settle(state, lambda path: find_owner(path, first_uid))
        elif _was_given(state):
            num_changed = settle(state, lambda path: Owner(0, 0, removes=0o077 if path in _SHARED_KEYS else 0))
        else:
            return
    except OSError as error:
        raise StartRefused(f"state_dir: {error.filename} cannot change hands: {error.strerror}") from error
    if num_changed:
        log.info("owners_settled", changed=num_changed)


def verify_readable(role: ConfinedRole, paths: Iterable[str], configuration: Configuration) -> None:
    """Check that a role's user may read what its profile names, files of a folder included: those of the operator keep their owner.

    The kernel's own files are passed over: some of them nobody may read, and no operator could change that.

    Raises: StartRefused, naming the file.
    """
    user = find_user(role, configuration.confinement.first_uid)
    # Where root builds the file system that the process will see, the way to a file does not matter: by descriptor then.
    is_way_shown = may_administer() and not probe_platform(configuration.confinement.first_uid).no_private_root

    def read() -> None:
        found = [
            (path, os.open(path, os.O_PATH))
            for path in paths
            if os.path.exists(path) and not path.startswith(_KERNEL_FILES)
        ]
        become_user(user)
        for path, descriptor in found:
            _open_all(f"/proc/self/fd/{descriptor}" if is_way_shown else path, path)

    if reason := try_in_child(read):
        shared = user.groups[0] if user.groups else user.gid
        raise StartRefused(
            f"{reason}: cannot be read by uid {user.uid} (groups {', '.join(map(str, (user.gid, *user.groups)))}), as which "
            f"{role} runs; let it read the file (a secret one by `chgrp {shared}` and mode 0640), or "
            f"say confinement.first_uid = 0"
        )


def _open_all(path: str, name: str) -> None:
    """A file, or a folder and the files in it."""
    try:
        for each in [
            path,
            *(f"{path}/{inner}" for inner in (os.listdir(path) if stat.S_ISDIR(os.stat(path).st_mode) else ())),
        ]:
            if not stat.S_ISFIFO(os.stat(each).st_mode):
                os.close(os.open(each, os.O_RDONLY | os.O_NONBLOCK))
    except PermissionError as error:
        raise OSError(error.errno, f"{name}{str(error.filename).removeprefix(path)}") from error


def find_owner(path: str, first_uid: int) -> Owner:
    """The row of the table above for a path relative to the state folder."""
    groups = find_groups(first_uid)
    parts = Path(path).parts
    for depth in range(len(parts), 0, -1):
        role = _FOLDERS.get("/".join(parts[:depth]))
        if role is not None:
            user = find_user(role, first_uid)
            is_read = path in ("audit", "audit/log.vkey") or parts[:2] == ("audit", "log")
            return Owner(user.uid, user.gid, 0o050, _OTHERS) if is_read else Owner(user.uid, user.gid, 0, 0o077)
    if parts and parts[0] in ("models", "trust"):
        return Owner(0, groups.models, 0o050, _OTHERS)
    if path == CLIENT_KEY:
        console = find_user("console", first_uid)
        return Owner(console.uid, console.gid, 0, 0o077)
    if path == CLIENT_KEY_SET:
        return Owner(0, find_user("policy", first_uid).gid, 0o040, _OTHERS)
    if path in _SHARED:
        return Owner(0, groups.tls if parts[0] == "tls" else groups.credentials, 0o040, _OTHERS)
    return Owner(0, 0, 0o011, 0o066) if path in _ENTERED else Owner(0, 0, 0, 0o077)


def _was_given(state: Path) -> bool:
    """Whether the folder was one of several users'. Raises: StartRefused where that cannot be taken back."""
    if not any(is_reserved(path.lstat().st_uid) for name in _FOLDERS if os.path.lexists(path := state / name)):
        return False
    if os.geteuid() != 0:
        raise StartRefused(
            f"state_dir: {state} belongs to users of its own for each role: as root, run `chown -R {os.geteuid()} {state}` "
            f"and `chmod 600` on {' and '.join(_SHARED_KEYS)} in it"
        )
    return True


def settle(state: Path, owner_of: Callable[[str], Owner]) -> int:
    """Give everything below a folder to whom it belongs; gives how much has changed. Raises: OSError.

    The log comes last, with its contents before itself: once it has its owner it is passed over, as it may be large.
    """
    done = _settle(str(state), None, owner_of("."))
    for where, folders, files, descriptor in os.fwalk(state, follow_symlinks=False):
        relative = os.path.relpath(where, state)
        for name in (*files, *folders):
            path = os.path.normpath(os.path.join(relative, name))
            if path != _LOG:
                done += _settle(name, descriptor, owner_of(path))
        if relative == "audit" and "log" in folders:
            folders.remove("log")
    top, owner = state / _LOG, owner_of(_LOG)
    if top.is_dir() and (top.lstat().st_uid, top.lstat().st_gid) != (owner.uid, owner.gid):
        for _where, folders, files, descriptor in os.fwalk(top, topdown=False, follow_symlinks=False):
            done += sum(_settle(name, descriptor, owner) for name in (*files, *folders))
        done += _settle(str(top), None, owner)
    return done


def _settle(name: str, folder: int | None, owner: Owner) -> int:
    """One file or folder; gives 1 if something was changed."""
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    is_folder, is_file = stat.S_ISDIR(status.st_mode), stat.S_ISREG(status.st_mode)
    if is_file and status.st_nlink > 1:
        return 0
    mode = stat.S_IMODE(status.st_mode)
    wanted = (mode | owner.adds & (0o055 if is_folder else 0o044)) & ~owner.removes
    is_given = (status.st_uid, status.st_gid) != (owner.uid, owner.gid)
    if is_given:
        os.chown(name, owner.uid, owner.gid, dir_fd=folder, follow_symlinks=False)
    if wanted != mode and (is_folder or is_file):
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        try:
            os.fchmod(descriptor, wanted)
        finally:
            os.close(descriptor)
    return int(is_given or wanted != mode)
