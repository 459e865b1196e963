"""Responses that clients asked to keep, by tenant, for as long as the operator lets them; for `previous_response_id`.

One SQLite file below the gateway's own folder, shared by its workers. A record is encrypted (AES-256-GCM) under a key that lies
beside it, with tenant and id as associated data: that binds a record to its tenant and makes backups without the key worthless;
it does not keep root of this host out. What is past its time is not given, and deleted at the next chance.
"""

import secrets
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE_BYTES = 12
_TABLE = """CREATE TABLE IF NOT EXISTS responses (
    tenant TEXT NOT NULL, id TEXT NOT NULL, expires_at INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (tenant, id)
)"""


class ResponseStore:
    """One worker's way to the file. With a retention of 0 nothing is ever kept, and no file is made."""

    def __init__(self, path: Path, key: bytes, retention_s: int) -> None:
        """`key`: 32 bytes."""
        self._path = path
        self._cipher = AESGCM(key)
        self.retention_s = retention_s

    @property
    def keeps(self) -> bool:
        """Responses are kept at all."""
        return self.retention_s > 0

    def put(self, tenant: str, response_id: str, body: bytes) -> None:
        """Keep one. Raises: OSError if the disk does not take it."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, body, _context(tenant, response_id))
        now = int(time.time())
        with self._open() as database:
            database.execute("DELETE FROM responses WHERE expires_at <= ?", (now,))
            row = (tenant, response_id, now + self.retention_s, sealed)
            database.execute("INSERT OR REPLACE INTO responses VALUES (?, ?, ?, ?)", row)
            database.commit()

    def get(self, tenant: str, response_id: str) -> bytes | None:
        """One that the tenant kept, or None; what does not decrypt was not ours."""
        if not self.keeps or not self._path.exists():
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

    def delete(self, tenant: str, response_id: str) -> bool:
        """Forget one; False if there was none."""
        if self.get(tenant, response_id) is None:
            return False
        with self._open() as database:
            database.execute("DELETE FROM responses WHERE tenant = ? AND id = ?", (tenant, response_id))
            database.commit()
        return True

    def _open(self) -> "closing[sqlite3.Connection]":
        try:
            database = sqlite3.connect(self._path, timeout=2.0)
            database.execute("PRAGMA secure_delete = ON")
            database.execute(_TABLE)
        except sqlite3.Error as error:
            raise OSError(f"responses cannot be kept: {error}") from error
        return closing(database)


def _context(tenant: str, response_id: str) -> bytes:
    return f"casemate response {len(tenant)} {tenant} {response_id}".encode()
