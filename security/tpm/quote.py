"""A quote, as it is kept: a JSON object with the TPM's own bytes.

    {"type": "casemate.quote/1", "key": PEM, "nonce": hex, "attest": base64, "signature": base64, "pcrs": {"0": hex, …}}

What the TPM signs along with the PCRs (`extraData`) is SHA-256 over `casemate.quote/1`, a line feed, the nonce and the digest.
A verifier who sends a fresh nonce knows that the quote is not an old one.
"""

import hashlib
import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from security.errors import MalformedDocument, QuoteRejected
from security.json_object import parse_json_object

FORMAT = "casemate.quote/1"
MAX_QUOTE_BYTES = 1 << 16
MAX_NONCE_BYTES = 64
_MEMBERS = {"type", "key", "nonce", "attest", "signature", "pcrs"}


@dataclass(frozen=True, slots=True)
class Quote:
    """What a TPM signed, and what is needed to check it. Nothing of it is believed before `verify_quote`."""

    key: EllipticCurvePublicKey
    """The key that it is said to be signed with; a verifier has it by another way."""
    nonce: bytes
    attest: bytes
    """TPMS_ATTEST: the bytes that are signed."""
    signature: bytes
    """TPMT_SIGNATURE."""
    pcrs: Mapping[int, bytes]
    """The values that the TPM's digest is over."""

    def encode(self) -> bytes:
        """The form in which a quote is kept."""
        document = {
            "type": FORMAT,
            "key": self.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
            "nonce": self.nonce.hex(),
            "attest": b64encode(self.attest).decode(),
            "signature": b64encode(self.signature).decode(),
            "pcrs": {str(pcr): value.hex() for pcr, value in sorted(self.pcrs.items())},
        }
        return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def parse_quote(data: bytes) -> Quote:
    """Parse an untrusted quote; at most MAX_QUOTE_BYTES.

    Raises: QuoteRejected.
    """
    if len(data) > MAX_QUOTE_BYTES:
        raise QuoteRejected(f"quote: longer than {MAX_QUOTE_BYTES} bytes")
    try:
        document = parse_json_object(data)
        if document.keys() != _MEMBERS or document["type"] != FORMAT or type(document["pcrs"]) is not dict:
            raise QuoteRejected(f"quote: expected a {FORMAT} with {', '.join(sorted(_MEMBERS))}")
        pcrs = {int(pcr): bytes.fromhex(value) for pcr, value in document["pcrs"].items()}
        attest, signature = (b64decode(document[name], validate=True) for name in ("attest", "signature"))
        quote = Quote(_parse_key(document["key"]), bytes.fromhex(document["nonce"]), attest, signature, pcrs)
    except (MalformedDocument, UnsupportedAlgorithm, ValueError, TypeError, AttributeError) as error:
        raise QuoteRejected(f"quote: malformed: {error}"[:200]) from None
    if quote.encode() != data:
        raise QuoteRejected("quote: not in its one form")
    return quote


def _parse_key(pem: str) -> EllipticCurvePublicKey:
    """The P-256 key that a quote says it is signed with. Raises: ValueError, TypeError, AttributeError."""
    key = load_pem_public_key(pem.encode("ascii"))
    if not isinstance(key, EllipticCurvePublicKey) or key.curve.name != SECP256R1.name:
        raise QuoteRejected("quote: its key is not on P-256")
    return key


def bound_data(digest: bytes, nonce: bytes) -> bytes:
    """What the TPM signs along with the PCRs: 32 bytes that stand for a digest and a nonce."""
    return hashlib.sha256(FORMAT.encode() + b"\n" + nonce + digest).digest()
