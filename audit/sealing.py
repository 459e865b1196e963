"""Sealed bodies: prompts and answers encrypted under a key per tenant and day of which nobody holds both halves.

    share A   made by the gateway, HPKE-wrapped to the auditors' public keys (the *escrow*), then forgotten with the process
    share B   made by the auditor process, which gives it out again only after a record says to whom
    key       HKDF-SHA256 over A and B, bound to tenant, day and the key's id; bodies under AES-256-GCM

So an administrator of the host has B and the ciphertext, and nothing that opens A; an auditor has A, and gets B only by leaving a
record. When both shares of a period are destroyed its bodies are noise, wherever copies of them are.

A wrapped share and a body are bound to what they are of: neither opens under another tenant, day, request or purpose.

Source: RFC 9180 (HPKE, base mode; DHKEM X25519 or P-256, HKDF-SHA256, AES-256-GCM), RFC 5869, NIST SP 800-38D.
"""

import base64
import binascii
import hashlib
import os
import secrets
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from audit.errors import BodyRejected, KeyUnusable

SHARE_BYTES = 32
NONCE_BYTES = 12
MAX_ESCROW_BYTES = 16 << 10
MAX_BODY_BYTES = 64 << 20
MAX_KEY_BYTES = 4096
SHARE_LABEL = "casemate body share v1"

Purpose = Literal["prompt", "answer"]
Kem = Literal["x25519", "p256"]
RecipientKey = X25519PublicKey | EllipticCurvePublicKey
RecipientPrivateKey = X25519PrivateKey | EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class KeyContext:
    """Which key: of whom, for which UTC day."""

    tenant: str
    day: str
    """Such as `2026-11-25`."""
    key_id: str
    """32 hexadecimal digits, random."""

    def info(self, purpose: str) -> bytes:
        """Each part after its length, so that no name reaches into another."""
        return _join(purpose, self.tenant, self.day, self.key_id)


class WrappedShare(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Share A for one auditor."""

    kem: Kem
    recipient: str
    """First 16 hexadecimal digits of SHA-256 over the public key (DER): which private key opens it."""
    sealed: str
    """HPKE's encapsulated key and ciphertext, base64."""


class SealedBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a record says of a body; the body itself lies beside the log."""

    key_id: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}$")]
    day: Annotated[str, msgspec.Meta(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    offset: Annotated[int, msgspec.Meta(ge=0)]
    length: Annotated[int, msgspec.Meta(ge=0, le=MAX_BODY_BYTES)]
    sha256: str
    """Of the ciphertext."""


def new_key_id() -> str:
    """A name for a key."""
    return secrets.token_hex(16)


def new_share() -> bytes:
    """One half of a key."""
    return os.urandom(SHARE_BYTES)


def derive_key(share_a: bytes, share_b: bytes, context: KeyContext) -> AESGCM:
    """The key of two shares.

    Raises: BodyRejected for shares of the wrong length.
    """
    if len(share_a) != SHARE_BYTES or len(share_b) != SHARE_BYTES:
        raise BodyRejected(f"share of a body key: expected {SHARE_BYTES} bytes each")
    hkdf = HKDF(algorithm=SHA256(), length=32, salt=None, info=context.info("casemate body key v1"))
    return AESGCM(hkdf.derive(share_a + share_b))


def seal_body(key: AESGCM, context: KeyContext, request_uid: str, purpose: Purpose, body: bytes) -> bytes:
    """Encrypt a body. One key takes 2^32 of them at most (SP 800-38D, section 8.3); a day has fewer."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + key.encrypt(nonce, body, context.info(_join("body", request_uid, purpose).hex()))


def open_body(key: AESGCM, context: KeyContext, request_uid: str, purpose: Purpose, sealed: bytes) -> bytes:
    """Decrypt a body.

    Raises: BodyRejected when key or body are others'.
    """
    try:
        info = context.info(_join("body", request_uid, purpose).hex())
        return key.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], info)
    except (InvalidTag, ValueError) as error:
        raise BodyRejected(f"body of {request_uid}: does not open with this key, or was changed") from error


def wrap_share(
    share: bytes, recipients: Sequence[RecipientKey], context: KeyContext, label: str = SHARE_LABEL
) -> bytes:
    """The escrow: share A, or what else `label` names, for each auditor, as JSON."""
    wrapped = [_wrap(share, key, context.info(label)) for key in recipients]
    return msgspec.json.encode(wrapped, order="sorted")


def unwrap_share(
    escrow: bytes, private_key: RecipientPrivateKey, context: KeyContext, label: str = SHARE_LABEL
) -> bytes:
    """What was wrapped, by an auditor's private key.

    Raises: BodyRejected when none of it is for this key, or it was changed.
    """
    recipient = fingerprint(private_key.public_key())
    try:
        wrapped = msgspec.json.decode(escrow[: MAX_ESCROW_BYTES + 1], type=list[WrappedShare])
        mine = next(one for one in wrapped if one.recipient == recipient)
        sealed = base64.b64decode(mine.sealed, validate=True)
        share: bytes = _suite(mine.kem).decrypt(sealed, private_key, context.info(label))
    except StopIteration:
        raise BodyRejected("escrow: holds no share for this key") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, binascii.Error, InvalidTag, ValueError, TypeError) as error:
        raise BodyRejected("escrow: does not open with this key, or was changed") from error
    return share


def recipients_of(escrow: bytes) -> list[str]:
    """The fingerprints of the keys that an escrow is for, as it says itself.

    Raises: BodyRejected where it is no escrow.
    """
    try:
        return [one.recipient for one in msgspec.json.decode(escrow[: MAX_ESCROW_BYTES + 1], type=list[WrappedShare])]
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BodyRejected(f"escrow: {error}") from error


def fingerprint(key: RecipientKey) -> str:
    """Which key: 16 hexadecimal digits."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()[:16]


def kem_of(key: RecipientKey) -> Kem:
    """Which KEM the key is for."""
    return "x25519" if isinstance(key, X25519PublicKey) else "p256"


def parse_recipient(pem: bytes) -> RecipientKey:
    """An auditor's public key in PEM: X25519 or P-256.

    Raises: KeyUnusable.
    """
    try:
        key = load_pem_public_key(pem[:MAX_KEY_BYTES])
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyUnusable(f"auditor's key: is no public key in PEM: {error}") from error
    if isinstance(key, X25519PublicKey) or (
        isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1)
    ):
        return key
    raise KeyUnusable("auditor's key: expected X25519 or P-256")


def parse_recipient_private(pem: bytes, password: bytes | None = None) -> RecipientPrivateKey:
    """An auditor's private key in PEM.

    Raises: KeyUnusable.
    """
    try:
        key = load_pem_private_key(pem[:MAX_KEY_BYTES], password)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyUnusable(f"auditor's key: is no private key in PEM, or its password is another: {error}") from error
    if isinstance(key, X25519PrivateKey) or (
        isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1)
    ):
        return key
    raise KeyUnusable("auditor's key: expected X25519 or P-256")


def _wrap(share: bytes, key: RecipientKey, info: bytes) -> WrappedShare:
    sealed: bytes = _suite(kem_of(key)).encrypt(share, key, info)
    return WrappedShare(kem_of(key), fingerprint(key), base64.b64encode(sealed).decode("ascii"))


def _suite(kem: Kem) -> Suite:
    return Suite(KEM.X25519 if kem == "x25519" else KEM.P256, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def _join(*parts: str) -> bytes:
    return b"".join(struct.pack(">I", len(part.encode())) + part.encode() for part in parts)
