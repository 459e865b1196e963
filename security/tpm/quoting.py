"""Has the TPM sign: `take_quote`.

A quote that was taken is verified before anybody gets it. Source: TPM 2.0 part 3, 18.4 (TPM2_Quote), 22.4 (TPM2_PCR_Read).
"""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from security.errors import QuoteRejected, TpmUnavailable
from security.tpm.attestation_key import AttestationKey, loaded_key
from security.tpm.device import Tpm
from security.tpm.quote import MAX_NONCE_BYTES, Quote, bound_data
from security.tpm.verification import verify_quote
from security.tpm.wire import ALG_NULL, NUM_PCRS, encode_selection, sized, u16, u32

_PCR_READ, _QUOTE = 0x17E, 0x158
_ATTEMPTS = 3


def read_key(device: Path) -> EllipticCurvePublicKey:
    """The public key that quotes of this TPM are signed with.

    Raises: TpmUnavailable.
    """
    with Tpm(device) as tpm, loaded_key(tpm) as key:
        return key.public


def take_quote(device: Path, digest: bytes, nonce: bytes, pcrs: tuple[int, ...]) -> Quote:
    """Have the TPM sign a digest and the PCRs of its SHA-256 bank.

    Args:
        digest: 32 bytes.
        nonce: at most MAX_NONCE_BYTES, made by whoever wants to know that the quote is new.
        pcrs: which, ascending.
    Raises: TpmUnavailable.
    """
    assert len(digest) == 32
    assert len(nonce) <= MAX_NONCE_BYTES
    assert list(pcrs) == sorted(set(pcrs))
    assert all(pcr in range(NUM_PCRS) for pcr in pcrs)
    with Tpm(device) as tpm, loaded_key(tpm) as key:
        for attempt in range(_ATTEMPTS):
            try:
                quote = _quote(tpm, key, bound_data(digest, nonce), nonce, pcrs)
                verify_quote(quote, key.public, digest, nonce)
                return quote
            except QuoteRejected as error:
                # Somebody may extend a PCR between reading and quoting: the values are then not those that were signed.
                if attempt == _ATTEMPTS - 1:
                    raise TpmUnavailable(f"{device}: {error}") from None
    raise AssertionError


def _quote(tpm: Tpm, key: AttestationKey, bound: bytes, nonce: bytes, pcrs: tuple[int, ...]) -> Quote:
    values = _read_pcrs(tpm, pcrs)
    parameters = sized(bound) + u16(ALG_NULL) + encode_selection(pcrs)
    reader = tpm.run("Quote", _QUOTE, u32(key.handle), parameters, is_authorized=True)
    size = reader.number(4)
    attest = reader.sized()
    signature = reader.take(size - len(attest) - 2)
    return Quote(key.public, nonce, attest, signature, values)


def _read_pcrs(tpm: Tpm, pcrs: tuple[int, ...]) -> dict[int, bytes]:
    """Values of PCRs; the TPM gives at most eight an answer."""
    values: dict[int, bytes] = {}
    while left := tuple(pcr for pcr in pcrs if pcr not in values):
        reader = tpm.run("PCR_Read", _PCR_READ, b"", encode_selection(left))
        reader.take(4)
        given = reader.selection()
        if reader.number(4) != len(given) or not given:
            raise TpmUnavailable("PCR_Read: the TPM has no SHA-256 bank, or not these PCRs")
        values |= {pcr: reader.sized() for pcr in given}
    return values
