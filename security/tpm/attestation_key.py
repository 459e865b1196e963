"""The key that quotes: a restricted signing key on P-256 in the endorsement hierarchy.

It is derived from a seed in the TPM, so that it is the same at every start without being stored anywhere, and another one after
the TPM's endorsement seed is replaced. *Restricted*: it signs only what the TPM itself has made, so that nobody can have it sign
a forged quote.
Source: TPM 2.0 part 3, 24.1 (TPM2_CreatePrimary); part 2, 8.3 (attributes), 12.2.4 (TPMT_PUBLIC).
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey, EllipticCurvePublicNumbers
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from security.errors import QuoteRejected, TpmUnavailable
from security.tpm.device import Tpm
from security.tpm.wire import ALG_ECC, ALG_ECDSA, ALG_NULL, ALG_SHA256, CURVE_P256, Reader, sized, u16, u32

_ENDORSEMENT = 0x4000000B
_CREATE_PRIMARY, _FLUSH_CONTEXT = 0x131, 0x165
# fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, restricted, sign
_ATTRIBUTES = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 10 | 1 << 16 | 1 << 18
_PARAMETERS = u16(ALG_NULL) + u16(ALG_ECDSA) + u16(ALG_SHA256) + u16(CURVE_P256) + u16(ALG_NULL)
_HEAD = u16(ALG_ECC) + u16(ALG_SHA256) + u32(_ATTRIBUTES) + sized(b"") + _PARAMETERS


@dataclass(frozen=True, slots=True)
class AttestationKey:
    """The key, loaded."""

    handle: int
    public: EllipticCurvePublicKey


@contextmanager
def loaded_key(tpm: Tpm) -> Iterator[AttestationKey]:
    """Make the key in the TPM, and drop it at the end.

    Raises: TpmUnavailable.
    """
    template = _HEAD + sized(b"") + sized(b"")
    parameters = sized(sized(b"") + sized(b"")) + sized(template) + sized(b"") + u32(0)
    reader = tpm.run("CreatePrimary", _CREATE_PRIMARY, u32(_ENDORSEMENT), parameters, is_authorized=True)
    try:
        handle = reader.number(4)
        reader.take(4)
        public = _parse_public(reader.sized())
    except QuoteRejected as error:
        raise TpmUnavailable(f"CreatePrimary: {error}") from None
    try:
        yield AttestationKey(handle, public)
    finally:
        tpm.run("FlushContext", _FLUSH_CONTEXT, b"", u32(handle))


def key_digest(key: EllipticCurvePublicKey) -> str:
    """SHA-256, hexadecimal, over the key's DER (SubjectPublicKeyInfo): by what people and statements name it."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _parse_public(public: bytes) -> EllipticCurvePublicKey:
    """The point of a key of our template. Raises: QuoteRejected for any other."""
    reader = Reader(public)
    if reader.take(len(_HEAD)) != _HEAD:
        raise QuoteRejected("the key has other properties than were asked for")
    x, y = reader.sized(), reader.sized()
    reader.end()
    try:
        return EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), SECP256R1()).public_key()
    except ValueError:
        raise QuoteRejected("the key is no point of P-256") from None
