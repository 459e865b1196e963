"""Refresh tokens that turn over, what is known of each person's sign-ins, and what was used that is good once: the authority's own
small file.

A refresh token is used once and replaced by the next of its *family*. One that comes back after it was replaced was copied,
by whoever: the family ends, and with it every access token that came from it (RFC 9700 section 4.14.2). Only hashes are
stored. SQLite from the standard library: these rows are one authority's alone, and die with it. Its calls are short and are not
made elsewhere than in the event loop: between a look at a token and its use there must be no wait.
"""

import hashlib
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import msgspec

from security.errors import RegistryUnusable
from security.keys import make_private_directory
from security.users import User

REFRESH_PREFIX = "cmr-"
_SCHEMA_VERSION = 4
_PERSON_S = 31 * 86_400
"""Longer than any session: a person of the provider's is forgotten after it."""
_PEOPLE = """CREATE TABLE people (
        user_id TEXT PRIMARY KEY, user_json BLOB NOT NULL, seen_at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID"""
_COUNTERS = """CREATE TABLE passkey_counters (
        credential_id BLOB PRIMARY KEY, counter INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID"""
_USED = """CREATE TABLE used_once (
        digest BLOB PRIMARY KEY, expires_at REAL NOT NULL
    ) STRICT, WITHOUT ROWID"""
_ADDED = {1: (_PEOPLE, _COUNTERS, _USED), 2: (_COUNTERS, _USED), 3: (_USED,)}
"""What files of earlier versions lack."""
_SCHEMA = (
    """CREATE TABLE refresh_tokens (
        hash BLOB PRIMARY KEY, family TEXT NOT NULL, expires_at INTEGER NOT NULL, used_at INTEGER
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE families (
        family TEXT PRIMARY KEY, grant_json BLOB NOT NULL, ends_at INTEGER NOT NULL, revoked_at INTEGER
    ) STRICT, WITHOUT ROWID""",
    _PEOPLE,
    _COUNTERS,
    _USED,
    """CREATE TABLE sign_ins (
        user_id TEXT PRIMARY KEY, failures INTEGER NOT NULL, failed_at INTEGER NOT NULL, locked_until INTEGER NOT NULL,
        signed_in_at INTEGER NOT NULL, totp_step INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID""",
)


class RefreshGrant(msgspec.Struct, frozen=True, kw_only=True):
    """What a family of refresh tokens may be exchanged for."""

    client_id: str
    user_id: str
    scope: str
    auth_time: int
    key_thumbprint: str = ""
    """Of a public client: of the DPoP key or certificate without which it is no good (RFC 9449 section 5, RFC 8705 section 4)."""


class Family(msgspec.Struct, frozen=True):
    """A family that a token belongs to."""

    family: str
    grant: RefreshGrant
    ends_at: int
    is_reused: bool = False
    """The token had been replaced: the family has ended with this."""


