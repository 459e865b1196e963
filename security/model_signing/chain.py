"""Certificates of the certificate method: from the signer's up to a root that is pinned in a file.

Paths are built by pyca/cryptography's verifier (RFC 5280: validity of every certificate, names, path lengths, CA bits,
unknown critical extensions), under a policy of our own, since its own policies are for TLS. The signer's certificate MUST be
meant for signatures: digitalSignature where it has a key usage, code signing where it has an extended one, one of both
present, and no right to sign certificates. Revocation is not looked up, as that would need a network: take a root, or an
intermediate as the root, out of the file that pins it.
"""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from security.errors import KeyUnusable, ModelSignatureRejected
from security.model_signing.elliptic import CURVES, hash_of_curve, read_pem

_Extension = TypeVar("_Extension", bound=x509.ExtensionType)
_MAX_DEPTH = 6
_MAX_REASON = 300
# What the parser raises, some of it only when a part is looked at; each found by altering a good certificate's bytes.
_UNREADABLE = (
    ValueError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
_SIGNING_PURPOSES = (ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)


def load_certificates(path: Path) -> tuple[x509.Certificate, ...]:
    """Load PEM certificates, at least one, in the order of the file.

    Raises: KeyUnusable.
    """
    try:
        return tuple(x509.load_pem_x509_certificates(read_pem(path)))
    except _UNREADABLE:
        raise KeyUnusable(f"{path} does not hold PEM certificates") from None


def verify_chain(
    certificates: Sequence[bytes], roots: Sequence[x509.Certificate], at: datetime.datetime
) -> x509.Certificate:
    """Verify a chain in DER, the signer's certificate first, and return that one.

    Args:
        roots: trust anchors; whatever else the chain holds is only a way to them.
        at: the time at which all certificates must be valid.
    Raises: ModelSignatureRejected.
    """
    try:
        leaf, *intermediates = [x509.load_der_x509_certificate(certificate) for certificate in certificates]
    except _UNREADABLE:
        raise ModelSignatureRejected("signature: holds a malformed certificate") from None
    policy = PolicyBuilder().store(Store(list(roots))).time(at).max_chain_depth(_MAX_DEPTH)
    policy = policy.extension_policies(ca_policy=_authority_policy(), ee_policy=ExtensionPolicy.permit_all())
    try:
        verify_signing_certificate(leaf)
        _verify_period(leaf, at)
        policy.build_client_verifier().verify(leaf, intermediates)
    except (VerificationError, *_UNREADABLE) as error:
        # Names in it come from certificates that nobody vouches for.
        reason = "".join(character if character.isprintable() else "?" for character in str(error))[:_MAX_REASON]
        raise ModelSignatureRejected(f"signature: certificate is not trusted under the given root: {reason}") from None
    return leaf


def verify_signing_certificate(certificate: x509.Certificate) -> EllipticCurvePublicKey:
    """Verify that a certificate is one to sign models with, and return its key.

    Raises: ModelSignatureRejected.
    """
    try:
        key = certificate.public_key()
        usage = _extension(certificate, x509.KeyUsage)
        purposes = _extension(certificate, x509.ExtendedKeyUsage)
    except _UNREADABLE:
        raise ModelSignatureRejected("signature: certificate cannot be read") from None
    if not isinstance(key, EllipticCurvePublicKey) or hash_of_curve(key.curve) is None:
        raise ModelSignatureRejected(f"signature: certificate's key is of another kind: expected {CURVES}")
    if usage is None and purposes is None:
        raise ModelSignatureRejected("signature: certificate does not say that it is for signatures")
    if usage is not None and (not usage.digital_signature or usage.key_cert_sign):
        raise ModelSignatureRejected("signature: certificate's key usage: expected digitalSignature, not keyCertSign")
    if purposes is not None and not any(purpose in _SIGNING_PURPOSES for purpose in purposes):
        raise ModelSignatureRejected("signature: certificate is for other purposes than code signing")
    return key


def _extension(certificate: x509.Certificate, kind: type[_Extension]) -> _Extension | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _verify_period(leaf: x509.Certificate, at: datetime.datetime) -> None:
    """The verifier checks it too, but does not say by how much."""
    if not leaf.not_valid_before_utc <= at <= leaf.not_valid_after_utc:
        raise ModelSignatureRejected(
            f"signature: certificate is valid from {leaf.not_valid_before_utc:%Y-%m-%d} to"
            f" {leaf.not_valid_after_utc:%Y-%m-%d}, not on {at:%Y-%m-%d}"
        )


def _authority_policy() -> ExtensionPolicy:
    return (
        ExtensionPolicy.permit_all()
        .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, _verify_is_authority)
        .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _verify_may_issue)
        .may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _verify_may_sign_code)
    )


def _verify_is_authority(_: Policy, certificate: x509.Certificate, constraints: x509.BasicConstraints) -> None:
    if not constraints.ca:
        raise ValueError(f"{certificate.subject.rfc4514_string()} is not a certificate authority")


def _verify_may_issue(_: Policy, certificate: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError(f"{certificate.subject.rfc4514_string()} may not sign certificates")


def _verify_may_sign_code(_: Policy, certificate: x509.Certificate, purposes: x509.ExtendedKeyUsage | None) -> None:
    if purposes is not None and not any(purpose in _SIGNING_PURPOSES for purpose in purposes):
        raise ValueError(f"{certificate.subject.rfc4514_string()} is not an authority for code signing")
