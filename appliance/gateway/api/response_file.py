"""The file in which responses are kept: one SQLite database below the gateway's own folder, shared by its workers.

What is in a record is encrypted (AES-256-GCM) under a key that lies beside the file, with tenant and id as associated data: that
binds it to its tenant and makes backups without the key worthless; it does not keep root of this host out.

SQLite waits for the disk and for other workers, so all of it runs in one thread of the worker, in the order in which it was asked
for; the event loop waits for none of it. What is awaited is on the disk, and all workers see it.
"""

import asyncio
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from appliance.gateway.errors import PeerUnavailable

_NONCE_BYTES = 12
_BUSY_TIMEOUT_S = 10.0
"""How long another worker may hold the file."""
_TABLES = (
    """CREATE TABLE IF NOT EXISTS responses (
        tenant TEXT NOT NULL, id TEXT NOT NULL, expires_at INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (tenant, id)
    )""",
    """CREATE TABLE IF NOT EXISTS background (
        tenant TEXT NOT NULL, id TEXT NOT NULL, worker TEXT NOT NULL, state TEXT NOT NULL, is_streamed INTEGER NOT NULL,
        PRIMARY KEY (tenant, id)
    )""",
    """CREATE TABLE IF NOT EXISTS events (
        tenant TEXT NOT NULL, id TEXT NOT NULL, first INTEGER NOT NULL, number INTEGER NOT NULL, body BLOB NOT NULL,
        PRIMARY KEY (tenant, id, first)
    )""",
    """CREATE TRIGGER IF NOT EXISTS forget_background AFTER DELETE ON responses BEGIN
        DELETE FROM background WHERE tenant = OLD.tenant AND id = OLD.id;
        DELETE FROM events WHERE tenant = OLD.tenant AND id = OLD.id;
    END""",
)
"""A response made in the background has a row in `background`, and its events in `events` if it is streamed: batches, each of so
many events from a sequence number on. Both go when the response goes (but not when it is replaced: then SQLite runs no trigger)."""

_Result = TypeVar("_Result")


class ResponseFile:
    """One worker's way to the file, which is made when something is first kept."""

    def __init__(self, path: Path, key: bytes) -> None:
        """`key`: 32 bytes."""
        self.path = path
        self._cipher = AESGCM(key)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="responses")

    async def write(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """One transaction, to its end, even if whoever asked for it is cancelled. Raises: PeerUnavailable."""
        return await self._run(lambda: self._open_for(work))

    async def read(self, work: Callable[[sqlite3.Connection], _Result], absent: _Result) -> _Result:
        """The same, or `absent` where there is no file. Raises: PeerUnavailable."""
        return await self._run(lambda: self._open_for(work) if self.path.exists() else absent)

    def seal(self, context: str, body: bytes) -> bytes:
        """Encrypt for a place."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, body, context.encode())

    def unseal(self, context: str, sealed: bytes) -> bytes | None:
        """What was encrypted for this place; None if this was not."""
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], context.encode())
        except (InvalidTag, ValueError):  # The latter of what is shorter than a nonce.
            return None

    async def _run(self, work: Callable[[], _Result]) -> _Result:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except (sqlite3.Error, OSError) as error:
            raise PeerUnavailable(
                "responses_unavailable", f"what is kept of responses cannot be used: {error}"
            ) from error

    def _open_for(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        with self._open() as database:
            return work(database)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The file, for one transaction."""
        database = sqlite3.connect(self.path, timeout=_BUSY_TIMEOUT_S)
        try:
            database.execute("PRAGMA secure_delete = ON")
            for table in _TABLES:
                database.execute(table)
            with database:
                yield database
        finally:
            database.close()
