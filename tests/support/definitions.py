"""Definitions in a SQLite file of a test's own, with everything that changes them at hand."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from security.clients import Client, is_secret_of
from security.registry import database
from security.registry.clients import ClientRegistry
from security.registry.database import Change, Database
from security.registry.limits import LimitRegistry
from security.registry.revocations import RevocationRegistry
from security.registry.roles import RoleRegistry
from security.registry.static_keys import StaticKeyRegistry
from security.registry.users import UserRegistry

KEY = bytes(32)
_set_up = database._set_up_sqlite


def _set_up_unsynced(connection: Any, record: object) -> None:
    """No test cuts the power of these files, and a thousand of them are written ten times each."""
    _set_up(connection, record)
    connection.execute("PRAGMA synchronous = OFF")


class Registry(ClientRegistry):
    """Clients, and beside them everything else that is defined."""

    def __init__(self, path: Path | str, *, key: bytes = KEY, clock: Callable[[], float] = time.time) -> None:
        with patch.object(database, "_set_up_sqlite", _set_up_unsynced):
            self.database = Database.open(path, clock=clock)
        super().__init__(self.database, key)
        self.key = key
        self.users = UserRegistry(self.database, key)
        self.keys = StaticKeyRegistry(self.database, key)
        self.roles = RoleRegistry(self.database)
        self.limits = LimitRegistry(self.database)
        self.revocations = RevocationRegistry(self.database)

    def authenticate(self, client_id: str, secret: str) -> Client | None:
        """The client, if this is its secret and it is not disabled."""
        client = self.find(client_id)
        if client is None or client.is_disabled or client.secret_hash is None:
            return None
        return client if is_secret_of(self.key, client_id, client.secret_hash, secret) else None

    def changes(self) -> list[Change]:
        """What waits for its record."""
        return self.database.unrecorded_changes(1000)

    def execute(self, statement: str) -> None:
        """What an administrator with a database shell could do."""
        with self.database.transaction() as connection:
            connection.exec_driver_sql(statement)

    def close(self) -> None:
        """Close the file."""
        self.database.close()
