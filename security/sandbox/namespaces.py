"""Namespaces of its own for a process: of the network, with nothing in it, and of mounts.

Root makes them directly. Others need a user namespace first, which some systems forbid (kernel.unprivileged_userns_clone,
user.max_user_namespaces, Ubuntu's kernel.apparmor_restrict_unprivileged_userns, most containers). A process stuck in a user
namespace without a mapping would be nobody, so whether all of it works is tried in a child first.
"""

import os
from collections.abc import Callable

from security.sandbox import kernel


def enter_namespaces(*, network: bool = False, mounts: bool = False) -> None:
    """Leave the host's network, or its table of mounts, for good. Descriptors that are open stay what they are.

    Raises: OSError.
    """
    flags = (kernel.CLONE_NEWNET if network else 0) | (kernel.CLONE_NEWNS if mounts else 0)
    try:
        kernel.unshare(flags)
    except PermissionError:  # Without CAP_SYS_ADMIN: a plain user, or root in a container.
        _enter_as_user(flags)


def try_in_child(attempt: Callable[[], object]) -> str:
    """Do something in a child that ends afterwards. Gives "" if it works, else why not."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            attempt()
            os.write(write_end, b"+")
        except OSError as error:
            os.write(write_end, (error.strerror or str(error)).encode()[:512])
        finally:
            os._exit(0)
    os.close(write_end)
    with open(read_end, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    return "" if answer == b"+" else answer.decode(errors="replace") or "the attempt was killed"


def _enter_as_user(flags: int) -> None:
    uid, gid = os.geteuid(), os.getegid()
    kernel.unshare(kernel.CLONE_NEWUSER | flags)
    # The same numbers inside as outside, so that peers see the uid that the supervisor told them (user_namespaces(7)).
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
