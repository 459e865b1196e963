"""Whether a quote shows what it is said to show; needs no TPM and no network.

(1) The signature over the attested bytes, by the key that the verifier trusts and no other. (2) They are a quote that a TPM
made: its magic number, which a restricted key signs nothing else under, and the type. (3) It is over this digest and this nonce.
(4) The values given for the PCRs are those that were digested, and they are the ones that the TPM says it selected.
Source: TPM 2.0 part 2, 10.12.8 (TPMS_ATTEST), 11.3.4 (TPMT_SIGNATURE).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from security.errors import QuoteRejected
from security.tpm.quote import Quote, bound_data
from security.tpm.wire import ALG_ECDSA, ALG_SHA256, Reader

_MAGIC, _ATTEST_QUOTE = 0xFF544347, 0x8018


@dataclass(frozen=True, slots=True)
class Attested:
    """What a quote says, once it is verified."""

    pcrs: Mapping[int, bytes]
    clock_ms: int
    """The TPM's own time, since it was last cleared, while it had power."""
    reset_count: int
    """How often the machine was started since then."""
    restart_count: int
    """How often it came back from sleep since the last start."""
    is_clock_safe: bool
    """False: the clock may have gone back, as the TPM lost power unexpectedly."""
    firmware: int


def verify_quote(quote: Quote, key: EllipticCurvePublicKey, digest: bytes, nonce: bytes) -> Attested:
    """Verify a quote over a digest.

    Args:
        key: the key of the host's TPM, by another way than the quote.
        nonce: as the verifier sent it, or as it stands in the quote if it need not be new.
    Raises: QuoteRejected.
    """
    _verify_signature(quote, key)  # (1)
    reader = Reader(quote.attest)
    if reader.number(4) != _MAGIC or reader.number(2) != _ATTEST_QUOTE:  # (2)
        raise QuoteRejected("quote: what was signed is no quote of a TPM")
    reader.sized()  # The name of the key in its hierarchy, which adds nothing to (1).
    if reader.sized() != bound_data(digest, nonce) or quote.nonce != nonce:  # (3)
        raise QuoteRejected("quote: is over another digest, or was made for another nonce")
    clock_ms, resets, restarts, is_safe = (reader.number(size) for size in (8, 4, 4, 1))
    firmware = reader.number(8)
    selected, values_digest = reader.selection(), reader.sized()
    reader.end()
    if selected != tuple(sorted(quote.pcrs)):  # (4)
        raise QuoteRejected("quote: gives values of other PCRs than were signed")
    if hashlib.sha256(b"".join(quote.pcrs[pcr] for pcr in selected)).digest() != values_digest:
        raise QuoteRejected("quote: the values of the PCRs are not those that were signed")
    return Attested(quote.pcrs, clock_ms, resets, restarts, is_safe == 1, firmware)


def _verify_signature(quote: Quote, key: EllipticCurvePublicKey) -> None:
    reader = Reader(quote.signature)
    if reader.number(2) != ALG_ECDSA or reader.number(2) != ALG_SHA256:
        raise QuoteRejected("quote: signed with something else than ECDSA and SHA-256")
    numbers = int.from_bytes(reader.sized()), int.from_bytes(reader.sized())
    reader.end()
    try:
        if key != quote.key:
            raise InvalidSignature
        key.verify(encode_dss_signature(*numbers), quote.attest, ECDSA(SHA256()))
    except InvalidSignature:
        raise QuoteRejected("quote: does not verify: it was altered, or made by another TPM") from None
