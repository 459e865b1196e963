"""Responses that clients asked to keep, by tenant, for as long as the operator lets them; for `previous_response_id`.

One SQLite file below the gateway's own folder, shared by its workers. A record is encrypted (AES-256-GCM) under a key that lies
beside it, with tenant and id as associated data: that binds a record to its tenant and makes backups without the key worthless;
it does not keep root of this host out. What is past its time is not given, and deleted at the next chance.

SQLite waits for the disk and for other workers, so all of it runs in one thread of the worker, in the order in which it was asked
for; the event loop waits for none of it. What is awaited is on the disk, and all workers see it.
"""

import asyncio
import secrets
import sqlite3
import time
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
_TABLE = """CREATE TABLE IF NOT EXISTS responses (
    tenant TEXT NOT NULL, id TEXT NOT NULL, expires_at INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (tenant, id)
)"""


_Result = TypeVar("_Result")


class ResponseStore:
    """One worker's way to the file. With a retention of 0 nothing is ever kept, and no file is made."""

    def __init__(self, path: Path, key: bytes, retention_s: int) -> None:
        """`key`: 32 bytes."""
        self._path = path
        self._cipher = AESGCM(key)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="responses")
        self.retention_s = retention_s

    @property
    def keeps(self) -> bool:
        """Responses are kept at all."""
        return self.retention_s > 0

    async def put(self, tenant: str, response_id: str, body: bytes) -> None:
        """Keep one: whoever asks for it after this has returned gets it. Raises: PeerUnavailable."""
        await self._run(lambda: self._put(tenant, response_id, body))

    async def get(self, tenant: str, response_id: str) -> bytes | None:
        """One that the tenant kept, or None; what does not decrypt was not ours. Raises: PeerUnavailable."""
        return await self._run(lambda: self._get(tenant, response_id)) if self.keeps else None

    async def delete(self, tenant: str, response_id: str) -> bool:
        """Forget one; False if there was none. Raises: PeerUnavailable."""
        return await self._run(lambda: self._delete(tenant, response_id)) if self.keeps else False

    async def _run(self, work: Callable[[], _Result]) -> _Result:
        """To its end, even if whoever asked for it is cancelled."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except sqlite3.Error as error:
            raise PeerUnavailable(
                "responses_unavailable", f"what is kept of responses cannot be used: {error}"
            ) from error

    def _put(self, tenant: str, response_id: str, body: bytes) -> None:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, body, _context(tenant, response_id))
        now = int(time.time())
        with self._open() as database:
            database.execute("DELETE FROM responses WHERE expires_at <= ?", (now,))
            row = (tenant, response_id, now + self.retention_s, sealed)
            database.execute("INSERT OR REPLACE INTO responses VALUES (?, ?, ?, ?)", row)

    def _get(self, tenant: str, response_id: str) -> bytes | None:
        if not self._path.exists():
            return None
        with self._open() as database:
            query = "SELECT body FROM responses WHERE tenant = ? AND id = ? AND expires_at > ?"
            row = database.execute(query, (tenant, response_id, int(time.time()))).fetchone()
        if row is None:
            return None
        sealed: bytes = row[0]
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _context(tenant, response_id))
        except InvalidTag:
            return None

    def _delete(self, tenant: str, response_id: str) -> bool:
        if self._get(tenant, response_id) is None:
            return False
        with self._open() as database:
            database.execute("DELETE FROM responses WHERE tenant = ? AND id = ?", (tenant, response_id))
        return True

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The file, for one transaction."""
        database = sqlite3.connect(self._path, timeout=_BUSY_TIMEOUT_S)
        try:
            database.execute("PRAGMA secure_delete = ON")
            database.execute(_TABLE)
            with database:
                yield database
        finally:
            database.close()


def _context(tenant: str, response_id: str) -> bytes:
    return f"casemate response {len(tenant)} {tenant} {response_id}".encode()
