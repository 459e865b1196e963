"""Sealed bodies: two shares open one body of one request, and nothing else opens it."""

import base64
import hashlib
import hmac
import json
import struct
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa_key
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from audit.errors import BodyRejected, KeyUnusable
from audit.sealing import (
    KeyContext,
    derive_key,
    fingerprint,
    kem_of,
    new_key_id,
    new_share,
    open_body,
    parse_recipient,
    parse_recipient_private,
    seal_body,
    unwrap_share,
    wrap_share,
)
from tests.support.controls import control

CONTEXT = KeyContext("acme", "2026-11-25", new_key_id())
ADA, BOB = X25519PrivateKey.generate(), generate_private_key(SECP256R1())


def pem_of(key: Any) -> bytes:
    pem: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


@control("AU-9", "3.3.8", "SC-28")
@pytest.mark.parametrize("auditor", [ADA, BOB], ids=["x25519", "p256"])
def test_an_auditor_opens_what_was_sealed(auditor: Any) -> None:
    """With their private key and the second share; each of the recipients does."""
    first, second = new_share(), new_share()
    sealed = seal_body(derive_key(first, second, CONTEXT), CONTEXT, "req-1", "prompt", b"what was asked")
    escrow = wrap_share(first, [ADA.public_key(), BOB.public_key()], CONTEXT)
    assert first not in escrow
    assert b"what was asked" not in sealed
    key = derive_key(unwrap_share(escrow, auditor, CONTEXT), second, CONTEXT)
    assert open_body(key, CONTEXT, "req-1", "prompt", sealed) == b"what was asked"


@control("3.13.16", "CM-12", "SC-28", "SC-28(1)", "SI-12")
def test_one_share_is_not_enough() -> None:
    """Nor another one in its place."""
    first, second = new_share(), new_share()
    sealed = seal_body(derive_key(first, second, CONTEXT), CONTEXT, "req-1", "prompt", b"text")
    for wrong in ((first, bytes(32)), (bytes(32), second), (second, first), (first, first)):
        with pytest.raises(BodyRejected):
            open_body(derive_key(*wrong, CONTEXT), CONTEXT, "req-1", "prompt", sealed)
    for short in ((first, b""), (first[:31], second)):
        with pytest.raises(BodyRejected):
            derive_key(*short, CONTEXT)


@pytest.mark.parametrize(
    ("context", "request_uid", "purpose"),
    [
        (KeyContext("other", CONTEXT.day, CONTEXT.key_id), "req-1", "prompt"),
        (KeyContext(CONTEXT.tenant, "2026-11-26", CONTEXT.key_id), "req-1", "prompt"),
        (KeyContext(CONTEXT.tenant, CONTEXT.day, "0" * 32), "req-1", "prompt"),
        (KeyContext("acm", "e2026-11-25", CONTEXT.key_id), "req-1", "prompt"),
        (CONTEXT, "req-2", "prompt"),
        (CONTEXT, "req-1", "answer"),
    ],
)
def test_a_body_opens_as_what_it_is_and_as_nothing_else(context: KeyContext, request_uid: str, purpose: Any) -> None:
    """Whoever can move files about cannot make one tenant's answer pass for another's."""
    key = derive_key(bytes(32), bytes(32), CONTEXT)
    sealed = seal_body(key, CONTEXT, "req-1", "prompt", b"text")
    with pytest.raises(BodyRejected):
        open_body(key, context, request_uid, purpose, sealed)


def test_a_wrapped_share_opens_for_its_context_and_recipient_only() -> None:
    """Not by another auditor, not as another tenant's."""
    escrow = wrap_share(bytes(32), [ADA.public_key()], CONTEXT)
    with pytest.raises(BodyRejected):
        unwrap_share(escrow, BOB, CONTEXT)
    with pytest.raises(BodyRejected):
        unwrap_share(escrow, X25519PrivateKey.generate(), CONTEXT)
    with pytest.raises(BodyRejected):
        unwrap_share(escrow, ADA, KeyContext("other", CONTEXT.day, CONTEXT.key_id))


