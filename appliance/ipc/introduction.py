"""The peer check. The first bytes on a link name the sender, and the kernel says who sent them.

The supervisor makes each link as a socket pair and hands one end to each side, so `SO_PEERCRED` would name the
supervisor on both. `SO_PASSCRED` is stronger: the kernel attaches pid, uid and gid of the process that *sends*, at the time
it sends. A side accepts a link only if these are the pid and uid that the supervisor told it (unix(7), SCM_CREDENTIALS).
"""

import os
import socket
import struct

from appliance.errors import LinkClosed, MalformedMessage
from appliance.messages.control import GrantLink, Role
from security.sandbox.users import mapped_uid

_MAGIC = b"casemate-link/1\n"
_INTRODUCTION = struct.Struct("<16s16sI")
_CREDENTIALS = struct.Struct("3i")

INTRODUCTION_BYTES = _INTRODUCTION.size


def make_link_pair() -> tuple[socket.socket, socket.socket]:
    """A connected pair on which the kernel attaches the sender's credentials from the first byte on."""
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for end in pair:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    return pair


def introduce(sock: socket.socket, role: Role, instance: int) -> None:
    """Send our introduction; a fresh socket has room for it."""
    sock.sendall(_INTRODUCTION.pack(_MAGIC, role.encode(), instance))


def verify_introduction(sock: socket.socket, granted: GrantLink) -> None:
    """Read the peer's introduction from a readable socket and check it against what the supervisor said.

    Raises: MalformedMessage unless role, instance, pid and uid are exactly those; LinkClosed if the peer is gone. The link MUST
        then be closed.
    """
    data, ancillary, _flags, _address = sock.recvmsg(INTRODUCTION_BYTES, socket.CMSG_SPACE(_CREDENTIALS.size))
    credentials = [
        _CREDENTIALS.unpack(payload[: _CREDENTIALS.size])
        for level, kind, payload in ancillary
        if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS
    ]
    if not data:
        raise LinkClosed(f"{granted.role}/{granted.instance} ended before it introduced itself")
    if len(data) != INTRODUCTION_BYTES or len(credentials) != 1:
        raise MalformedMessage(f"no introduction from {granted.role}/{granted.instance}")
    magic, role, instance = _INTRODUCTION.unpack(data)
    pid, uid, _gid = credentials[0]
    came = (magic, role.rstrip(b"\0").decode("ascii", "replace"), instance, pid, uid)
    expected = (_MAGIC, granted.role, granted.instance, granted.pid, mapped_uid(granted.uid))
    if came != expected:
        raise MalformedMessage(
            f"a link for {granted.role}/{granted.instance} (pid {granted.pid}, uid {granted.uid}) "
            f"was used by pid {pid}, uid {uid} as {came[1]}/{instance}"
        )


def verify_control_peer(sock: socket.socket) -> None:
    """Check that the control socket was made by our parent process (SO_PEERCRED of a pair names its maker).

    Raises: MalformedMessage otherwise.
    """
    pid, _uid, _gid = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    if pid != os.getppid():
        raise MalformedMessage(f"the control socket belongs to pid {pid}, not to the parent process {os.getppid()}")
