"""All definitions as one document, for backups: the same for SQLite and PostgreSQL, so a backup of the one restores into the other.

The outbox of unrecorded changes is part of it. A document of another schema version is refused.
"""

import base64
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection, LargeBinary, Table

from security.errors import RegistryUnusable
from security.registry.database import Database
from security.registry.migrating import REVISIONS
from security.registry.tables import METADATA

_BYTES = "base64:"


class Archive(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The document."""

    revision: str
    tables: dict[str, list[dict[str, Any]]]


def export_definitions(database: Database) -> bytes:
    """Everything, as JSON, from one transaction. Raises: RegistryUnusable."""
    with database.transaction() as connection:
        tables = {table.name: _read(connection, table) for table in METADATA.sorted_tables}
    return msgspec.json.format(msgspec.json.encode(Archive(revision=REVISIONS[-1], tables=tables)))


def import_definitions(database: Database, data: bytes, *, actor: str, replace: bool = False) -> None:
    """Put everything from a document into a database that holds no definitions yet, or in place of those there.

    Raises: RegistryUnusable; the database is as it was then.
    """
    archive = _parse(data)
    with database.change("definitions_restored", "definitions", actor) as recording:
        connection = recording.connection
        counts = {table.name: _count(connection, table) for table in METADATA.sorted_tables}
        if not replace and any(counts[name] for name in ("clients", "users", "static_keys", "limits")):
            raise RegistryUnusable(f"{database.name} holds definitions already; say --replace to lose them")
        generation = database_generation(connection)
        for table in METADATA.sorted_tables:
            connection.execute(table.delete())
            rows = [_decode(table, row) for row in archive.tables[table.name]]
            if rows:
                connection.execute(table.insert(), rows)
        # Never a generation that somebody has seen with other contents.
        marks = METADATA.tables["marks"]
        newer = max(generation, database_generation(connection)) + 1
        connection.execute(marks.update().where(marks.c.name == "generation").values(value=newer))
        if connection.dialect.name == "postgresql":
            connection.execute(
                sa.text(
                    "SELECT setval(pg_get_serial_sequence('changes', 'number'), (SELECT coalesce(max(number), 0) + 1 FROM changes))"
                )
            )
        recording.before, recording.after = counts, {name: len(rows) for name, rows in archive.tables.items()}


def database_generation(connection: Connection) -> int:
    """The generation that stands in the database now."""
    marks = METADATA.tables["marks"]
    return int(connection.execute(sa.select(marks.c.value).where(marks.c.name == "generation")).scalar() or 0)


def _parse(data: bytes) -> Archive:
    try:
        archive = msgspec.json.decode(data, type=Archive)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RegistryUnusable(f"the backup's definitions cannot be read: {error}") from error
    if archive.revision != REVISIONS[-1]:
        raise RegistryUnusable(
            f"the backup has schema version {archive.revision!r}, this program has {REVISIONS[-1]}: restore it with the "
            "version that made it, then upgrade"
        )
    if archive.tables.keys() != METADATA.tables.keys():
        raise RegistryUnusable("the backup does not hold exactly the tables of this schema version")
    return archive


def _read(connection: Connection, table: Table) -> list[dict[str, Any]]:
    query = sa.select(table).order_by(*table.primary_key.columns)
    return [
        {
            name: _BYTES + base64.b64encode(value).decode() if isinstance(value, bytes) else value
            for name, value in row.items()
        }
        for row in connection.execute(query).mappings()
    ]


def _decode(table: Table, row: dict[str, Any]) -> dict[str, Any]:
    if set(row) != set(table.columns.keys()):
        raise RegistryUnusable(f"the backup's table {table.name} has other columns than this schema version")
    decoded = dict(row)
    for column in table.columns:
        value = decoded[column.name]
        if isinstance(column.type, LargeBinary) and value is not None:
            try:
                decoded[column.name] = base64.b64decode(str(value).removeprefix(_BYTES), validate=True)
            except ValueError as error:
                raise RegistryUnusable(f"the backup's table {table.name} holds bytes that are none") from error
    return decoded


def _count(connection: Connection, table: Table) -> int:
    return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())
