"""Responses that clients asked to keep, by tenant, for as long as the operator lets them; for `previous_response_id`.

What is past its time is not given, and deleted at the next chance.
"""

import sqlite3
import time
from pathlib import Path
from typing import Literal

import msgspec

from appliance.gateway.api.response_file import ResponseFile
from appliance.gateway.api.worker_lives import WorkerLives

State = Literal["foreground", "running", "cancelling", "over"]
"""How a response is made: with the request that asked for it, which is over then; or in the background, and how far that is."""
_QUERY = """SELECT body, worker, state, is_streamed FROM responses LEFT JOIN background USING (tenant, id)
    WHERE tenant = ? AND id = ? AND expires_at > ?"""


class Kept(msgspec.Struct, frozen=True):
    """A response that is kept, as it was last written."""

    body: bytes
    state: State = "foreground"
    worker: str = ""
    """The life of the worker that makes it, or made it, in the background."""
    is_lost: bool = False
    """That life has ended, and left it running."""
    is_streamed: bool = False
    """Its events are kept."""

    @property
    def is_running(self) -> bool:
        """It will still change."""
        return self.state in ("running", "cancelling") and not self.is_lost


class ResponseStore:
    """With a retention of 0 nothing is ever kept, and no file is made."""

    def __init__(self, path: Path, key: bytes, retention_s: int) -> None:
        """`key`: 32 bytes."""
        self.file = ResponseFile(path, key)
        self.lives = WorkerLives(path)
        self.retention_s = retention_s

    @property
    def keeps(self) -> bool:
        """Responses are kept at all."""
        return self.retention_s > 0

    async def put(self, tenant: str, response_id: str, body: bytes) -> None:
        """Keep one: whoever asks for it after this has returned gets it. Raises: PeerUnavailable."""
        expires_at = int(time.time()) + self.retention_s
        await self.file.write(lambda database: self.insert(database, tenant, response_id, body, expires_at))

    async def get(self, tenant: str, response_id: str) -> Kept | None:
        """One that the tenant kept, or None; what does not decrypt was not ours. Raises: PeerUnavailable."""
        if not self.keeps:
            return None
        return await self.file.read(lambda database: self._get(database, tenant, response_id), None)

    async def delete(self, tenant: str, response_id: str) -> bool:
        """Forget one; False if there was none. Raises: PeerUnavailable."""
        if not self.keeps:
            return False
        return await self.file.read(lambda database: self._delete(database, tenant, response_id), False)

    def insert(self, database: sqlite3.Connection, tenant: str, response_id: str, body: bytes, expires_at: int) -> None:
        """Keep one, in a transaction, and drop what is past its time."""
        database.execute("DELETE FROM responses WHERE expires_at <= ?", (int(time.time()),))
        row = (tenant, response_id, expires_at, self.file.seal(_context(tenant, response_id), body))
        database.execute("INSERT OR REPLACE INTO responses VALUES (?, ?, ?, ?)", row)

    def _get(self, database: sqlite3.Connection, tenant: str, response_id: str) -> Kept | None:
        row = database.execute(_QUERY, (tenant, response_id, int(time.time()))).fetchone()
        body = None if row is None else self.file.unseal(_context(tenant, response_id), row[0])
        if body is None:
            return None
        _, worker, state, is_streamed = row
        if state is None:
            return Kept(body)
        is_lost = state in ("running", "cancelling") and not self.lives.is_alive(worker)
        return Kept(body, state, worker, is_lost, bool(is_streamed))

    def _delete(self, database: sqlite3.Connection, tenant: str, response_id: str) -> bool:
        if self._get(database, tenant, response_id) is None:
            return False
        database.execute("DELETE FROM responses WHERE tenant = ? AND id = ?", (tenant, response_id))
        return True


def _context(tenant: str, response_id: str) -> str:
    return f"casemate response {len(tenant)} {tenant} {response_id}"
