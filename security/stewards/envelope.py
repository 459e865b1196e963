"""A DSSE envelope: bytes of a stated type, signed by any number of keys.

The signature covers the type as well (DSSE's pre-authentication encoding), so that an approval can never be taken for a role
file. A key id in the envelope only chooses a key; the signature decides. Source: DSSE v1.0, protocol and envelope.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey

from security.errors import MalformedDocument
from security.json_object import parse_json_object
from security.model_signing.elliptic import hash_of_curve, key_hints
from security.model_signing.signer import ModelSigner

MAX_ENVELOPE_BYTES = 1 << 20
_MAX_SIGNATURES = 64


@dataclass(frozen=True, slots=True)
class Envelope:
    """A parsed envelope. Nothing in it is believed yet."""

    payload_type: str
    payload: bytes
    signatures: tuple[tuple[str, bytes], ...]
    """Key id and signature, in the order of the envelope."""


def encode_typed_pae(payload_type: str, payload: bytes) -> bytes:
    """The bytes that are signed."""
    return b"DSSEv1 %d %s %d %s" % (len(payload_type), payload_type.encode(), len(payload), payload)


def key_id_of(key: EllipticCurvePublicKey) -> str:
    """SHA-256, hexadecimal, of the key's PEM text: the same hint that model signatures carry."""
    return key_hints(key)[0]


def sign_envelope(payload_type: str, payload: bytes, *signers: ModelSigner) -> bytes:
    """An envelope with a signature by each signer. Raises: KeyUnusable."""
    message = encode_typed_pae(payload_type, payload)
    signatures = [(key_id_of(signer.public_key), signer.sign(message)) for signer in signers]
    return encode_envelope(Envelope(payload_type, payload, tuple(signatures)))


def add_signature(data: bytes, signer: ModelSigner) -> bytes:
    """The same envelope with one signature more; one by the same key is replaced.

    Raises: MalformedDocument, KeyUnusable.
    """
    envelope = parse_envelope(data)
    key_id = key_id_of(signer.public_key)
    kept = tuple(pair for pair in envelope.signatures if pair[0] != key_id)
    added = (key_id, signer.sign(encode_typed_pae(envelope.payload_type, envelope.payload)))
    return encode_envelope(Envelope(envelope.payload_type, envelope.payload, (*kept, added)))


def encode_envelope(envelope: Envelope) -> bytes:
    """The envelope as JSON, with a newline at its end."""
    document = {
        "payload": b64encode(envelope.payload).decode(),
        "payloadType": envelope.payload_type,
        "signatures": [{"keyid": key, "sig": b64encode(signature).decode()} for key, signature in envelope.signatures],
    }
    return json.dumps(document, indent=1).encode() + b"\n"


def parse_envelope(data: bytes) -> Envelope:
    """Parse an untrusted envelope; at most MAX_ENVELOPE_BYTES.

    Raises: MalformedDocument for whatever is refused.
    """
    if len(data) > MAX_ENVELOPE_BYTES:
        raise MalformedDocument(f"envelope: longer than {MAX_ENVELOPE_BYTES} bytes")
    document = parse_json_object(data)
    if set(document) != {"payload", "payloadType", "signatures"}:
        raise MalformedDocument("envelope: expected payload, payloadType and signatures")
    payload_type, signatures = document["payloadType"], document["signatures"]
    if type(payload_type) is not str or not payload_type.isascii():
        raise MalformedDocument("envelope: payloadType: expected ASCII text")
    if type(signatures) is not list or len(signatures) > _MAX_SIGNATURES:
        raise MalformedDocument(f"envelope: expected at most {_MAX_SIGNATURES} signatures")
    pairs = []
    for entry in signatures:
        if type(entry) is not dict or set(entry) != {"keyid", "sig"} or type(entry["keyid"]) is not str:
            raise MalformedDocument("envelope: a signature has keyid and sig")
        pairs.append((entry["keyid"], _decode(entry["sig"])))
    return Envelope(payload_type, _decode(document["payload"]), tuple(pairs))


def find_signers(envelope: Envelope, keys: Mapping[str, EllipticCurvePublicKey]) -> list[str]:
    """Ids of the known keys whose signature is good, each once. Signatures by unknown keys are passed over.

    Raises: MalformedDocument if a signature that names a known key is wrong: somebody altered the envelope.
    """
    message = encode_typed_pae(envelope.payload_type, envelope.payload)
    found: list[str] = []
    for key_id, signature in envelope.signatures:
        key = keys.get(key_id)
        if key is None:
            continue
        if not _is_good(key, signature, message):
            raise MalformedDocument(f"envelope: the signature by key {key_id[:16]}… does not verify")
        if key_id not in found:
            found.append(key_id)
    return found


def _is_good(key: EllipticCurvePublicKey, signature: bytes, message: bytes) -> bool:
    algorithm = hash_of_curve(key.curve)
    if algorithm is None:
        return False
    try:
        key.verify(signature, message, ECDSA(algorithm))
    except InvalidSignature:
        return False
    return True


def _decode(text: object) -> bytes:
    if type(text) is not str:
        raise MalformedDocument("envelope: expected base64 text")
    try:
        return b64decode(text, validate=True)
    except ValueError:
        raise MalformedDocument("envelope: expected base64 text") from None
