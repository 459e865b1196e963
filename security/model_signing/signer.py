"""Whoever signs a model: a key, wherever it lies, and the certificates that vouch for it.

A key in a file is PEM (PKCS#8 or SEC 1), readable by its owner alone; it may be encrypted, as a steward's should be.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from security.errors import KeyUnusable, ModelSignatureRejected
from security.keys import load_private_file
from security.model_signing.bundle import CertificateChain, KeyHint
from security.model_signing.chain import load_certificates, verify_signing_certificate
from security.model_signing.elliptic import CURVES, hash_of_curve, key_hints

AskPassphrase = Callable[[str], str]
"""Called with what the passphrase is for."""


@dataclass(frozen=True, slots=True)
class ModelSigner:
    """Signs with a key on one of the three curves."""

    public_key: EllipticCurvePublicKey
    sign: Callable[[bytes], bytes]
    """From a message to its ECDSA signature in DER, by the curve's own hash. Raises: KeyUnusable."""
    certificates: tuple[x509.Certificate, ...] = ()
    """The signer's certificate and those above it; none for the key method."""

    @property
    def material(self) -> KeyHint | CertificateChain:
        """What a signature file says about the key."""
        if self.certificates:
            return CertificateChain(tuple(each.public_bytes(Encoding.DER) for each in self.certificates))
        return KeyHint(key_hints(self.public_key)[0])


def load_signer(path: Path, ask_passphrase: AskPassphrase, *, chain: Path | None = None) -> ModelSigner:
    """A signer with a key from a file.

    Args:
        ask_passphrase: called only if the key is encrypted.
        chain: PEM certificates, that of the key first, for the certificate method.
    Raises: KeyUnusable for files that are not what they should be, or a certificate of another key.
    """
    key = _load_key(path, ask_passphrase)
    algorithm = hash_of_curve(key.curve)
    if algorithm is None:
        raise KeyUnusable(f"{path} holds a key on {key.curve.name}: expected {CURVES}")
    public_key = key.public_key()
    certificates = load_signing_chain(chain, public_key) if chain is not None else ()
    return ModelSigner(public_key, lambda message: key.sign(message, ECDSA(algorithm)), certificates)


def _load_key(path: Path, ask_passphrase: AskPassphrase) -> EllipticCurvePrivateKey:
    data = load_private_file(path)
    try:
        try:
            key = load_pem_private_key(data, password=None)
        except TypeError:  # It is encrypted.
            key = load_pem_private_key(data, password=ask_passphrase(f"passphrase of {path}").encode())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyUnusable(f"{path} is not a PEM private key, or the passphrase is wrong") from None
    if not isinstance(key, EllipticCurvePrivateKey):
        raise KeyUnusable(f"{path} holds a key of another kind: expected {CURVES}")
    return key


def load_signing_chain(path: Path, public_key: EllipticCurvePublicKey) -> tuple[x509.Certificate, ...]:
    """Load the certificates of a signer, refusing what no verifier would take.

    Raises: KeyUnusable.
    """
    certificates = load_certificates(path)
    try:
        certified = verify_signing_certificate(certificates[0])
    except ModelSignatureRejected as error:
        raise KeyUnusable(f"{path}: {str(error).removeprefix('signature: ')}") from None
    if certified != public_key:
        raise KeyUnusable(f"{path}: the first certificate is not that of the signing key")
    return certificates
