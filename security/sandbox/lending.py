"""Users for a supervisor that is none: a service of two capabilities lends it ids, and keeps the power over users to itself.

    casemate.service                            casemate-users.service (same user, CAP_SETUID and CAP_SETGID, nothing else)
    (1) connects: "ids, please"   ──────────▶   (2) opens /proc/PID of the process that connected
                                  ◀──────────   (3) "are you there?"
    (4) makes a user namespace
    (5) "here"                    ──────────▶   (6) writes its gid_map and uid_map: root is the lender's own user, the roles' ids
                                  ◀──────────       are themselves, and nobody else exists
    (7) looks at what it was given

Inside it is root over those ids and over nothing else: it may become them, give files to them and end their processes, and the
host's root, its users and their files are nobody's to it. So no unit has more power over users than that, which is what
`systemd-analyze security` counts. A process number that is used again between (1) and (2) is found by (5): who answers lives, so
the number was never free. Source: user_namespaces(7), "Defining user and group ID mappings", used as newuidmap(1) uses it.
"""

import contextlib
import os
import socket
import struct
from pathlib import Path

from security.errors import UsersNotLent
from security.sandbox import kernel
from security.sandbox.users import FIRST_FREE_ID, LAST_FREE_ID, NUM_IDS

SOCKET = Path("/run/casemate-users/socket")
_ASKED, _THERE, _HERE, _DONE = b"ids, please", b"are you there?", b"here", b"done"
_ANSWER_S = 10.0
_MAX_MESSAGE_BYTES = 256
_CREDENTIALS = struct.Struct("=3i")

_not_lent: list[str] = []


def borrow_users(address: Path = SOCKET) -> bool:
    """Be root over the roles' ids from now on, where somebody lends them. MUST be called before a second thread is started.

    Returns: whether that is so; `why_not_lent` tells the reason otherwise.
    Raises: UsersNotLent, for a process that has left the host's users and was given no others: it MUST end.
    """
    _not_lent.clear()
    if os.geteuid() == 0 or not os.path.exists(address):  # Nobody else may even look.
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as lender:
        lender.settimeout(_ANSWER_S)
        try:
            lender.connect(str(address))
            _say(lender, _ASKED, _THERE)  # (1)
            kernel.unshare(kernel.CLONE_NEWUSER)  # (4)
        except OSError as error:
            _not_lent.append(f"{address} lends none: {error.strerror or error}")
            return False
        try:
            _say(lender, _HERE, _DONE)  # (5)
        except OSError as error:
            raise UsersNotLent(f"{address}: {error.strerror or error}") from None
    if os.geteuid() != 0:  # (7)
        raise UsersNotLent(f"{address}: lent ids without root's")
    return True


def _say(lender: socket.socket, message: bytes, expected: bytes) -> None:
    lender.send(message)
    if (answer := lender.recv(_MAX_MESSAGE_BYTES)) != expected:
        raise OSError(answer.decode(errors="replace") or "the lender went away")


def why_not_lent() -> str:
    """What kept this process from borrowing; empty where nobody lends, or where it borrowed."""
    return _not_lent[0] if _not_lent else ""


def owns_range(first_uid: int) -> bool:
    """Whether the roles' ids exist for this process: the host's root has all, a borrower those that were lent."""
    wanted = range(first_uid, first_uid + NUM_IDS)
    return all(_is_mapped(name, wanted) for name in ("uid_map", "gid_map"))


def _is_mapped(name: str, wanted: range) -> bool:
    with open(f"/proc/self/{name}") as lines:
        ranges = [tuple(map(int, line.split())) for line in lines]
    return any(start <= wanted[0] and wanted[-1] < start + count for start, _outside, count in ranges)


def listen(address: Path = SOCKET) -> socket.socket:
    """The lender's socket, for its own user alone. What an earlier one has left is replaced. Raises: OSError."""
    with contextlib.suppress(FileNotFoundError):
        address.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    listener.bind(str(address))
    address.chmod(0o600)
    listener.listen()
    return listener


def lend_for_ever(listener: socket.socket, first_uid: int) -> None:
    """Answer one borrower after the other. A borrower that is silent is given up after some seconds.

    Raises: ValueError, if the ids may be somebody's.
    """
    if not FIRST_FREE_ID <= first_uid <= LAST_FREE_ID - NUM_IDS + 1:
        raise ValueError(f"expected 32 ids between {FIRST_FREE_ID} and {LAST_FREE_ID}, got them from {first_uid} on")
    while True:
        borrower, _ = listener.accept()
        with borrower:
            borrower.settimeout(_ANSWER_S)
            try:
                _lend(borrower, first_uid)
            except OSError as error:
                with contextlib.suppress(OSError):
                    borrower.send((error.strerror or str(error)).encode()[:_MAX_MESSAGE_BYTES])


def _lend(borrower: socket.socket, first_uid: int) -> None:
    found = borrower.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(found)
    _expect(borrower, _ASKED)
    if (uid, gid) != (os.geteuid(), os.getegid()):
        raise PermissionError(None, f"uid {uid}, gid {gid} is not who is lent to")
    process = os.open(f"/proc/{pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)  # (2)
    try:
        borrower.send(_THERE)  # (3)
        _expect(borrower, _HERE)
        for name, own in (("gid_map", gid), ("uid_map", uid)):  # (6)
            descriptor = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=process)
            with open(descriptor, "w") as file:
                file.write(f"0 {own} 1\n{first_uid} {first_uid} {NUM_IDS}\n")
    finally:
        os.close(process)
    borrower.send(_DONE)


def _expect(borrower: socket.socket, message: bytes) -> None:
    if (said := borrower.recv(_MAX_MESSAGE_BYTES)) != message:
        raise OSError(f"expected {message.decode()!r}, got {len(said)} bytes")
