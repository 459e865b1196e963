"""Tickets: the auditor's leave to infer once, which only the engine can check and nobody else can make.

A ticket is a MAC under a fresh key that auditor and engine share for the life of their link. It goes from one to the other over
that link and is bound to one request of one gateway worker: a captured gateway gets no inference without a durable intent, and
none by another worker's. That a ticket is used once is the engine's to keep: MUST remember the indices it has taken under a key
until they expire.
"""

import hashlib
import hmac
import secrets
import struct

from audit.errors import TicketRejected

KEY_BYTES = 32
_DOMAIN = b"casemate ticket v2"


def new_ticket_key() -> bytes:
    """A fresh random key, for one pair of lives of auditor and engine."""
    return secrets.token_bytes(KEY_BYTES)


def mint_ticket(
    key: bytes,
    *,
    worker: int,
    request_id: int,
    index: int,
    model: str,
    prompt_digest: bytes,
    token_limit: int,
    expires_at_ms: int,
) -> bytes:
    """The MAC over all that the ticket allows, and to whom.

    Args:
        worker: the gateway worker that asked, as its link says it.
        request_id: its own number of the request.
    """
    message = encode_ticket(worker, request_id, index, model, prompt_digest, token_limit, expires_at_ms)
    return hmac.digest(key, message, hashlib.sha256)


def verify_ticket(
    key: bytes,
    mac: bytes,
    *,
    worker: int,
    request_id: int,
    index: int,
    model: str,
    prompt_digest: bytes,
    token_limit: int,
    expires_at_ms: int,
    now_ms: int,
) -> None:
    """Check a ticket in constant time, then that it has not expired.

    The caller MUST compute `prompt_digest` from the prompt it is about to run, MUST take `worker` and `request_id` from the link
    that the prompt came on, and MUST refuse an index used before.
    Raises: TicketRejected.
    """
    try:
        message = encode_ticket(worker, request_id, index, model, prompt_digest, token_limit, expires_at_ms)
    except (struct.error, UnicodeEncodeError) as error:
        raise TicketRejected(f"ticket for intent {index}: a value is out of range") from error
    if not hmac.compare_digest(hmac.digest(key, message, hashlib.sha256), mac):
        raise TicketRejected(f"ticket for intent {index}: the MAC does not hold for this request")
    if now_ms >= expires_at_ms:
        raise TicketRejected(f"ticket for intent {index}: expired {now_ms - expires_at_ms} ms ago")


def encode_ticket(
    worker: int, request_id: int, index: int, model: str, prompt_digest: bytes, token_limit: int, expires_at_ms: int
) -> bytes:
    """What is authenticated: every field after its length, so that no two tickets give the same bytes."""
    fields = (
        _DOMAIN,
        struct.pack(">Q", worker),
        struct.pack(">Q", request_id),
        struct.pack(">Q", index),
        model.encode(),
        prompt_digest,
        struct.pack(">Q", token_limit),
        struct.pack(">Q", expires_at_ms),
    )
    return b"".join(struct.pack(">I", len(field)) + field for field in fields)
