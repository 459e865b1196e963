"""Accepts connections, and counts them from their first moment on, before any TLS.

uvicorn knows of a connection only once its handshake is over; one that never begins it would be counted by nobody. So the
listeners are read here, whichever event loop there is, and a connection has a place until it is lost. One source may have a
share of the places only: whoever takes all of it leaves the others to others.

Each worker has a listener of its own, among which the kernel deals out the connections, and reads those of its siblings too: what
a sibling has not taken after PATIENCE_S, as it is away or very busy, is taken here.
"""

import asyncio
import errno
import ipaddress
import socket
import ssl
from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)

_ACCEPTED_AT_ONCE = 64
"""So that a flood of connections leaves turns to those that are served."""
_RETRY_S = 1.0
PATIENCE_S = 0.05
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_STILLBORN = (
    errno.EPROTO,
    errno.ENETDOWN,
    errno.ENOPROTOOPT,
    errno.EHOSTDOWN,
    errno.ENONET,
    errno.EHOSTUNREACH,
    errno.EOPNOTSUPP,
    errno.ENETUNREACH,
    errno.EPERM,
)
"""What accept(2) passes on of a connection that has failed already, or that a firewall forbids: no fault of the listener's."""


class OpenConnections:
    """How many connections one worker holds, over all its listeners, and may hold: in all, and from one source."""

    def __init__(self, limit: int, limit_per_source: int) -> None:
        self._limit = limit
        self._limit_per_source = limit_per_source
        self._sources: dict[str, int] = {}
        self.count = 0

    def take_place(self, address: str) -> "Place | None":
        """A place for one connection; None if there is none left, or its source has its share."""
        source = source_of(address)
        held = self._sources.get(source, 0)
        if self.count >= self._limit or held >= self._limit_per_source:
            return None
        self._sources[source] = held + 1
        self.count += 1
        return Place(self, source)

    def give_back(self, source: str) -> None:
        """A connection of this source is gone."""
        self.count -= 1
        self._sources[source] -= 1
        if not self._sources[source]:
            del self._sources[source]


def source_of(address: str) -> str:
    """Whom an address counts for: itself, of IPv6 its network of 64 bits, in which one host has all the addresses it likes
    (RFC 7934)."""
    if ":" not in address:
        return address
    parsed = ipaddress.IPv6Address(address)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return f"{ipaddress.IPv6Address(int(parsed) >> 64 << 64)}/64"


class Place:
    """One connection's place."""

    def __init__(self, connections: OpenConnections, source: str) -> None:
        self._connections: OpenConnections | None = connections
        self._source = source

    def give_back(self) -> None:
        """The connection is gone; may be called more than once."""
        connections, self._connections = self._connections, None
        if connections is not None:
            connections.give_back(self._source)


class Acceptor:
    """Serves one listener until it is closed; in uvicorn's hands it stands for a server."""

    def __init__(
        self,
        listener: socket.socket,
        connections: OpenConnections,
        make_protocol: Callable[[Place], asyncio.BaseProtocol],
        tls: ssl.SSLContext | None,
        handshake_timeout_s: float,
        patience_s: float = 0.0,
    ) -> None:
        """Begin to accept.

        Args:
            listener: bound and listening; closed with this.
            make_protocol: the protocol MUST give its place back when its connection is lost.
            patience_s: how long a connection is left to others before it is taken here.
        """
        listener.setblocking(False)
        self._listener = listener
        self._connections = connections
        self._make_protocol = make_protocol
        self._tls = tls
        self._handshake_timeout_s = handshake_timeout_s
        self._patience_s = patience_s
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[None]] = set()
        self._retry: asyncio.TimerHandle | None = None
        self._resume()

    def close(self) -> None:
        """Listen no longer, and give up the handshakes under way."""
        if self._listener.fileno() < 0:
            return
        if self._retry is not None:
            self._retry.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()
        for task in self._opening:
            task.cancel()

    async def wait_closed(self) -> None:
        """Wait until no handshake is under way."""
        await asyncio.gather(*self._opening, return_exceptions=True)

    def _resume(self) -> None:
        self._retry = None
        self._loop.add_reader(self._listener, self._wait if self._patience_s else self._accept)

    def _wait(self) -> None:
        """A sibling has a connection to take."""
        self._loop.remove_reader(self._listener)
        self._retry = self._loop.call_later(self._patience_s, self._help)

    def _help(self) -> None:
        self._resume()
        self._accept()

    def _accept(self) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                connection, address = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if isinstance(error, ConnectionAbortedError) or error.errno in _STILLBORN:
                    continue
                if error.errno not in _EXHAUSTED:
                    raise
                log.error("cannot_accept", reason=error.strerror)
                self._loop.remove_reader(self._listener)
                self._retry = self._loop.call_later(_RETRY_S, self._resume)
                return
            place = self._connections.take_place(address[0])
            if place is None:
                connection.close()
                continue
            connection.setblocking(False)
            task = self._loop.create_task(self._open(connection, place))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open(self, connection: socket.socket, place: Place) -> None:
        """The handshake, if there is one; afterwards the protocol owns the connection."""
        try:
            await self._loop.connect_accepted_socket(
                lambda: self._make_protocol(place),
                connection,
                ssl=self._tls,
                ssl_handshake_timeout=None if self._tls is None else self._handshake_timeout_s,
                # To whoever does not answer to the end of TLS: asyncio would keep the connection for another half minute.
                ssl_shutdown_timeout=None if self._tls is None else self._handshake_timeout_s,
            )
        except BaseException as error:
            connection.close()
            place.give_back()
            # What strangers do during a handshake is not worth a line.
            if not isinstance(error, OSError | asyncio.CancelledError):
                raise
