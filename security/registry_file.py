"""The client registry's file: how it is opened, which schema it has, and how an older one is brought up to date.

The schema version stands in `user_version`. An older file is migrated in one transaction; a migration that fails changes
nothing and is an error; a newer file, or one that is not ours, is refused and left alone.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from security.errors import RegistryUnusable

APPLICATION_ID = 0x436D4374
_BUSY_TIMEOUT_S = 5.0

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE clients (
            client_id TEXT PRIMARY KEY,
            name TEXT NOT NULL,
            role TEXT NOT NULL,
            tenant TEXT NOT NULL,
            scopes TEXT NOT NULL,
            models TEXT,
            secret_hash BLOB NOT NULL CHECK (length(secret_hash) = 32),
            created_at INTEGER NOT NULL,
            secret_created_at INTEGER NOT NULL,
            disabled_at INTEGER
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE changes (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            at INTEGER NOT NULL,
            action TEXT NOT NULL,
            client_id TEXT NOT NULL,
            actor TEXT NOT NULL
        ) STRICT""",
    ),
)
"""Statement by statement, one tuple a version; only ever appended to."""


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """A write transaction: all of it or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Connect to an existing file, never making one.

    Raises: RegistryUnusable.
    """
    with naming(path):
        uri = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rw'}"
        connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA synchronous = FULL")
        return connection


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the file to this program's schema, or leave it exactly as it was.

    Raises: RegistryUnusable.
    """
    with naming(path):
        # Not WAL, whose readers write to a shared index: policy reads in a sandbox that lets it write nothing.
        connection.execute("PRAGMA journal_mode = DELETE")
        with transaction(connection):
            version = verify_schema(connection, path)
            for statements in MIGRATIONS[version:]:
                for statement in statements:
                    connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


def verify_schema(connection: sqlite3.Connection, path: Path) -> int:
    """Check that the file is ours, sound and not of a later version.

    Returns: its schema version.
    Raises: RegistryUnusable.
    """
    with naming(path):
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (num_tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if application != APPLICATION_ID and (version != 0 or num_tables != 0):
            raise RegistryUnusable(f"{path} is a database, but not a client registry")
        if version > len(MIGRATIONS):
            raise RegistryUnusable(
                f"{path} has schema version {version}, this program knows up to {len(MIGRATIONS)}: it was used by a later one"
            )
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise RegistryUnusable(f"{path} is damaged: {verdict}")
        return int(version)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn what SQLite and the system say of the file into RegistryUnusable, which names it."""
    try:
        yield
    except sqlite3.Error as error:
        raise RegistryUnusable(f"client registry {path}: {error}") from error
    except OSError as error:
        raise RegistryUnusable(f"client registry {path} cannot be opened: {error.strerror}") from error
