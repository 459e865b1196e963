"""ECDSA as the format has it: three curves, each with its own hash, and the hint by which a key is named.

P-256 with SHA-256, P-384 with SHA-384, P-521 with SHA-512, signatures in DER. The hash follows from the curve and from
nothing in the signature, so that a weaker one cannot be asked for.
Source: OMS algorithm registry; FIPS 186-5.
"""

import hashlib
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurve, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from security.errors import KeyUnusable, ModelSignatureRejected

_HASHES: dict[str, type[SHA256] | type[SHA384] | type[SHA512]] = {
    "secp256r1": SHA256,
    "secp384r1": SHA384,
    "secp521r1": SHA512,
}
CURVES = "P-256, P-384 or P-521"
_MAX_PEM_BYTES = 64 << 10


def hash_of_curve(curve: EllipticCurve) -> HashAlgorithm | None:
    """The hash that belongs to a curve; None if the format does not have the curve."""
    kind = _HASHES.get(curve.name)
    return kind() if kind else None


def verify_signature_bytes(key: EllipticCurvePublicKey, signature: bytes, message: bytes) -> None:
    """Verify an ECDSA signature in DER.

    Raises: ModelSignatureRejected.
    """
    algorithm = hash_of_curve(key.curve)
    if algorithm is None:
        raise ModelSignatureRejected(f"signature: by a key on {key.curve.name}: expected {CURVES}")
    try:
        key.verify(signature, message, ECDSA(algorithm))
    except InvalidSignature:
        raise ModelSignatureRejected("signature: does not verify: it was altered, or made with another key") from None


def key_hints(key: EllipticCurvePublicKey) -> tuple[str, str]:
    """SHA-256 of the key, in hexadecimal: over its PEM text, which is what is written, and over DER, which is taken too."""
    return tuple(hashlib.sha256(encoding).hexdigest() for encoding in encodings_of(key))  # type: ignore[return-value]


def encodings_of(key: EllipticCurvePublicKey) -> tuple[bytes, bytes]:
    """The key's SubjectPublicKeyInfo as PEM and as DER."""
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem, key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def load_public_key(path: Path) -> EllipticCurvePublicKey:
    """Load a public key on one of the three curves from PEM.

    Raises: KeyUnusable.
    """
    try:
        key = load_pem_public_key(read_pem(path))
    except (ValueError, UnsupportedAlgorithm):
        raise KeyUnusable(f"{path} is not a PEM public key") from None
    if not isinstance(key, EllipticCurvePublicKey) or hash_of_curve(key.curve) is None:
        raise KeyUnusable(f"{path} holds a key of another kind: expected {CURVES}")
    return key


def read_pem(path: Path) -> bytes:
    """Read a bounded file of public material.

    Raises: KeyUnusable.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_PEM_BYTES + 1)
    except OSError as error:
        raise KeyUnusable(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > _MAX_PEM_BYTES:
        raise KeyUnusable(f"{path} is larger than {_MAX_PEM_BYTES} bytes")
    return data
