"""System calls that Python does not offer, through libc: one checked call each, errors as OSError.

Source: landlock(7), capabilities(7), namespaces(7), mount(2), mount_setattr(2), seccomp(2), prctl(2) and the kernel's uapi headers.
"""

import ctypes
import os

LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
"""Numbers since 5.13 are the same on every architecture."""

PR_SET_DUMPABLE = 4
PR_GET_SECCOMP = 21
PR_CAPBSET_READ, PR_CAPBSET_DROP = 23, 24
PR_SET_SECUREBITS = 28
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4

OPEN_TREE, MOVE_MOUNT, MOUNT_SETATTR = 428, 429, 442
"""The same everywhere, too. Linux 5.12 has all three."""

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x0002_0000, 0x1000_0000, 0x4000_0000

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def syscall(number: int, *arguments: "int | ctypes.Array[ctypes.c_char] | bytes | None") -> int:
    """A raw system call; integers are passed as long, buffers as their address.

    Raises: OSError.
    """
    converted = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return _checked(_libc.syscall(ctypes.c_long(number), *converted), f"system call {number}")


def prctl(option: int, *arguments: int) -> int:
    """prctl(2). Raises: OSError."""
    padded = (*arguments, 0, 0, 0, 0)[:4]
    result: int = _libc.prctl(option, *(ctypes.c_ulong(value) for value in padded))
    return _checked(result, f"prctl {option}")


def unshare(flags: int) -> None:
    """unshare(2). Raises: OSError."""
    _checked(_libc.unshare(flags), "unshare")


def setns(descriptor: int, flags: int) -> None:
    """setns(2): enter a namespace; for this thread alone. Raises: OSError."""
    _checked(_libc.setns(descriptor, flags), "setns")


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """mount(2). Raises: OSError."""
    arguments = (source.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), options.encode())
    _checked(_libc.mount(*arguments), f"mount on {target}")


def unmount(target: str, flags: int) -> None:
    """umount2(2). Raises: OSError."""
    _checked(_libc.umount2(os.fsencode(target), flags), f"umount {target}")


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2). Raises: OSError."""
    _checked(_libc.pivot_root(os.fsencode(new), os.fsencode(old)), "pivot_root")


def capset(header: bytes, data: bytes) -> None:
    """capset(2). Raises: OSError."""
    _checked(_libc.capset(header, data), "capset")


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result
