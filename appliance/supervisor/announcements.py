"""Tells whoever started us as a service what it cannot see: that everything is ready, that we are alive, that we are stopping.

The protocol is that of sd_notify(3): lines in a datagram to the Unix socket that NOTIFY_SOCKET names. With `Type=notify` and
`WatchdogSec=` systemd then calls a start done when clients can be served, and ends a supervisor whose loop stands still, as
the supervisor ends its processes. Where nobody gave a socket nothing is said, and nothing ever waits for an answer.
"""

import asyncio
import socket
from collections.abc import Sequence
from types import TracebackType

import structlog

from appliance.messages.control import ProcessState

log = structlog.get_logger(__name__)

_ALIVE_INTERVAL_S = 1.0


class Announcer:
    """One way: we tell, and are told nothing."""

    def __init__(self, address: str | None) -> None:
        """`address` is a path, or an abstract name behind an `@`; None where nobody wants to know."""
        self._socket: socket.socket | None = None
        self._is_stopping = False
        if not address:
            return
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            self._socket.connect(f"\0{address[1:]}" if address.startswith("@") else address)
        except OSError as error:
            log.warning("notify_socket_not_reached", address=address, reason=str(error))
            self._close()

    def __enter__(self) -> "Announcer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def tell_states(self, states: Sequence[ProcessState]) -> None:
        """What `systemctl status` shows, and that a stop has begun when the first process drains."""
        waiting = ", ".join(f"{one.role}/{one.instance}" for one in states if one.state != "ready")
        if not self._is_stopping and any(one.state == "draining" for one in states):
            self._is_stopping = True
            self._tell("STOPPING=1", "STATUS=stopping: open requests finish")
        elif not self._is_stopping:
            self._tell(f"STATUS={f'waiting for {waiting}' if waiting else 'all processes are ready'}")

    def tell_ready(self) -> None:
        """Clients can be served."""
        self._tell("READY=1")

    async def keep_alive(self) -> None:
        """Say once a second that the loop goes round; to be cancelled."""
        while True:
            self._tell("WATCHDOG=1")
            await asyncio.sleep(_ALIVE_INTERVAL_S)

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _tell(self, *lines: str) -> None:
        if self._socket is not None:
            try:
                self._socket.send("\n".join(lines).encode())
            except OSError as error:  # A manager that is being started again itself, or one that does not read.
                log.warning("notify_socket_not_told", told=lines[0], reason=str(error))
