"""Sealed bodies, the gateway's half: which tenants' are kept, today's key, and the files that the ciphertexts lie in.

    bodies/2026-11-25/KEY_ID.sealed   ciphertexts one behind the other; a record says where one begins, and its SHA-256

A worker makes a key for each tenant and day when it is first needed: it draws share A, wraps it to the auditors, and gets share
B from the auditor process, which keeps both. Keys live in memory only. A body that policy keeps and that cannot be sealed is a
request that is refused; an answer that can no longer be kept is told in its record.

Source: `audit.sealing`.
"""

import asyncio
import hashlib
import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from appliance.gateway.errors import PeerUnavailable
from appliance.gateway.peers.auditor import AuditorPeer
from appliance.messages.stewardship import BodiesDestroyed, KeepBodyKey
from audit.keyed_hash import day_of
from audit.sealing import (
    KeyContext,
    Purpose,
    RecipientKey,
    SealedBody,
    derive_key,
    new_key_id,
    new_share,
    seal_body,
    wrap_share,
)

BODIES = "bodies"
"""In the state folder."""
EVERYBODY = "*"

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class BodyPolicy:
    """Whose bodies are kept, for whom, and where."""

    tenants: frozenset[str] = frozenset()
    recipients: Sequence[RecipientKey] = ()
    folder: Path = Path("bodies")

    def keeps(self, tenant: str) -> bool:
        """Whether this tenant's prompts and answers are."""
        return EVERYBODY in self.tenants or tenant in self.tenants


class SealingKey:
    """A tenant's key of one day, and its file. Holds a secret; its `repr` does not show it."""

    def __init__(self, key: AESGCM, context: KeyContext, path: Path) -> None:
        self._key = key
        self._context = context
        self._path = path

    def seal(self, request_uid: str, purpose: Purpose, body: bytes) -> dict[str, str | int]:
        """Encrypt a body and put it behind the others; what a record says of it.

        Raises: PeerUnavailable when it cannot be written.
        """
        sealed = seal_body(self._key, self._context, request_uid, purpose, body)
        try:
            offset = _append(self._path, sealed)
        except OSError as error:
            log.error("body_not_kept", reason=str(error))
            raise PeerUnavailable("bodies_unavailable", "the sealed text cannot be kept, as policy asks") from error
        digest = hashlib.sha256(sealed).hexdigest()
        return {
            "day": self._context.day,
            "key_id": self._context.key_id,
            "length": len(sealed),
            "offset": offset,
            "sha256": digest,
        }


class Bodies:
    """The keys of one worker."""

    def __init__(self, policy: BodyPolicy, auditor: AuditorPeer) -> None:
        self._policy = policy
        self._auditor = auditor
        self._keys: dict[str, tuple[str, SealingKey]] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        auditor.on_destroyed = self._remove

    async def key_for(self, tenant: str) -> SealingKey | None:
        """Today's key of a tenant; None where policy keeps nothing of it.

        Raises: PeerUnavailable, InternalFault: then the request MUST be refused.
        """
        if not self._policy.keeps(tenant):
            return None
        day = day_of(time.time_ns() // 1_000_000)
        async with self._locks.setdefault(tenant, asyncio.Lock()):
            known = self._keys.get(tenant)
            if known is None or known[0] != day:
                known = self._keys[tenant] = (day, await self._make(tenant, day))
            return known[1]

    def read(self, body: SealedBody) -> bytes:
        """A ciphertext, as its record names it.

        Raises: OSError, ValueError when it is not there any more, or not that.
        """
        with self._path(body.day, body.key_id).open("rb") as file:
            file.seek(body.offset)
            sealed = file.read(body.length)
        if hashlib.sha256(sealed).hexdigest() != body.sha256:
            raise ValueError("the sealed text is not what the record says")
        return sealed

    async def _make(self, tenant: str, day: str) -> SealingKey:
        context = KeyContext(tenant, day, new_key_id())
        share = new_share()
        escrow = wrap_share(share, self._policy.recipients, context)
        other = await self._auditor.keep_body_key(
            lambda number: KeepBodyKey(number, tenant, day, context.key_id, escrow)
        )
        return SealingKey(derive_key(share, other, context), context, self._path(day, context.key_id))

    def _remove(self, message: BodiesDestroyed) -> None:
        """Nobody can open these any more; that they are gone saves space, and is not what protects them."""
        for key_id in message.key_ids:
            try:
                self._path(message.day, key_id).unlink(missing_ok=True)
            except OSError as error:
                log.warning("body_file_left", reason=str(error))
        with suppress(OSError):  # Not empty, or gone.
            (self._policy.folder / message.day).rmdir()

    def _path(self, day: str, key_id: str) -> Path:
        return self._policy.folder / day / f"{key_id}.sealed"


def encode_prompt_body(text: str, token_ids: Sequence[int]) -> bytes:
    """What is sealed of a prompt."""
    return json.dumps({"text": text, "token_ids": list(token_ids)}, ensure_ascii=False).encode()


def encode_answer_body(texts: Sequence[str]) -> bytes:
    """What is sealed of an answer: the text of each choice."""
    return json.dumps({"texts": list(texts)}, ensure_ascii=False).encode()


def _append(path: Path, data: bytes) -> int:
    """Put data behind what a file holds. Gives where it begins; after an error the rest of it is cut off."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        offset = os.fstat(fd).st_size
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
        except OSError:
            os.ftruncate(fd, offset)
            raise
    finally:
        os.close(fd)
    return offset
