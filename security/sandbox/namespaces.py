"""A network namespace with nothing in it, or with `lo` alone.

Root makes one directly. Others need a user namespace first, which some systems forbid (kernel.unprivileged_userns_clone,
user.max_user_namespaces, Ubuntu's kernel.apparmor_restrict_unprivileged_userns, most containers). A process stuck in a user
namespace without a mapping would be nobody, so whether all of it works is tried in a child first.
"""

import fcntl
import os
import socket
import struct

from security.sandbox import kernel

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_IFREQ = struct.Struct("16sH22x")


def enter_empty_network(*, with_loopback: bool) -> list[str]:
    """Leave the host's network for good. Descriptors that are open stay what they are.

    Raises: OSError.
    """
    if os.geteuid() == 0:
        try:
            kernel.unshare(kernel.CLONE_NEWNET)
        except PermissionError:  # Root in a container, without CAP_SYS_ADMIN.
            _enter_as_user()
    else:
        _enter_as_user()
    if with_loopback:
        _bring_up_loopback()
    return ["a network of its own" if with_loopback else "an empty network"]


def probe_empty_network() -> str:
    """Try it in a child. Gives "" if it works, else why not."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        reason = ""
        try:
            enter_empty_network(with_loopback=True)
        except OSError as error:
            reason = error.strerror or str(error)
        os.write(write_end, reason.encode()[:512] or b"+")
        os._exit(0)
    os.close(write_end)
    with open(read_end, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    return "" if answer == b"+" else answer.decode(errors="replace") or "the attempt was killed"


def _enter_as_user() -> None:
    uid, gid = os.geteuid(), os.getegid()
    kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWNET)
    # The same numbers inside as outside, so that peers see the uid that the supervisor told them (user_namespaces(7)).
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def _bring_up_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = _IFREQ.pack(b"lo", 0)
        name, flags = _IFREQ.unpack(fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request))
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, _IFREQ.pack(name, flags | _IFF_UP))
