"""Whose the definitions in a database server are, so that no appliance takes another's for its own."""

import hashlib
import hmac
from pathlib import Path

from security.registry.database import Database


def claim_definitions(database: Database, location: Path | str, credentials_key: bytes) -> None:
    """A server's database belongs to one key: with another no secret in it can be verified, and changes go into a wrong log.

    Whoever restored the backup of one appliance at another has the same key. A file lies beside it anyway.
    Raises: RegistryUnusable where it is another's.
    """
    if isinstance(location, str):
        digest = hmac.digest(credentials_key, b"casemate/definitions-owner/v1", hashlib.sha256)
        database.claim(int.from_bytes(digest[:7]))
