"""The client registry: one SQLite file, written by the command line, read by authority and policy.

Every change is one transaction together with a row in `changes`, the outbox from which the authority appends to the audit log:
so a change cannot happen without its record, also while the appliance is down. The file itself is `registry_file`'s.
"""

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Self

import msgspec

from security.clients import (
    Client,
    ClientDefinition,
    IssuedSecret,
    hash_secret,
    is_secret_of,
    make_client_id,
    make_secret,
)
from security.errors import ClientRejected, MalformedDocument, RegistryUnusable
from security.keys import make_private_directory
from security.registry_file import connect, migrate, naming, transaction
from security.scopes import GRANTABLE, format_scopes, parse_role, parse_scopes

_NO_HASH = bytes(32)

ChangeAction = Literal["create", "disable", "rotate"]


class Change(msgspec.Struct, frozen=True):
    """One change to the registry, waiting to be recorded."""

    number: int
    at: int
    action: ChangeAction
    client_id: str
    actor: str


class ClientRegistry:
    """Owner of one connection. Methods raise ClientRejected for what is asked wrongly, RegistryUnusable for the file."""

    def __init__(self, connection: sqlite3.Connection, secret_key: bytes, clock: Callable[[], float]) -> None:
        self._connection = connection
        self._secret_key = secret_key
        self._clock = clock

    @classmethod
    def open(cls, path: Path, secret_key: bytes, *, clock: Callable[[], float] = time.time) -> Self:
        """Open the registry at `path`, made or migrated where needed.

        Raises: RegistryUnusable.
        """
        make_private_directory(path.parent)
        with naming(path):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            connection = connect(path)
            try:
                migrate(connection, path)
            except BaseException:
                connection.close()
                raise
        return cls(connection, secret_key, clock)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def create(self, definition: ClientDefinition, *, actor: str) -> IssuedSecret:
        """Register a client. The secret is in the answer and nowhere else."""
        definition.verify()
        now = int(self._clock())
        client = Client(
            client_id=make_client_id(definition.name),
            name=definition.name,
            role=definition.role,
            tenant=definition.tenant,
            scopes=GRANTABLE[definition.role] if definition.scopes is None else definition.scopes,
            models=definition.models,
            created_at=now,
            secret_created_at=now,
            disabled_at=None,
        )
        secret = make_secret()
        row = (
            client.client_id,
            client.name,
            client.role,
            client.tenant,
            format_scopes(client.scopes),
            None if client.models is None else json.dumps(client.models),
            hash_secret(self._secret_key, client.client_id, secret),
            now,
            now,
        )
        with self._change("create", client.client_id, actor):
            self._connection.execute("INSERT INTO clients VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)", row)
        return IssuedSecret(client=client, secret=secret)

    def find(self, client_id: str) -> Client | None:
        """The client of this id, disabled ones too."""
        found = read_clients(self._connection, client_id)
        return found[0] if found else None

    def all(self) -> list[Client]:
        """Every client, oldest first."""
        return sorted(read_clients(self._connection), key=lambda client: (client.created_at, client.client_id))

    def disable(self, client_id: str, *, actor: str) -> Client:
        """From now on it gets no token, and its tokens start no request. Disabling twice keeps the first time."""
        now = int(self._clock())
        with self._change("disable", client_id, actor):
            self._update(
                "UPDATE clients SET disabled_at = coalesce(disabled_at, ?) WHERE client_id = ?", now, client_id
            )
        return self._get(client_id)

    def rotate(self, client_id: str, *, actor: str) -> IssuedSecret:
        """Replace the secret; the old one ends now. Tokens it was used for live on until they expire."""
        secret = make_secret()
        digest = hash_secret(self._secret_key, client_id, secret)
        now = int(self._clock())
        with self._change("rotate", client_id, actor):
            self._update(
                "UPDATE clients SET secret_hash = ?, secret_created_at = ? WHERE client_id = ?", digest, now, client_id
            )
        return IssuedSecret(client=self._get(client_id), secret=secret)

    def authenticate(self, client_id: str, secret: str) -> Client | None:
        """The client, if it exists, is not disabled and this is its secret; the time taken does not tell which failed."""
        rows = self._execute("SELECT secret_hash FROM clients WHERE client_id = ?", client_id)
        stored: bytes = rows[0][0] if rows else _NO_HASH
        if not is_secret_of(self._secret_key, client_id, stored, secret):
            return None
        client = self.find(client_id)
        return None if client is None or client.is_disabled else client

    def unrecorded_changes(self, limit: int = 100) -> list[Change]:
        """The oldest changes that are not in the audit log yet."""
        query = "SELECT id, at, action, client_id, actor FROM changes ORDER BY id LIMIT ?"
        return [Change(*row) for row in self._execute(query, limit)]

    def forget_change(self, number: int) -> None:
        """To be called when the change's record is durable."""
        self._execute("DELETE FROM changes WHERE id = ?", number)

    def _execute(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(statement, parameters).fetchall()
        except sqlite3.Error as error:
            raise RegistryUnusable(f"the client registry cannot be used: {error}") from error

    def _get(self, client_id: str) -> Client:
        client = self.find(client_id)
        if client is None:
            raise ClientRejected(f"client {client_id[:80]!r} does not exist")
        return client

    def _update(self, statement: str, *parameters: object) -> None:
        if self._connection.execute(statement, parameters).rowcount != 1:
            raise ClientRejected(f"client {str(parameters[-1])[:80]!r} does not exist")

    @contextmanager
    def _change(self, action: ChangeAction, client_id: str, actor: str) -> Iterator[None]:
        try:
            with transaction(self._connection):
                yield
                self._connection.execute(
                    "INSERT INTO changes (at, action, client_id, actor) VALUES (?, ?, ?, ?)",
                    (int(self._clock()), action, client_id, actor),
                )
        except sqlite3.Error as error:
            raise RegistryUnusable(f"the client registry cannot be changed: {error}") from error


def read_clients(connection: sqlite3.Connection, client_id: str | None = None) -> list[Client]:
    """All clients, or the one of this id.

    Raises: RegistryUnusable if a row is not one that this program would have written.
    """
    columns = "client_id, name, role, tenant, scopes, models, created_at, secret_created_at, disabled_at"
    query, parameters = f"SELECT {columns} FROM clients", ()  # noqa: S608 - columns is a constant
    if client_id is not None:
        query, parameters = f"{query} WHERE client_id = ?", (client_id,)  # type: ignore[assignment]
    try:
        return [_parse_row(row) for row in connection.execute(query, parameters)]
    except sqlite3.Error as error:
        raise RegistryUnusable(f"the client registry cannot be read: {error}") from error
    except (MalformedDocument, ValueError, msgspec.ValidationError) as error:
        raise RegistryUnusable(f"the client registry holds a row that makes no sense: {error}") from error


def _parse_row(row: tuple[str, str, str, str, str, str | None, int, int, int | None]) -> Client:
    client_id, name, role, tenant, scopes, models, created_at, secret_created_at, disabled_at = row
    return Client(
        client_id=client_id,
        name=name,
        role=parse_role(role),
        tenant=tenant,
        scopes=parse_scopes(scopes),
        models=None if models is None else msgspec.json.decode(models, type=tuple[str, ...]),
        created_at=created_at,
        secret_created_at=secret_created_at,
        disabled_at=disabled_at,
    )
