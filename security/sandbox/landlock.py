"""Landlock: which files a process can open, which TCP ports it can connect to, whom it can signal. Without privileges.

Rights that the kernel does not know are left out of what is handled, as landlock(7) advises; `platform` reports what then
is missing. Rules bind this process and what it becomes by exec; they cannot be taken back.
Source: landlock(7), Documentation/userspace-api/landlock.rst up to ABI 7.
"""

import os
import stat
import struct

from security.sandbox import kernel
from security.sandbox.profiles import Profile

_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH, _RULE_NET_PORT = 1, 2

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = (1 << bit for bit in range(4))
_REMOVE_DIR, _REMOVE_FILE = 1 << 4, 1 << 5
_MAKE_DIR, _MAKE_REG = 1 << 7, 1 << 8
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_NUM_FS_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""How many rights on files each ABI knows; later ones know as many as 5."""
_BIND_TCP, _CONNECT_TCP = 1, 2
_SCOPE_ABSTRACT_UNIX, _SCOPE_SIGNAL = 1, 2

_ON_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_READ = _READ_FILE | _READ_DIR
_WRITE = _READ | _WRITE_FILE | _TRUNCATE | _MAKE_REG | _MAKE_DIR | _REMOVE_FILE | _REMOVE_DIR | _REFER

ABI_REFER, ABI_NETWORK, ABI_SCOPE = 2, 4, 6


def probe_abi() -> int:
    """The kernel's Landlock ABI; 0 where there is none or it is switched off."""
    try:
        return kernel.syscall(kernel.LANDLOCK_CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION)
    except OSError:
        return 0


def restrict(profile: Profile, abi: int) -> list[str]:
    """Confine this process to `profile`. `no_new_privs` MUST be set already.

    Returns: what was applied, in words.
    Raises: OSError. With ABI 1 a process that writes cannot be confined: files could not move between its folders.
    """
    if abi < ABI_REFER and profile.writes:
        return []
    handled_fs = (1 << _NUM_FS_RIGHTS.get(abi, _NUM_FS_RIGHTS[5])) - 1
    handled_net = _BIND_TCP | _CONNECT_TCP if abi >= ABI_NETWORK else 0
    scoped = _SCOPE_ABSTRACT_UNIX | _SCOPE_SIGNAL if abi >= ABI_SCOPE else 0
    attributes = struct.pack("=QQQ", handled_fs, handled_net, scoped)
    size = 8 if abi < ABI_NETWORK else 16 if abi < ABI_SCOPE else 24
    ruleset = kernel.syscall(kernel.LANDLOCK_CREATE_RULESET, attributes, size, 0)
    try:
        for paths, rights in (
            (profile.runs, _READ | _EXECUTE),
            (profile.reads, _READ),
            (profile.lists, _READ_DIR),
            (profile.writes, _WRITE),
            (profile.devices, _READ | _WRITE_FILE | _TRUNCATE | _IOCTL_DEV),
        ):
            for path in paths:
                _allow_path(ruleset, path, rights & handled_fs)
        for port in profile.connects if handled_net else ():
            rule = struct.pack("=QQ", _CONNECT_TCP, port)
            kernel.syscall(kernel.LANDLOCK_ADD_RULE, ruleset, _RULE_NET_PORT, rule, 0)
        kernel.syscall(kernel.LANDLOCK_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return [name for name, rights in (("files", handled_fs), ("TCP ports", handled_net), ("signals", scoped)) if rights]


def _allow_path(ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # Missing, or behind a folder that we may not enter: nothing to allow.
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _ON_FILES
        rule = struct.pack("=Qi", rights, descriptor)
        kernel.syscall(kernel.LANDLOCK_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0)
    finally:
        os.close(descriptor)
