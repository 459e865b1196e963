"""What the registry says of clients, held in memory and read again when it has changed.

The file is the command line's and the authority's to write; policy only reads. Looking whether it changed costs one pragma
and is done at most every `max_age_s`, so a disabled client is refused within that time, whatever tokens it holds. For a
client that is not known it is done at once: it may have been created a moment ago, and only a valid token brings us here.
"""

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from security.clients import Client
from security.errors import RegistryUnusable, SecurityUnavailable
from security.registry import read_clients
from security.registry_file import connect, verify_schema


class ClientDefinitions:
    """A read-only view of the registry."""

    def __init__(self, path: Path, *, max_age_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._max_age_s = max_age_s
        self._clock = clock
        self._connection: sqlite3.Connection | None = None
        self._version = -1
        self._looked_at = -max_age_s
        self._clients: dict[str, Client] = {}

    def find(self, client_id: str) -> Client | None:
        """The client of this id, at most `max_age_s` old; None only after a look at the file now.

        Raises: SecurityUnavailable when the registry cannot be read: nobody is let in on old knowledge.
        """
        now = self._clock()
        if now - self._looked_at >= self._max_age_s or client_id not in self._clients:
            try:
                self._look()
            except (RegistryUnusable, sqlite3.Error) as error:
                self.close()
                raise SecurityUnavailable(f"the definitions of clients cannot be read: {error}") from error
            self._looked_at = now
        return self._clients.get(client_id)

    def close(self) -> None:
        """Close the file; the next look opens it again."""
        if self._connection is not None:
            self._connection.close()
        self._connection, self._version = None, -1

    def _look(self) -> None:
        if self._connection is None:
            self._connection = connect(self._path, read_only=True)
            verify_schema(self._connection, self._path)
        # data_version changes when another connection has committed (sqlite.org/pragma.html#pragma_data_version).
        (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        if version != self._version:
            self._clients = {client.client_id: client for client in read_clients(self._connection)}
            self._version = version
