"""Changes to clients. Methods raise ClientRejected for what is asked wrongly, RegistryUnusable for the database."""

import json
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from security.clients import Client, ClientDefinition, IssuedSecret, hash_secret, make_client_id, make_secret
from security.errors import ClientRejected
from security.registry.database import Database, Recording
from security.registry.revocations import void_tokens
from security.registry.rows import describe, encode_models, parse_client
from security.registry.tables import CLIENTS, MARKS
from security.scopes import GRANTABLE, GRANTED_SCOPES, PRIVILEGED_ROLES, format_scopes
from security.users import User

CUT_OFF_LIFETIME_S = 31 * 86_400
"""Longer than any session can last: refresh tokens of before a cut must stay void, not only access tokens."""


class ClientRegistry:
    """Clients in a database."""

    def __init__(self, database: Database, secret_key: bytes) -> None:
        self._database = database
        self._secret_key = secret_key

    def create(self, definition: ClientDefinition, *, actor: str) -> IssuedSecret:
        """Register a client. A secret is in the answer and nowhere else."""
        definition.verify()
        client_id = make_client_id(definition.name)
        secret = make_secret() if definition.auth_method == "client_secret" else None
        digest = None if secret is None else hash_secret(self._secret_key, client_id, secret)
        return IssuedSecret(client=self._insert(client_id, definition, digest, actor), secret=secret)

    def ensure(self, client_id: str, definition: ClientDefinition, *, actor: str) -> Client:
        """Register a client of ours that authenticates by a key, or put its key and addresses in force; a disabled one stays so."""
        definition.verify()
        known = self.find(client_id)
        if known is None:
            return self._insert(client_id, definition, None, actor)
        if (known.jwks, known.redirect_uris) == (definition.jwks, definition.redirect_uris):
            return known
        with self._database.change("client_changed", client_id, actor) as recording:
            before = get_client(recording.connection, client_id)
            redirect_uris = json.dumps(list(definition.redirect_uris))
            return self._update(recording, before, jwks=definition.jwks, redirect_uris=redirect_uris)

    def _insert(self, client_id: str, definition: ClientDefinition, secret_hash: bytes | None, actor: str) -> Client:
        now = self._database.now
        row = {
            "client_id": client_id,
            "name": definition.name,
            "kind": definition.kind,
            "role": definition.role.value,
            "tenant": definition.tenant,
            "scopes": format_scopes(_scopes_of(definition)),
            "models": encode_models(definition.models),
            "auth_method": definition.auth_method,
            "secret_hash": secret_hash,
            "jwks": definition.jwks,
            "tls_subject": definition.tls_subject,
            "redirect_uris": json.dumps(list(definition.redirect_uris)),
            "created_at": now,
            "secret_created_at": now,
            "granted_by": actor,
        }
        with self._database.change("client_created", client_id, actor) as recording:
            recording.connection.execute(CLIENTS.insert().values(row))
            client = get_client(recording.connection, client_id)
            recording.after = describe(client)
        return client

    def find(self, client_id: str) -> Client | None:
        """The client of this id, disabled ones too."""
        with self._database.transaction() as connection:
            found = read_clients(connection, client_id)
        return found[0] if found else None

    def all(self) -> list[Client]:
        """Every client, oldest first."""
        with self._database.transaction() as connection:
            return read_clients(connection)

    def disable(self, client_id: str, *, actor: str) -> Client:
        """From now on it gets no token, and its tokens are void. Disabling twice keeps the first time."""
        with self._database.change("client_disabled", client_id, actor) as recording:
            before = get_client(recording.connection, client_id)
            void_tokens(recording.connection, "client", client_id, self._database.now, CUT_OFF_LIFETIME_S)
            return self._update(recording, before, disabled_at=before.disabled_at or self._database.now)

    def enable(self, client_id: str, *, actor: str) -> Client:
        """Undo `disable`. Tokens that it had before stay void."""
        with self._database.change("client_enabled", client_id, actor) as recording:
            return self._update(recording, get_client(recording.connection, client_id), disabled_at=None)

    def rotate(self, client_id: str, *, actor: str) -> IssuedSecret:
        """Replace the secret; the old one ends now. Tokens it was used for live on until they expire. A privileged role waits for a
        second person again.
        """
        secret = make_secret()
        digest = hash_secret(self._secret_key, client_id, secret)
        with self._database.change("client_secret_rotated", client_id, actor) as recording:
            before = get_client(recording.connection, client_id)
            if before.auth_method != "client_secret":
                raise ClientRejected(f"client {client_id!r} authenticates by {before.auth_method}: it has no secret")
            reopened = reopen_grant(before, actor)
            changed = self._update(
                recording, before, secret_hash=digest, secret_created_at=self._database.now, **reopened
            )
        return IssuedSecret(client=changed, secret=secret)

    def set_keys(self, client_id: str, jwks: str, *, actor: str) -> Client:
        """Replace the public keys or certificates of a client that authenticates by them. A privileged role waits for a second
        person again.
        """
        with self._database.change("client_changed", client_id, actor) as recording:
            before = get_client(recording.connection, client_id)
            if before.jwks is None:
                raise ClientRejected(f"client {client_id!r} authenticates by {before.auth_method}: it has no keys")
            return self._update(recording, before, jwks=jwks, **reopen_grant(before, actor))

    def set_models(self, client_id: str, models: tuple[str, ...] | None, *, actor: str) -> Client:
        """Replace the list of models that it may use; None: all."""
        with self._database.change("client_changed", client_id, actor) as recording:
            before = get_client(recording.connection, client_id)
            return self._update(recording, before, models=encode_models(models))

    def _update(self, recording: Recording, before: Client, **values: Any) -> Client:
        recording.connection.execute(CLIENTS.update().where(CLIENTS.c.client_id == before.client_id).values(values))
        after = get_client(recording.connection, before.client_id)
        recording.before, recording.after = describe(before), describe(after)
        return after


def _scopes_of(definition: ClientDefinition) -> frozenset[Any]:
    if definition.scopes is not None:
        return definition.scopes
    return frozenset(GRANTED_SCOPES) if definition.kind == "application" else GRANTABLE[definition.role]


def is_two_person(connection: Connection) -> bool:
    """A privileged role needs a second person."""
    return bool(connection.execute(sa.select(MARKS.c.value).where(MARKS.c.name == "two_person_grants")).scalar())


def reopen_grant(account: Client | User, actor: str) -> dict[str, str | None]:
    """What changes with what an account signs in by. Who gives it another secret could be its owner from then on, so that an
    administrator alone could be an auditor: where privileged roles need two people, this one needs the second anew. Where they
    do not, it will once they do.
    """
    if account.role not in PRIVILEGED_ROLES:
        return {}
    return {"granted_by": actor, "approved_by": None}


def read_clients(connection: Connection, client_id: str | None = None) -> list[Client]:
    """All clients, oldest first, or the one of this id. Raises: RegistryUnusable."""
    query = sa.select(CLIENTS).order_by(CLIENTS.c.created_at, CLIENTS.c.client_id)
    if client_id is not None:
        query = query.where(CLIENTS.c.client_id == client_id)
    two_person = is_two_person(connection)
    return [parse_client(row, two_person=two_person) for row in connection.execute(query)]


def get_client(connection: Connection, client_id: str) -> Client:
    """The client of this id. Raises: ClientRejected."""
    found = read_clients(connection, client_id)
    if not found:
        raise ClientRejected(f"client {client_id[:80]!r} does not exist")
    return found[0]
