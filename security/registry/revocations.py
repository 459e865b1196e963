"""Tokens that are void before they expire: one by its `jti`, or all that a client or person got until now.

A row lives as long as a token of that kind could; then `forget_expired` removes it.
"""

from typing import Literal

import sqlalchemy as sa
from sqlalchemy import Connection

from security.oauth.revocations import Revocation
from security.registry.database import Database
from security.registry.tables import REVOCATIONS

RevocationKind = Literal["token", "session", "client", "subject"]


class RevocationRegistry:
    """Revocations in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def revoke(self, kind: RevocationKind, value: str, expires_at: int, *, actor: str) -> None:
        """Void an access token (RFC 7009), or all that came from one sign-in. Raises: RegistryUnusable."""
        with self._database.change("token_revoked", value, actor) as recording:
            lifetime_s = max(0, expires_at - self._database.now)
            void_tokens(recording.connection, kind, value, self._database.now, lifetime_s)
            recording.after = {"expires_at": expires_at, "kind": kind}

    def forget_expired(self) -> None:
        """Remove what no token can be about any more. Raises: RegistryUnusable."""
        with self._database.transaction() as connection:
            connection.execute(REVOCATIONS.delete().where(REVOCATIONS.c.expires_at < self._database.now - 60))


def void_tokens(connection: Connection, kind: RevocationKind, value: str, now: int, lifetime_s: int) -> None:
    """Void a token, or all that a client or a person has. Within the caller's change."""
    where = sa.and_(REVOCATIONS.c.kind == kind, REVOCATIONS.c.value == value)
    connection.execute(REVOCATIONS.delete().where(where))
    row = {"kind": kind, "value": value, "revoked_at": now, "expires_at": now + lifetime_s}
    connection.execute(REVOCATIONS.insert().values(row))


def read_revocations(connection: Connection) -> list[Revocation]:
    """All of them. Raises: RegistryUnusable."""
    return [Revocation(*row) for row in connection.execute(sa.select(REVOCATIONS))]