@given(st.integers(0, 400), st.integers(1, 255))
def test_one_changed_byte_anywhere_is_found(position: int, change: int) -> None:
    """In the body; and in the escrow nothing but our family of errors comes out."""
    key = derive_key(bytes(32), bytes(32), CONTEXT)
    sealed = bytearray(seal_body(key, CONTEXT, "r", "answer", b"a" * 100))
    sealed[position % len(sealed)] ^= change
    with pytest.raises(BodyRejected):
        open_body(key, CONTEXT, "r", "answer", bytes(sealed))
    escrow = bytearray(wrap_share(bytes(32), [ADA.public_key()], CONTEXT))
    escrow[position % len(escrow)] ^= change
    try:
        assert unwrap_share(bytes(escrow), ADA, CONTEXT) == bytes(32)  # What is not authenticated is not used either.
    except BodyRejected:
        pass


@given(st.binary(max_size=200))
def test_any_bytes_are_an_escrow_or_a_refusal(data: bytes) -> None:
    """Nothing but the family escapes."""
    with pytest.raises(BodyRejected):
        unwrap_share(data, ADA, CONTEXT)
    with pytest.raises(BodyRejected):
        open_body(derive_key(bytes(32), bytes(32), CONTEXT), CONTEXT, "r", "prompt", data)


def test_the_escrow_is_hpke_as_its_specification_says() -> None:
    """Opened by the words of RFC 9180, without a library for it: base mode, X25519, HKDF-SHA256, AES-256-GCM, info, no AAD."""
    share = new_share()
    (wrapped,) = json.loads(wrap_share(share, [ADA.public_key()], CONTEXT))
    sealed = base64.b64decode(wrapped["sealed"])
    encapsulated, ciphertext = sealed[:32], sealed[32:]
    dh = ADA.exchange(X25519PublicKey.from_public_bytes(encapsulated))
    kem_suite = b"KEM" + struct.pack(">H", 0x0020)
    own = ADA.public_key().public_bytes_raw()
    shared = expand(kem_suite, extract(kem_suite, b"", b"eae_prk", dh), b"shared_secret", encapsulated + own, 32)
    suite = b"HPKE" + struct.pack(">HHH", 0x0020, 0x0001, 0x0002)
    info = CONTEXT.info("casemate body share v1")
    schedule = b"\0" + extract(suite, b"", b"psk_id_hash", b"") + extract(suite, b"", b"info_hash", info)
    secret = extract(suite, shared, b"secret", b"")
    key, nonce = expand(suite, secret, b"key", schedule, 32), expand(suite, secret, b"base_nonce", schedule, 12)
    assert AESGCM(key).decrypt(nonce, ciphertext, b"") == share


def extract(suite: bytes, salt: bytes, label: bytes, material: bytes) -> bytes:
    """LabeledExtract, RFC 9180 section 4."""
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + material, hashlib.sha256)


def expand(suite: bytes, key: bytes, label: bytes, info: bytes, length: int) -> bytes:
    """LabeledExpand, for at most 32 bytes."""
    labeled = struct.pack(">H", length) + b"HPKE-v1" + suite + label + info
    return hmac.digest(key, labeled + b"\1", hashlib.sha256)[:length]


def test_keys_of_auditors_are_of_two_kinds() -> None:
    """X25519 and P-256, in PEM; everything else is refused by name."""
    assert kem_of(parse_recipient(pem_of(ADA))) == "x25519"
    assert kem_of(parse_recipient(pem_of(BOB))) == "p256"
    assert fingerprint(parse_recipient(pem_of(ADA))) != fingerprint(parse_recipient(pem_of(BOB)))
    private = BOB.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    assert kem_of(parse_recipient_private(private).public_key()) == "p256"
    rsa = generate_rsa_key(65537, 2048)
    for pem in (pem_of(rsa), b"", b"nonsense", private):
        with pytest.raises(KeyUnusable):
            parse_recipient(pem)
    for pem in (rsa.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), b"", pem_of(ADA)):
        with pytest.raises(KeyUnusable):
            parse_recipient_private(pem)
