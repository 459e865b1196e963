"""One connection to the definitions: transactions, and changes that cannot happen without a record.

SQLite is opened as a file that nobody else can read, with a rollback journal and full syncs; PostgreSQL by a URL. Whatever
SQL or the system say becomes `RegistryUnusable`, which names the database without its password.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from security.errors import ClientRejected, RegistryUnusable
from security.keys import make_private_directory
from security.registry.migrating import REVISIONS, find_revision, migrate
from security.registry.tables import CHANGES, MARKS

_BUSY_TIMEOUT_S = 5.0
_LOCK_NUMBER = 0x436D4374
_CONNECT_TIMEOUT_S = 5


class Source(msgspec.Struct, frozen=True):
    """From where a change was asked for over a network, and by which token."""

    address: str
    port: int
    client_id: str = ""
    token_id: str = ""


class Change(msgspec.Struct, frozen=True):
    """One change to the definitions, waiting to be recorded."""

    number: int
    at: int
    action: str
    """The kind of its audit event."""
    target: str
    actor: str
    before: str
    """JSON, without secrets, as is `after`."""
    after: str
    source: Source | None
    """None for what was done on the host."""


class Database:
    """Owner of one engine. Not to be used by two threads at once."""

    def __init__(self, engine: Engine, name: str, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._clock = clock
        self._source: Source | None = None
        self.name = name

    @classmethod
    def open(cls, location: Path | str, *, clock: Callable[[], float] = time.time) -> Self:
        """Open the definitions in a SQLite file or at a PostgreSQL URL, made or migrated where needed.

        Raises: RegistryUnusable.
        """
        engine = _open_file(location) if isinstance(location, Path) else _open_server(location)
        database = cls(engine, engine.url.render_as_string(hide_password=True), clock)
        if isinstance(location, Path):
            database.name = str(location)
        try:
            database._prepare()
        except BaseException:
            engine.dispose()
            raise
        return database

    def close(self) -> None:
        """Close the connection."""
        self._engine.dispose()

    @property
    def now(self) -> int:
        """UTC, seconds since the epoch."""
        return int(self._clock())

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction: all of it or nothing, and all of it sees the same moment. Raises: RegistryUnusable."""
        with self._begin(self._engine) as connection:
            yield connection

    @contextmanager
    def change(self, action: str, target: str, actor: str) -> Iterator["Recording"]:
        """A transaction that leaves a row in the outbox, with what stood before and what stands after. One at a time.

        Raises: RegistryUnusable.
        """
        with self._alone() as connection:
            recording = Recording(connection)
            yield recording
            row = {
                "at": self.now,
                "action": action,
                "target": recording.target or target,
                "actor": actor,
                "before": json.dumps(recording.before, sort_keys=True, separators=(",", ":")),
                "after": json.dumps(recording.after, sort_keys=True, separators=(",", ":")),
                "source": "" if self._source is None else msgspec.json.encode(self._source).decode(),
            }
            connection.execute(CHANGES.insert().values(row))
            bump_generation(connection)

    @contextmanager
    def asked_from(self, source: Source | None) -> Iterator[None]:
        """Changes within it are recorded as asked for from there."""
        self._source = source
        try:
            yield
        finally:
            self._source = None

    @contextmanager
    def _alone(self) -> Iterator[Connection]:
        """A transaction that no other change overlaps with: SQLite locks the file, PostgreSQL is asked to.

        What is read after a wait for the lock must be of after the wait, so each statement has a snapshot of its own.
        """
        engine = self._engine
        if engine.dialect.name == "postgresql":
            engine = engine.execution_options(isolation_level="READ COMMITTED")
        with self._begin(engine) as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK_NUMBER)))
            yield connection

    @contextmanager
    def _begin(self, engine: Engine) -> Iterator[Connection]:
        try:
            with engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise RegistryUnusable(f"the definitions in {self.name} cannot be used: {_words(error)}") from error
        except UnicodeEncodeError:
            # Of a command's argument that is no UTF-8; no definition can have such a name.
            raise ClientRejected("what is asked for holds bytes that are no text in UTF-8") from None

    def read_generation(self) -> int:
        """A number that grows with every change. Raises: RegistryUnusable."""
        return self.read_mark("generation")

    def read_mark(self, name: str) -> int:
        """One of the marks; 0 where it is missing. Raises: RegistryUnusable."""
        with self.transaction() as connection:
            return int(connection.execute(sa.select(MARKS.c.value).where(MARKS.c.name == name)).scalar() or 0)

    def claim(self, owner: int) -> None:
        """Make sure that these definitions are of this owner, which they are of whoever claims them first.

        Args:
            owner: a number of 63 bits at most.
        Raises: RegistryUnusable where they are another's.
        """
        with self._alone() as connection:
            found = connection.execute(sa.select(MARKS.c.value).where(MARKS.c.name == "owner")).scalar()
            if found is None:
                connection.execute(MARKS.insert().values(name="owner", value=owner))
            elif found != owner:
                raise RegistryUnusable(
                    f"the definitions in {self.name} are another appliance's: its secrets are hashed under another key than ours"
                )

    def unrecorded_changes(self, limit: int = 100) -> list[Change]:
        """The oldest changes that are not in the audit log yet. Raises: RegistryUnusable."""
        with self.transaction() as connection:
            rows = connection.execute(sa.select(CHANGES).order_by(CHANGES.c.number).limit(limit))
            return [_parse_change(row) for row in rows.mappings()]

    def forget_change(self, number: int) -> None:
        """To be called when the change's record is durable. Raises: RegistryUnusable."""
        with self.transaction() as connection:
            connection.execute(CHANGES.delete().where(CHANGES.c.number == number))

    def _prepare(self) -> None:
        with self.transaction() as connection:
            if connection.dialect.name == "sqlite":
                _verify_sound(connection, self.name)
            if find_revision(connection, self.name) == REVISIONS[-1]:
                return
        with self._alone() as connection:
            migrate(connection, self.name)


