"""What this system can enforce, and what follows where it cannot.

Probed once, by a process that is not confined yet; a confined one could not try any more, and is told by its launcher.
"""

import os
import sys
from pathlib import Path

from security.sandbox import landlock, mounts, namespaces, privileges, seccomp
from security.sandbox.abilities import Platform
from security.sandbox.lending import owns_range, why_not_lent
from security.sandbox.profiles import SYSTEM_FILES, Code, find_code_files, find_interpreter
from security.sandbox.users import ROLES, User, become_user, find_user

_NEEDED = {"CAP_CHOWN": 0, "CAP_DAC_OVERRIDE": 1, "CAP_FOWNER": 3, "CAP_KILL": 5, "CAP_SETGID": 6, "CAP_SETUID": 7}
"""What a supervisor of several users does: give files away, look after them, end processes, and become them."""


_known: dict[int, Platform] = {}
_assumed: list[Platform] = []


def probe_platform(first_uid: int = 0) -> Platform:
    """Find out, at most once in a process for each argument; costs a few forks and namespaces.

    Args:
        first_uid: where the range of the roles' users begins; 0 for none.
    """
    if _assumed:
        return _assumed[0]
    if first_uid not in _known:
        _known[first_uid] = _probe(first_uid)
    return _known[first_uid]


def assume_platform(platform: Platform) -> None:
    """Take what was probed before this process was confined."""
    _assumed[:] = [platform]


def _probe(first_uid: int) -> Platform:
    no_own_users = _why_no_own_users(first_uid)
    # The last of the roles stands for all of them. Who may not make namespaces as root makes them as that user.
    user = None if no_own_users or privileges.may_administer() else find_user(ROLES[-1], first_uid)
    no_private_root = namespaces.try_in_child(lambda: _enter_private_root(("/proc/self",), user))
    if not no_own_users:
        reason = namespaces.try_in_child(lambda: _read_code_as(first_uid, shows_code=not no_private_root))
        no_own_users = reason and f"a process of another user cannot run our code: {reason}"
    return Platform(
        landlock_abi=landlock.probe_abi(),
        no_empty_network=namespaces.try_in_child(lambda: _enter_empty_network(user)),
        has_filter=seccomp.is_supported(),
        no_private_root=no_private_root,
        no_own_users=no_own_users,
    )


def _enter_empty_network(user: User | None) -> None:
    if user is not None:
        become_user(user)
    namespaces.enter_namespaces(network=True)


def _enter_private_root(read: tuple[str, ...], user: User | None) -> None:
    if user is not None:
        become_user(user)
    namespaces.enter_namespaces(mounts=True)
    mounts.replace_root(read, ("/dev/null",))
    os.close(os.open("/dev/null", os.O_WRONLY))


def _why_no_own_users(first_uid: int) -> str:
    if not first_uid:
        return "confinement.first_uid is 0"
    if os.geteuid() != 0:
        return why_not_lent() or "only root can start processes as other users, and no casemate-users.service lends any"
    if not owns_range(first_uid):
        return f"the ids from {first_uid} on do not exist here: a user namespace has others"
    missing = privileges.missing_capabilities(_NEEDED)
    return f"root has no {', '.join(missing)} here" if missing else ""


def _read_code_as(first_uid: int, *, shows_code: bool) -> None:
    """Be one of the users, in the order that the launcher has, and read what every process reads."""
    own, user = Path(__file__).parents[1], find_user(ROLES[-1], first_uid)
    read = (*find_interpreter(), sys.executable, *find_code_files(Code((own,))), *SYSTEM_FILES)
    if not privileges.may_administer():
        become_user(user)
    if shows_code:
        _enter_private_root(read, None)
    if os.geteuid() == 0:
        become_user(user)
    for path in (__file__, os.__file__, sys.executable, "/proc/self/status"):
        os.close(os.open(path, os.O_RDONLY))
