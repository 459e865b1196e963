"""Changes to people. Methods raise ClientRejected for what is asked wrongly, RegistryUnusable for the database."""

import json
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection

from security.errors import ClientRejected
from security.passwords import REMEMBERED_PASSWORDS, hash_password, make_password, make_totp_secret, seal, totp_uri
from security.registry.clients import CUT_OFF_LIFETIME_S, is_two_person, reopen_grant
from security.registry.database import Database, Recording
from security.registry.revocations import void_tokens
from security.registry.rows import describe, encode_models, parse_user
from security.registry.tables import USERS
from security.users import NewUser, Passkey, User, UserDefinition, make_user_id

MAX_PASSKEYS = 8


class UserRegistry:
    """People in a database."""

    def __init__(self, database: Database, secret_key: bytes) -> None:
        self._database = database
        self._secret_key = secret_key

    def create(self, definition: UserDefinition, *, actor: str, totp: bool = True) -> NewUser:
        """Register a person, who must change the password at the first sign-in."""
        definition.verify()
        user_id, now, password = make_user_id(), self._database.now, make_password(definition.login)
        secret = make_totp_secret() if totp else None
        row = {
            "user_id": user_id,
            "login": definition.login,
            "name": definition.name,
            "role": definition.role.value,
            "tenant": definition.tenant,
            "models": encode_models(definition.models),
            "password_hash": hash_password(password),
            "password_set_at": now,
            "must_change_password": 1,
            "old_password_hashes": "[]",
            "totp_secret": None if secret is None else seal(self._secret_key, user_id, secret),
            "created_at": now,
            "unlocked_at": now,
            "granted_by": actor,
        }
        with self._database.change("user_created", user_id, actor) as recording:
            taken = sa.select(USERS.c.user_id).where(USERS.c.login == definition.login)
            if recording.connection.execute(taken).first() is not None:
                raise ClientRejected(f"login {definition.login!r} is taken")
            recording.connection.execute(USERS.insert().values(row))
            user = get_user(recording.connection, user_id)
            recording.after = describe(user)
        return NewUser(
            user=user, password=password, totp_uri=None if secret is None else totp_uri(secret, definition.login)
        )

    def find(self, login: str) -> User | None:
        """The person of this login or id, disabled ones too."""
        with self._database.transaction() as connection:
            return find_user(connection, login)

    def all(self) -> list[User]:
        """Everybody, oldest first."""
        with self._database.transaction() as connection:
            return read_users(connection)

    def disable(self, login: str, *, actor: str) -> User:
        """From now on there is no sign-in, and every token is void. Disabling twice keeps the first time."""
        with self._database.change("user_disabled", login, actor) as recording:
            before = get_user(recording.connection, login)
            void_tokens(recording.connection, "subject", before.user_id, self._database.now, CUT_OFF_LIFETIME_S)
            return self._update(recording, before, disabled_at=before.disabled_at or self._database.now)

    def enable(self, login: str, *, actor: str) -> User:
        """Undo `disable`, also what failures or idle days have locked."""
        with self._database.change("user_enabled", login, actor) as recording:
            before = get_user(recording.connection, login)
            return self._update(recording, before, disabled_at=None, unlocked_at=self._database.now)

    def reset(self, login: str, *, actor: str, totp: bool = True) -> NewUser:
        """A new first password and, unless told otherwise, a new authenticator; passkeys are forgotten, all tokens are void. A
        privileged role waits for a second person again.
        """
        secret = make_totp_secret() if totp else None
        with self._database.change("user_password_reset", login, actor) as recording:
            before = get_user(recording.connection, login)
            now, password = self._database.now, make_password(before.login)
            void_tokens(recording.connection, "subject", before.user_id, now, CUT_OFF_LIFETIME_S)
            user = self._update(
                recording,
                before,
                password_hash=hash_password(password),
                password_set_at=now,
                must_change_password=1,
                old_password_hashes=_remember(before),
                unlocked_at=now,
                passkeys="[]",
                **reopen_grant(before, actor),
                **({} if secret is None else {"totp_secret": seal(self._secret_key, before.user_id, secret)}),
            )
        return NewUser(user=user, password=password, totp_uri=None if secret is None else totp_uri(secret, user.login))

    def set_password(self, user_id: str, password_hash: str, *, actor: str) -> User:
        """The person has chosen a new password, which the authority has checked."""
        with self._database.change("user_password_changed", user_id, actor) as recording:
            before = get_user(recording.connection, user_id)
            return self._update(
                recording,
                before,
                password_hash=password_hash,
                password_set_at=self._database.now,
                must_change_password=0,
                old_password_hashes=_remember(before),
            )

    def add_passkey(self, user_id: str, passkey: Passkey, *, actor: str) -> User:
        """The person has registered a passkey, which the authority has checked."""
        with self._database.change("user_passkey_added", user_id, actor) as recording:
            before = get_user(recording.connection, user_id)
            if len(before.passkeys) >= MAX_PASSKEYS:
                raise ClientRejected(f"at most {MAX_PASSKEYS} passkeys: have the others removed first")
            if any(passkey.credential == one.credential for one in before.passkeys):
                raise ClientRejected("the passkey is registered already")
            return self._update(recording, before, passkeys=_encode_passkeys((*before.passkeys, passkey)))

    def _update(self, recording: Recording, before: User, **values: Any) -> User:
        recording.connection.execute(USERS.update().where(USERS.c.user_id == before.user_id).values(values))
        after = get_user(recording.connection, before.user_id)
        recording.target = before.user_id
        recording.before, recording.after = describe(before), describe(after)
        return after


def _encode_passkeys(passkeys: tuple[Passkey, ...]) -> str:
    return msgspec.json.encode(passkeys).decode()


def _remember(user: User) -> str:
    return json.dumps([user.password_hash, *user.old_password_hashes][:REMEMBERED_PASSWORDS])


def read_users(connection: Connection) -> list[User]:
    """Everybody, oldest first. Raises: RegistryUnusable."""
    two_person = is_two_person(connection)
    query = sa.select(USERS).order_by(USERS.c.created_at, USERS.c.user_id)
    return [parse_user(row, two_person=two_person) for row in connection.execute(query)]


def find_user(connection: Connection, login: str) -> User | None:
    """The person of this login or id. Raises: RegistryUnusable."""
    query = sa.select(USERS).where(sa.or_(USERS.c.login == login, USERS.c.user_id == login))
    row = connection.execute(query).first()
    return None if row is None else parse_user(row, two_person=is_two_person(connection))


def get_user(connection: Connection, login: str) -> User:
    """The person of this login or id. Raises: ClientRejected."""
    user = find_user(connection, login)
    if user is None:
        raise ClientRejected(f"user {login[:80]!r} does not exist")
    return user
