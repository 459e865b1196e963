"""The signature file: a DSSE envelope in a Sigstore bundle v0.3, with what is needed to find the key.

Nothing in a parsed bundle is believed yet: `payload` is what somebody signed, `signature` and `material` are claims.
Sources: OMS v1.0 sections 4, 8.1 and 11; DSSE v1.0; Sigstore's bundle format.
"""

import json
from base64 import b64encode
from dataclasses import dataclass
from typing import Any

from security.errors import MalformedDocument, ModelSignatureRejected
from security.json_object import parse_json_object
from security.model_signing.members import Members
from security.model_signing.statement import MAX_STATEMENT_BYTES

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_BUNDLE_BYTES = MAX_STATEMENT_BYTES // 3 * 4 + (1 << 20)
_MAX_CERTIFICATES = 10


@dataclass(frozen=True, slots=True)
class KeyHint:
    """Key method: the hash of the key, or, as model-signing wrote before 1.1, the key itself."""

    hint: str | None
    public_key: bytes | None = None


@dataclass(frozen=True, slots=True)
class CertificateChain:
    """Certificate method: DER, the signer's certificate first."""

    certificates: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Bundle:
    """The parts of a signature file."""

    payload: bytes
    signature: bytes
    material: KeyHint | CertificateChain


def encode_pae(payload: bytes) -> bytes:
    """The bytes that are signed: DSSE's pre-authentication encoding of a statement."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def encode_bundle(bundle: Bundle) -> bytes:
    """The file's content."""
    if isinstance(bundle.material, CertificateChain):
        certificates = [{"rawBytes": _base64(certificate)} for certificate in bundle.material.certificates]
        material: dict[str, Any] = {"x509CertificateChain": {"certificates": certificates}}
    else:
        material = {"publicKey": {"hint": bundle.material.hint}}
    document = {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {**material, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": _base64(bundle.payload),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": _base64(bundle.signature), "keyid": ""}],
        },
    }
    return json.dumps(document, separators=(",", ":")).encode()


def parse_bundle(data: bytes) -> Bundle:
    """Parse an untrusted signature file; at most MAX_BUNDLE_BYTES.

    Raises: ModelSignatureRejected for whatever is refused.
    """
    if len(data) > MAX_BUNDLE_BYTES:
        raise ModelSignatureRejected(f"signature: longer than {MAX_BUNDLE_BYTES} bytes")
    try:
        bundle = Members(parse_json_object(data), "bundle")
    except MalformedDocument as error:
        raise ModelSignatureRejected(f"signature: {error}") from None
    bundle.allow("mediaType", "verificationMaterial", "dsseEnvelope")
    bundle.constant("mediaType", MEDIA_TYPE)
    envelope = bundle.nested("dsseEnvelope")
    envelope.allow("payload", "payloadType", "signatures")
    envelope.constant("payloadType", PAYLOAD_TYPE)
    # A Sigstore bundle holds exactly one signature, so nobody needs to decide whether any or all of several must be good.
    signature = Members(envelope.array("signatures", 1, 1)[0], "signatures[0]")
    signature.allow("sig", "keyid")
    if signature.has("keyid"):
        signature.constant("keyid", "")
    material = _parse_material(bundle.nested("verificationMaterial"))
    return Bundle(envelope.data("payload"), signature.data("sig"), material)


def _parse_material(material: Members) -> KeyHint | CertificateChain:
    if material.has("certificate"):
        raise material.rejected("keyless (Sigstore) signatures are not supported: they need services outside")
    material.allow("publicKey", "x509CertificateChain", "certificate", "tlogEntries", "timestampVerificationData")
    if material.has("tlogEntries"):
        material.array("tlogEntries", 0, 0)
    if material.has("publicKey") == material.has("x509CertificateChain"):
        raise material.rejected("expected either publicKey or x509CertificateChain")
    if material.has("publicKey"):
        key = material.nested("publicKey")
        if key.has("hint"):
            return KeyHint(key.text("hint"))
        return KeyHint(None, key.data("rawBytes"))
    elements = material.nested("x509CertificateChain").array("certificates", 1, _MAX_CERTIFICATES)
    return CertificateChain(tuple(Members(element, "certificate").data("rawBytes") for element in elements))


def _base64(data: bytes) -> str:
    return b64encode(data).decode("ascii")
