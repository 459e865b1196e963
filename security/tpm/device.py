"""One command to a TPM and its answer, through the kernel's resource manager.

`/dev/tpmrm0` keeps what we load apart from what others load, and drops it when it is closed. The path may also be the socket of a
software TPM (swtpm), which has no resource manager; so what is loaded is flushed all the same.
"""

import os
import select
import socket
import stat
from pathlib import Path
from types import TracebackType

from security.errors import QuoteRejected, TpmUnavailable
from security.tpm.wire import Reader, sized, u8, u16, u32

_NO_SESSIONS, _SESSIONS = 0x8001, 0x8002
_EMPTY_PASSWORD = u32(0x40000009) + sized(b"") + u8(0) + sized(b"")
_MAX_ANSWER_BYTES = 4096
_TIMEOUT_S = 60.0
"""Making a key takes some TPMs many seconds."""


class Tpm:
    """An open TPM; a context manager that closes it."""

    def __init__(self, path: Path) -> None:
        """Raises: TpmUnavailable."""
        self._path = path
        self._socket: socket.socket | None = None
        try:
            if stat.S_ISSOCK(path.stat().st_mode):
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                self._socket.connect(os.fspath(path))
                self._descriptor = self._socket.fileno()
            else:
                self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            if self._socket is not None:
                self._socket.close()
            raise TpmUnavailable(f"{path}: {error.strerror}") from None

    def __enter__(self) -> "Tpm":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._socket is not None:
            self._socket.close()
        else:
            os.close(self._descriptor)

    def run(self, name: str, code: int, handles: bytes, parameters: bytes, *, is_authorized: bool = False) -> Reader:
        """Send one command, and give what follows the header of its answer (part 1, 18; part 3, 5).

        Args:
            is_authorized: the one handle is used with its password, which is empty.
        Raises: TpmUnavailable, also for an answer that says no.
        """
        area = u32(len(_EMPTY_PASSWORD)) + _EMPTY_PASSWORD if is_authorized else b""
        body = handles + area + parameters
        answer = self._exchange(
            u16(_SESSIONS if is_authorized else _NO_SESSIONS) + u32(10 + len(body)) + u32(code) + body
        )
        try:
            reader = Reader(answer)
            reader.take(2)
            if reader.number(4) != len(answer):
                raise QuoteRejected("the length is wrong")
            if (reply := reader.number(4)) != 0:
                raise TpmUnavailable(f"{self._path}: {name}: the TPM answered 0x{reply:03x}")
        except QuoteRejected as error:
            raise TpmUnavailable(f"{self._path}: {name}: {error}") from None
        return reader

    def _exchange(self, command: bytes) -> bytes:
        try:
            os.write(self._descriptor, command)
            if not select.select([self._descriptor], [], [], _TIMEOUT_S)[0]:
                raise TpmUnavailable(f"{self._path}: no answer within {_TIMEOUT_S:.0f} s")
            answer = os.read(self._descriptor, _MAX_ANSWER_BYTES)
            # A device gives an answer whole; a socket may give it in parts.
            while (
                self._socket is not None and 6 <= len(answer) < int.from_bytes(answer[2:6], "big") <= _MAX_ANSWER_BYTES
            ):
                answer += os.read(self._descriptor, _MAX_ANSWER_BYTES - len(answer)) or b"\0" * _MAX_ANSWER_BYTES
        except OSError as error:
            raise TpmUnavailable(f"{self._path}: {error.strerror}") from None
        return answer