class SignIns(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a person's sign-ins; times are UTC seconds since the epoch, 0 is never."""

    failures: int = 0
    failed_at: int = 0
    locked_until: int = 0
    signed_in_at: int = 0
    totp_step: int = 0
    """The last time step of which a code was used."""


class RefreshStore:
    """Owner of one file."""

    def __init__(self, connection: sqlite3.Connection, clock: Callable[[], float]) -> None:
        self._connection = connection
        self._clock = clock

    @classmethod
    def open(cls, path: Path, *, clock: Callable[[], float] = time.time) -> Self:
        """Open the file, made where there is none. Raises: RegistryUnusable."""
        make_private_directory(path.parent)
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            connection = sqlite3.connect(path, isolation_level=None)
            # A write-ahead log needs one sync a transaction; a rollback journal three, for which the authority's loop waits.
            for pragma in ("trusted_schema = OFF", "journal_mode = WAL", "synchronous = FULL"):
                connection.execute(f"PRAGMA {pragma}")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version not in (0, *_ADDED, _SCHEMA_VERSION):
                raise RegistryUnusable(f"{path} has schema version {version}: it was used by a later program")
            store = cls(connection, clock)
            if version != _SCHEMA_VERSION:
                with store._transaction():
                    missing = _SCHEMA if version == 0 else _ADDED[version]
                    for statement in (*missing, f"PRAGMA user_version = {_SCHEMA_VERSION}"):
                        connection.execute(statement)
        except (sqlite3.Error, OSError) as error:
            raise RegistryUnusable(f"{path} cannot be opened: {error}") from error
        return store

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def begin(self, grant: RefreshGrant, *, idle_s: int, ends_at: int) -> tuple[str, str]:
        """Begin a family. Returns: its name and its first token."""
        family = secrets.token_urlsafe(16)
        with self._transaction():
            row = (family, msgspec.json.encode(grant), ends_at)
            self._connection.execute("INSERT INTO families VALUES (?, ?, ?, NULL)", row)
            return family, self._add_token(family, min(int(self._clock()) + idle_s, ends_at))

    def use(self, token: str) -> Family | None:
        """Spend a token: it is good no more, whatever comes of it. None if it is not known, expired, or its family has ended."""
        digest, now = _hash(token), int(self._clock())
        with self._transaction():
            family = self._find(digest, now)
            if family is None:
                return None
            if family.is_reused:
                self._connection.execute("UPDATE families SET revoked_at = ? WHERE family = ?", (now, family.family))
            else:
                self._connection.execute("UPDATE refresh_tokens SET used_at = ? WHERE hash = ?", (now, digest))
        return family

    def give_back(self, token: str) -> None:
        """A token that was spent for nothing, as its successor reached nobody: it is as it was, and the successor never was."""
        digest = _hash(token)
        with self._transaction():
            self._connection.execute(
                "DELETE FROM refresh_tokens WHERE used_at IS NULL AND family IN "
                "(SELECT family FROM refresh_tokens WHERE hash = ? AND used_at IS NOT NULL)",
                (digest,),
            )
            self._connection.execute("UPDATE refresh_tokens SET used_at = NULL WHERE hash = ?", (digest,))

    def look(self, token: str) -> Family | None:
        """What a token would be good for, without spending it; None where `use` would give nothing to go on with."""
        family = self._find(_hash(token), int(self._clock()))
        return None if family is None or family.is_reused else family

    def replace(self, family: Family, *, idle_s: int) -> str:
        """The next token of a family, of which one was just spent."""
        with self._transaction():
            return self._add_token(family.family, min(int(self._clock()) + idle_s, family.ends_at))

    def end(self, family: str) -> None:
        """End a family: none of its tokens is good any more."""
        with self._transaction():
            self._connection.execute(
                "UPDATE families SET revoked_at = coalesce(revoked_at, ?) WHERE family = ?",
                (int(self._clock()), family),
            )

    def find_sign_ins(self, user_id: str) -> SignIns:
        """What is known of a person."""
        row = self._connection.execute(
            "SELECT failures, failed_at, locked_until, signed_in_at, totp_step FROM sign_ins WHERE user_id = ?",
            (user_id,),
        ).fetchone()
        return SignIns(**dict(zip(SignIns.__struct_fields__, row, strict=True))) if row else SignIns()

    def note_sign_ins(self, user_id: str, known: SignIns) -> None:
        """Remember what is known of a person now."""
        with self._transaction():
            row = (user_id, *msgspec.structs.astuple(known))
            self._connection.execute("INSERT OR REPLACE INTO sign_ins VALUES (?, ?, ?, ?, ?, ?)", row)

    def advance_counter(self, credential_id: bytes, counter: int) -> bool:
        """Remember a passkey's counter; False if it is not above the last one, unless it counts nothing (WebAuthn section 7.2)."""
        with self._transaction():
            query = "SELECT counter FROM passkey_counters WHERE credential_id = ?"
            last = self._connection.execute(query, (credential_id,)).fetchone()
            if last is not None and counter <= last[0] and (counter or last[0]):
                return False
            row = (credential_id, counter)
            self._connection.execute("INSERT OR REPLACE INTO passkey_counters VALUES (?, ?)", row)
            return True

    def note_used(self, digest: bytes, expires_at: float) -> None:
        """Remember a proof or an assertion that is good once, over restarts, until nobody would accept it any more."""
        with self._transaction():
            self._connection.execute("INSERT OR REPLACE INTO used_once VALUES (?, ?)", (digest, expires_at))

    def find_used(self) -> list[tuple[bytes, float]]:
        """Digests, each with when it may be forgotten."""
        rows = self._connection.execute(
            "SELECT digest, expires_at FROM used_once WHERE expires_at > ?", (self._clock(),)
        )
        return list(rows)

    def note_person(self, user: User) -> None:
        """Remember what the identity provider says of a person now."""
        with self._transaction():
            row = (user.user_id, msgspec.json.encode(user), int(self._clock()))
            self._connection.execute("INSERT OR REPLACE INTO people VALUES (?, ?, ?)", row)

    def find_person(self, user_id: str) -> User | None:
        """What the identity provider said of a person when they last signed in."""
        row = self._connection.execute("SELECT user_json FROM people WHERE user_id = ?", (user_id,)).fetchone()
        return None if row is None else msgspec.json.decode(row[0], type=User)

    def forget_expired(self) -> None:
        """Remove what is over. A spent token is remembered as long as its family could live, so that its reuse is noticed."""
        with self._transaction():
            now = int(self._clock())
            self._connection.execute(
                "DELETE FROM refresh_tokens WHERE family IN (SELECT family FROM families WHERE ends_at < ?)", (now,)
            )
            self._connection.execute("DELETE FROM families WHERE ends_at < ?", (now,))
            self._connection.execute("DELETE FROM people WHERE seen_at < ?", (now - _PERSON_S,))
            self._connection.execute("DELETE FROM used_once WHERE expires_at < ?", (now,))

    def _add_token(self, family: str, expires_at: int) -> str:
        token = REFRESH_PREFIX + secrets.token_urlsafe(32)
        self._connection.execute(
            "INSERT INTO refresh_tokens VALUES (?, ?, ?, NULL)", (_hash(token), family, expires_at)
        )
        return token

    def _find(self, digest: bytes, now: int) -> Family | None:
        row = self._connection.execute(
            "SELECT family, grant_json, ends_at, expires_at, used_at FROM refresh_tokens JOIN families USING (family) "
            "WHERE hash = ? AND revoked_at IS NULL AND ends_at > ?",
            (digest, now),
        ).fetchone()
        if row is None:
            return None
        family, grant, ends_at, expires_at, used_at = row
        if used_at is None and expires_at <= now:
            return None
        return Family(family, msgspec.json.decode(grant, type=RefreshGrant), ends_at, used_at is not None)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise RegistryUnusable(f"the authority's refresh tokens cannot be used: {error}") from error


def _hash(token: str) -> bytes:
    """256 random bits need no key and no salt."""
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
