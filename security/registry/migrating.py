"""Which schema a database has, and how it comes to ours, or is refused.

Alembic applies the migrations, and is imported only where there is one to apply: it costs a quarter of a second. A migration
that fails changes nothing and is an error; a later schema, or a database that is not ours, is refused and left alone.
"""

from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import Connection

from security.errors import RegistryUnusable

REVISIONS = ("0001", "0002", "0003")
"""Every revision that this program knows, oldest first."""
_VERSION_TABLE = "alembic_version"


def migrate(connection: Connection, name: str) -> None:
    """Bring the database to our schema within the caller's transaction, which MUST be rolled back if this raises.

    The caller MUST have locked out other programs: of two that start at once the second then finds the work done.
    Raises: RegistryUnusable.
    """
    if find_revision(connection, name) != REVISIONS[-1]:
        _upgrade(connection, name)


def find_revision(connection: Connection, name: str) -> str | None:
    """The database's revision; None if it is empty.

    Raises: RegistryUnusable if it is not ours, or of a later version.
    """
    tables = sa.inspect(connection).get_table_names()
    if not tables:
        return None
    if _VERSION_TABLE not in tables:
        raise RegistryUnusable(f"{name} is a database, but not one of definitions")
    found = connection.execute(sa.text(f"SELECT version_num FROM {_VERSION_TABLE}")).scalars().all()  # noqa: S608
    revision = found[0] if len(found) == 1 else ""
    if revision not in REVISIONS:
        raise RegistryUnusable(
            f"{name} has schema version {revision!r}, this program knows {REVISIONS[0]} to {REVISIONS[-1]}: "
            "it was used by a later one"
        )
    return revision


def _upgrade(connection: Connection, name: str) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except sa.exc.SQLAlchemyError as error:
        raise RegistryUnusable(f"{name} cannot be migrated: {error}") from error
