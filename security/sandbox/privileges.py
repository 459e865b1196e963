"""No new privileges, no capabilities, no core dumps, no descriptors but those that are named.

There is no limit on address space: CUDA and memory-mapped weights reserve far more than they use. There is none on processes,
as RLIMIT_NPROC counts everything of the user on the host; the filter of stage two refuses new processes instead.
"""

import os
import resource
import struct
from collections.abc import Iterable

from security.sandbox import kernel

_CAPABILITY_VERSION_3 = 0x2008_0522
_LAST_CAPABILITY = 63
_MOST_DESCRIPTORS = 1 << 20
_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH, _CAP_FOWNER = 1, 2, 3
_SECUREBITS = 0x2F | 0xC0
"""NOROOT, NO_SETUID_FIXUP, NO_CAP_AMBIENT_RAISE, each locked; KEEP_CAPS off and locked: being uid 0 means nothing."""


def forbid_new_privileges() -> list[str]:
    """exec() never gives more than there is (set-uid programs, file capabilities). Raises: OSError."""
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    return ["no new privileges"]


def drop_capabilities(needed: Iterable[str]) -> list[str]:
    """Give up every capability, for exec too.

    Args:
        needed: paths that must still be readable. Where root runs on files of another user, closed to others, the three
            capabilities that let root open any file stay; Landlock bounds which.
    Returns: what was done, in words.
    Raises: OSError.
    """
    kernel.prctl(kernel.PR_CAP_AMBIENT, kernel.PR_CAP_AMBIENT_CLEAR_ALL)
    _set_capabilities(effective=0, permitted=_permitted())
    file_access = 1 << _CAP_DAC_OVERRIDE | 1 << _CAP_DAC_READ_SEARCH | 1 << _CAP_FOWNER
    keep = 0 if all(map(_is_readable, needed)) else file_access & _permitted()
    _set_capabilities(effective=_permitted(), permitted=_permitted())
    drop_bounding_set(keep)
    if keep:
        _set_capabilities(effective=keep, permitted=keep)
        return ["no capabilities but opening files of other users"]
    if _permitted() >> 8 & 1:  # CAP_SETPCAP
        kernel.prctl(kernel.PR_SET_SECUREBITS, _SECUREBITS)
    _set_capabilities(effective=0, permitted=0)
    return ["no capabilities"]


def drop_bounding_set(keep: int = 0) -> None:
    """No exec gives a capability again, but those in `keep`. Raises: OSError."""
    for number in range(_LAST_CAPABILITY + 1):
        if not keep >> number & 1 and _is_in_bounding_set(number):
            _drop_bound(number)


def keep_reading_only() -> None:
    """Of what this process may have, have CAP_DAC_READ_SEARCH alone; the rest can be had again. Raises: OSError."""
    permitted = _permitted()
    _set_capabilities(effective=permitted & 1 << _CAP_DAC_READ_SEARCH, permitted=permitted)


def missing_capabilities(names: dict[str, int]) -> list[str]:
    """Which of these capabilities this process does not have."""
    with open("/proc/self/status", "rb") as status:
        effective = next(int(line.split()[1], 16) for line in status if line.startswith(b"CapEff:"))
    return [name for name, number in names.items() if not effective >> number & 1]


def may_administer() -> bool:
    """Whether this process can make namespaces and mounts without a user namespace (CAP_SYS_ADMIN)."""
    return not missing_capabilities({"CAP_SYS_ADMIN": 21})


def limit_resources(max_open_files: int) -> list[str]:
    """No core dumps, which would hold prompts and keys; a bound on descriptors."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    bound = max_open_files if hard == resource.RLIM_INFINITY else min(max_open_files, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (bound, bound))
    for kind in (resource.RLIMIT_RTPRIO, resource.RLIMIT_MSGQUEUE):
        resource.setrlimit(kind, (0, 0))
    return ["no core dumps"]


def close_all_but(kept: Iterable[int]) -> list[str]:
    """Close every descriptor but the three standard ones and `kept`."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    first = 3
    for descriptor in sorted(kept):
        os.closerange(first, descriptor)
        first = descriptor + 1
    os.closerange(first, _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else hard)
    return []


def hide_memory() -> None:
    """No process of the same user may attach, or read memory and environment (PR_SET_DUMPABLE). exec() undoes it."""
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)


def _permitted() -> int:
    with open("/proc/self/status", "rb") as status:
        return next(int(line.split()[1], 16) for line in status if line.startswith(b"CapPrm:"))


def _set_capabilities(*, effective: int, permitted: int) -> None:
    mask = 0xFFFF_FFFF
    data = struct.pack(
        "=6I", effective & mask, permitted & mask, 0, effective >> 32, permitted >> 32, 0
    )  # fmt: skip
    kernel.capset(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0), data)


def _is_in_bounding_set(number: int) -> bool:
    try:
        return kernel.prctl(kernel.PR_CAPBSET_READ, number) == 1
    except OSError:  # Beyond the last capability of this kernel.
        return False


def _drop_bound(number: int) -> None:
    try:
        kernel.prctl(kernel.PR_CAPBSET_DROP, number)
    except PermissionError:  # Without CAP_SETPCAP; the permitted set is empty then, and no_new_privs keeps it so.
        return


def _is_readable(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
    except PermissionError:
        return False
    except OSError:
        return True
    return True