class Recording:
    """A change under way: its connection, and what its record will say. Secrets MUST NOT be put here."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.target = ""
        self.before: Mapping[str, Any] = {}
        self.after: Mapping[str, Any] = {}


def _parse_change(row: Mapping[Any, Any]) -> Change:
    source = msgspec.json.decode(row["source"], type=Source) if row["source"] else None
    return Change(**{**row, "source": source})


def bump_generation(connection: Connection) -> None:
    """Say that the definitions are others now."""
    connection.execute(MARKS.update().where(MARKS.c.name == "generation").values(value=MARKS.c.value + 1))


def _open_file(path: Path) -> Engine:
    make_private_directory(path.parent)
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise RegistryUnusable(f"{path} cannot be opened: {error.strerror}") from error
    url = sa.URL.create("sqlite", database=str(path))
    engine = sa.create_engine(
        url, poolclass=sa.pool.StaticPool, connect_args={"timeout": _BUSY_TIMEOUT_S, "check_same_thread": False}
    )
    sa.event.listen(engine, "connect", _set_up_sqlite)
    # The driver begins no transaction before a DDL statement; SQLAlchemy's documentation has this remedy.
    sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


def _set_up_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None
    for pragma in ("trusted_schema = OFF", "journal_mode = DELETE", "synchronous = FULL"):
        connection.execute(f"PRAGMA {pragma}")


def _open_server(url: str) -> Engine:
    try:
        parsed = sa.make_url(url)
    except SQLAlchemyError as error:
        raise RegistryUnusable("policy.database_url is not a URL: expected postgresql://…") from error
    if parsed.drivername not in ("postgresql", "postgresql+psycopg"):
        raise RegistryUnusable(f"policy.database_url: expected postgresql://…, got {parsed.drivername}://…")
    parsed = parsed.set(drivername="postgresql+psycopg")
    try:
        return sa.create_engine(
            parsed,
            pool_size=1,
            max_overflow=0,
            pool_pre_ping=True,
            isolation_level="REPEATABLE READ",
            connect_args={"connect_timeout": _CONNECT_TIMEOUT_S, "application_name": "casemate"},
        )
    except ModuleNotFoundError as error:
        raise RegistryUnusable("policy.database_url needs the package psycopg: install casemate[postgresql]") from error


def _verify_sound(connection: Connection, name: str) -> None:
    verdict = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    if verdict != "ok":
        raise RegistryUnusable(f"{name} is damaged: {verdict}")


def _words(error: SQLAlchemyError) -> str:
    """What the driver said, without the statement and its parameters."""
    return str(getattr(error, "orig", None) or error).strip().splitlines()[0]
