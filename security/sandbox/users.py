"""A user of its own for each role, so that file permissions keep apart what Landlock and the private root keep apart already.

| id from `first_uid` | who |
|---|---|
| +0 … +8 | a user and its group for each role, in the order of `ROLES`; all processes of a role are one user |
| +16 | group: reads the listeners' private key (gateway, policy, authority, console) |
| +17 | group: reads the key under which credentials are hashed (policy, authority) |
| +18 | group: reads the log (the reader; the auditor's own group, so that it owns what the auditor makes) |
| +19 | group: reads the model store and whom the host believes (engine, gateway, compiler) |

All ids come from a range that systemd's table of users leaves to nobody (UIDS-GIDS: 60578 to 61183), so that no person and no
service is in a group of ours; `security.keys` lets a key be readable by such a group and by no other.
What always holds after `become_user`: the process cannot be another user again, and no capability is left.
"""

import os
from typing import NamedTuple

from security.sandbox import kernel, privileges
from security.sandbox.profiles import ConfinedRole

FIRST_FREE_ID, LAST_FREE_ID = 60_578, 61_183
NUM_IDS = 32
DEFAULT_FIRST_UID = 60_608
ROLES: tuple[ConfinedRole, ...] = (
    "gateway", "policy", "engine", "auditor", "authority", "compiler", "reader", "courier", "console",
)  # fmt: skip
"""Fixed for ever: files belong to these numbers. A new role is put at the end."""
_TLS, _CREDENTIALS, _LOG, _MODELS = 16, 17, 18, 19
_MEMBERS: dict[int, tuple[ConfinedRole, ...]] = {
    _TLS: ("gateway", "policy", "authority", "console"),
    _CREDENTIALS: ("policy", "authority"),
    _LOG: ("reader",),
    _MODELS: ("engine", "gateway", "compiler"),
}
_PRIVATE, _GROUP_READS = 0o077, 0o027


class User(NamedTuple):
    """Who a process is to be."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    umask: int

    @classmethod
    def decode(cls, values: list[object] | None) -> "User | None":
        """Back from JSON, where tuples are lists."""
        if values is None:
            return None
        uid, gid, groups, umask = values
        return cls(uid, gid, tuple(groups), umask)  # type: ignore[arg-type]


class Groups(NamedTuple):
    """The groups that share something."""

    tls: int
    credentials: int
    log: int
    models: int


def is_reserved(number: int) -> bool:
    """Whether a user or group may be one of ours, and is nobody else's."""
    return FIRST_FREE_ID <= number <= LAST_FREE_ID


def is_ours(number: int) -> bool:
    """Whether an owner or group that the kernel names is one of the roles'."""
    return is_reserved(number) or _is_hidden_from_role(number)


def is_roots(number: int) -> bool:
    """Whether an owner that the kernel names is root."""
    return number == 0 or _is_hidden_from_role(number)


def _is_hidden_from_role(number: int) -> bool:
    """In a role's user namespace all ids but its own look alike: there the supervisor has checked whose a file is."""
    return is_reserved(os.geteuid()) and number == mapped_uid(0) != 0


def find_groups(first_uid: int) -> Groups:
    """Their numbers."""
    return Groups(*(first_uid + offset for offset in (_TLS, _CREDENTIALS, _LOG, _MODELS)))


def find_user(role: ConfinedRole, first_uid: int) -> User:
    """The row of the table above for one role."""
    own = first_uid + ROLES.index(role)
    groups = tuple(first_uid + offset for offset, members in _MEMBERS.items() if role in members)
    if role == "auditor":  # What it makes is the log's group's to read, but for what it makes private.
        return User(own, first_uid + _LOG, groups, _GROUP_READS)
    return User(own, own, groups, _PRIVATE)


def become_user(user: User) -> list[str]:
    """Be `user` from now on, for good.

    Returns: what was done, in words.
    Raises: OSError, and then this process is not what it should be: it MUST end.
    """
    privileges.drop_bounding_set()  # Takes a capability that is gone with the user.
    os.setgroups(user.groups)
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)
    os.umask(user.umask)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 1)  # Or its own /proc/self would be root's; stage two takes it away again.
    return ["a user of its own"]


def mapped_uid(uid: int) -> int:
    """What the kernel tells this process of a user of the host: the same, or "nobody" where its user namespace has no such id."""
    with open("/proc/self/uid_map") as lines:
        ranges = [tuple(map(int, line.split())) for line in lines]
    if any(start <= uid < start + count for start, _outside, count in ranges):
        return uid
    with open("/proc/sys/kernel/overflowuid") as file:
        return int(file.read())
