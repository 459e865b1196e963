"""Listening sockets that count what they accept: connections are bounded from their first moment on, before any TLS.

uvicorn knows of a connection only once its handshake is over; one that never begins it would be counted by nobody. A socket
that counts itself needs nothing of asyncio but what it does with any socket: accept, and close.
"""

import os
import socket
from typing import Any


class OpenConnections:
    """How many connections one worker holds, over all its listeners, and may hold."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.count = 0


class CountedListener(socket.socket):
    """A listening socket. Connections over the limit are closed unanswered."""

    def __init__(self, listener: socket.socket, connections: OpenConnections) -> None:
        """Serve a listener, which is closed with this."""
        super().__init__(fileno=os.dup(listener.fileno()))
        self.setblocking(False)
        self._listener = listener
        self._connections = connections

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection. Raises: ConnectionAbortedError for one over the limit, which asyncio passes over."""
        connection, address = super().accept()
        if self._connections.count >= self._connections.limit:
            connection.close()
            raise ConnectionAbortedError
        return _CountedConnection(connection, self._connections), address

    def close(self) -> None:
        """Listen no longer."""
        super().close()
        self._listener.close()


class _CountedConnection(socket.socket):
    """Counts from its making until it is closed."""

    def __init__(self, connection: socket.socket, connections: OpenConnections) -> None:
        super().__init__(fileno=connection.detach())
        self._connections: OpenConnections | None = connections
        connections.count += 1

    def close(self) -> None:
        """Close it, and count it no longer."""
        super().close()
        if self._connections is not None:
            self._connections.count -= 1
            self._connections = None
