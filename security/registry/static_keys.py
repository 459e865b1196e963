"""Changes to static keys. Methods raise ClientRejected for what is asked wrongly, RegistryUnusable for the database."""

import json
import secrets
from collections.abc import Sequence

import msgspec
import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection

from security.clients import verify_name
from security.errors import ClientRejected
from security.registry.clients import get_client
from security.registry.database import Database
from security.registry.rows import describe, parse_static_key
from security.registry.tables import STATIC_KEYS
from security.scopes import Role
from security.static_keys import (
    MAX_LIFETIME_DAYS,
    IssuedKey,
    StaticKey,
    digest_static_key,
    hash_key_digest,
    make_static_key,
    parse_networks,
)

_DAY_S = 86_400


class KeySelection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which keys a bulk revocation is about: all that fit everything that is said."""

    client_id: str | None = None
    tenant: str | None = None
    created_before: int | None = None
    expires_after: int | None = None
    everything: bool = False


class StaticKeyRegistry:
    """Keys in a database."""

    def __init__(self, database: Database, secret_key: bytes) -> None:
        self._database = database
        self._secret_key = secret_key

    def create(self, client_id: str, name: str, *, networks: tuple[str, ...], days: int, actor: str) -> IssuedKey:
        """Make a key for a client of role `user`. It is in the answer and nowhere else."""
        verify_name(name)
        canonical = parse_networks(networks)
        if not 1 <= days <= MAX_LIFETIME_DAYS:
            raise ClientRejected(f"days: expected 1 to {MAX_LIFETIME_DAYS}, got {days}")
        key_id, secret, now = f"key-{secrets.token_hex(8)}", make_static_key(), self._database.now
        row = {
            "key_id": key_id,
            "client_id": client_id,
            "name": name,
            "key_hash": hash_key_digest(self._secret_key, digest_static_key(secret)),
            "networks": json.dumps(list(canonical)),
            "created_at": now,
            "expires_at": now + days * _DAY_S,
        }
        with self._database.change("key_created", key_id, actor) as recording:
            client = get_client(recording.connection, client_id)
            if client.role is not Role.USER or client.kind != "service":
                raise ClientRejected(f"client {client_id!r}: static keys are for services of role user only")
            recording.connection.execute(STATIC_KEYS.insert().values(row))
            key = read_keys(recording.connection, STATIC_KEYS.c.key_id == key_id)[0]
            recording.after = describe(key)
        return IssuedKey(key=key, secret=secret)

    def all(self) -> list[StaticKey]:
        """Every key, oldest first, the revoked and expired ones too."""
        with self._database.transaction() as connection:
            return read_keys(connection)

    def select(self, selection: KeySelection) -> list[StaticKey]:
        """The keys that a bulk revocation would end: the dry run."""
        with self._database.transaction() as connection:
            return _select(connection, selection)

    def find(self, key_ids: Sequence[str]) -> list[StaticKey]:
        """These keys, in this order. Raises: ClientRejected if there is one that does not exist."""
        found: list[StaticKey] = []
        with self._database.transaction() as connection:
            for key_id in key_ids:
                keys = read_keys(connection, STATIC_KEYS.c.key_id == key_id)
                if not keys:
                    raise ClientRejected(f"key {key_id[:80]!r} does not exist")
                found += keys
        return found

    def revoke(self, key_ids: Sequence[str], *, actor: str) -> list[StaticKey]:
        """End keys, all of them or none; one change each. A key that is revoked already stays as it is."""
        revoked: list[StaticKey] = []
        self.find(key_ids)
        for key_id in key_ids:
            with self._database.change("key_revoked", key_id, actor) as recording:
                (before,) = read_keys(recording.connection, STATIC_KEYS.c.key_id == key_id)
                at = before.revoked_at or self._database.now
                where = STATIC_KEYS.c.key_id == key_id
                recording.connection.execute(STATIC_KEYS.update().where(where).values(revoked_at=at))
                (after,) = read_keys(recording.connection, where)
                recording.before, recording.after = describe(before), describe(after)
                revoked.append(after)
        return revoked


def _select(connection: Connection, selection: KeySelection) -> list[StaticKey]:
    conditions: list[ColumnElement[bool]] = [STATIC_KEYS.c.revoked_at.is_(None)]
    if selection.client_id is not None:
        conditions.append(STATIC_KEYS.c.client_id == selection.client_id)
    if selection.created_before is not None:
        conditions.append(STATIC_KEYS.c.created_at < selection.created_before)
    if selection.expires_after is not None:
        conditions.append(STATIC_KEYS.c.expires_at > selection.expires_after)
    if len(conditions) == 1 and selection.tenant is None and not selection.everything:
        raise ClientRejected("which keys? name a client, a tenant or a time, or say that all are meant")
    keys = read_keys(connection, *conditions)
    if selection.tenant is not None:
        keys = [key for key in keys if get_client(connection, key.client_id).tenant == selection.tenant]
    return keys


def read_keys(connection: Connection, *conditions: ColumnElement[bool]) -> list[StaticKey]:
    """Keys, oldest first. Raises: RegistryUnusable."""
    query = sa.select(STATIC_KEYS).where(*conditions).order_by(STATIC_KEYS.c.created_at, STATIC_KEYS.c.key_id)
    return [parse_static_key(row) for row in connection.execute(query)]
