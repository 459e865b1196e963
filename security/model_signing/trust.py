"""Whose signatures count, and what a signature says once it is good.

The key or the root comes from the caller, out of band; a signature file only says which of them it wants. A signature of the
other method than the trust is for is refused: who trusts a key has not said anything about certificates.
"""

import datetime
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509 import Certificate

from security.errors import ModelFolderRejected, ModelSignatureRejected
from security.model_signing.algorithms import TITLES, Hasher, new_hasher
from security.model_signing.bundle import (
    MAX_BUNDLE_BYTES,
    CertificateChain,
    KeyHint,
    encode_pae,
    parse_bundle,
)
from security.model_signing.chain import load_certificates, verify_chain, verify_signing_certificate
from security.model_signing.elliptic import encodings_of, key_hints, load_public_key, verify_signature_bytes
from security.model_signing.manifest import Manifest
from security.model_signing.names import show_name
from security.model_signing.statement import parse_statement


@dataclass(frozen=True, slots=True)
class KeyTrust:
    """Any of these keys, on P-256, P-384 or P-521."""

    keys: tuple[EllipticCurvePublicKey, ...]


@dataclass(frozen=True, slots=True)
class CertificateTrust:
    """Any signing certificate under one of these roots."""

    roots: tuple[Certificate, ...]
    at: datetime.datetime | None = None
    """When all certificates must be valid, in UTC: now, if None. A host that serves what it approved earlier names that time."""


Trust = KeyTrust | CertificateTrust


def load_key_trust(*paths: Path) -> KeyTrust:
    """Trust in public keys from PEM files. Raises: KeyUnusable."""
    return KeyTrust(tuple(load_public_key(path) for path in paths))


def load_certificate_trust(path: Path, *, at: datetime.datetime | None = None) -> CertificateTrust:
    """Trust in the roots of a PEM file. Raises: KeyUnusable."""
    return CertificateTrust(load_certificates(path), at)


@dataclass(frozen=True, slots=True)
class SignedBy:
    """Who signed, as far as was verified."""

    method: str
    """`key` or `certificate`."""
    fingerprint: str
    """SHA-256 of the key (over its PEM text) or of the certificate, in hexadecimal."""
    name: str | None
    """The certificate's subject."""


@dataclass(frozen=True, slots=True)
class SignedModel:
    """A manifest whose signature is good. It says nothing about any folder yet."""

    manifest: Manifest
    signed_by: SignedBy
    inode: tuple[int, int]
    """Device and inode of the signature file that was read."""

    @property
    def digests(self) -> Mapping[str, str]:
        """The digest, in hexadecimal, of each file by its name."""
        return self.manifest.digests

    @property
    def algorithm(self) -> str:
        """What files are digested with, one of `algorithms.ALGORITHMS`."""
        return self.manifest.algorithm

    def new_hasher(self, num_threads: int = 1) -> Hasher:
        """Begin a digest that `verify_bytes` takes; see `algorithms.new_hasher`."""
        return new_hasher(self.manifest.algorithm, num_threads=num_threads)

    @property
    def root(self) -> str:
        """The digest that stands for the whole model."""
        return self.manifest.root

    def verify_bytes(self, name: str, digest: str) -> None:
        """Check the digest of the very bytes that were read under a name; for loaders.

        A file may be exchanged between its verification and its use. So whoever loads one MUST hash what it has in memory and
        ask here, and not rely on the folder having been verified.

        Raises: ModelFolderRejected if the name is not signed, or the digest is another.
        """
        expected = self.manifest.digests.get(name)
        if expected is None:
            raise ModelFolderRejected(f"{show_name(name)}: not listed in the signature")
        if digest != expected:
            raise changed(name, expected, digest, self.algorithm)


def changed(name: str, expected: str, found: str, algorithm: str) -> ModelFolderRejected:
    """The error for a file with other bytes than those signed."""
    return ModelFolderRejected(
        f"{show_name(name)}: changed: {TITLES[algorithm]} {found[:16]}… instead of {expected[:16]}…"
    )


def verify_signature(path: Path, trust: Trust) -> SignedModel:
    """Read a signature file, verify it, and only then parse what it says (OMS sections 8.1 to 8.3).

    Raises: ModelSignatureRejected.
    """
    data, inode = _read_signature(path)
    bundle = parse_bundle(data)
    if isinstance(trust, KeyTrust):
        if not isinstance(bundle.material, KeyHint):
            raise ModelSignatureRejected("signature: made with a certificate: expected one by the key given")
        key = _find_key(trust.keys, bundle.material)
        signed_by = SignedBy("key", key_hints(key)[0], None)
    else:
        if not isinstance(bundle.material, CertificateChain):
            raise ModelSignatureRejected(
                "signature: made with a key: expected one with a certificate under the root given"
            )
        at = trust.at if trust.at is not None else datetime.datetime.now(datetime.UTC)
        leaf = verify_chain(bundle.material.certificates, trust.roots, at)
        key = verify_signing_certificate(leaf)
        signed_by = SignedBy("certificate", leaf.fingerprint(SHA256()).hex(), leaf.subject.rfc4514_string())
    verify_signature_bytes(key, bundle.signature, encode_pae(bundle.payload))
    return SignedModel(parse_statement(bundle.payload), signed_by, inode)


def _find_key(keys: tuple[EllipticCurvePublicKey, ...], claim: KeyHint) -> EllipticCurvePublicKey:
    """The trusted key that a signature names; the claim only chooses, the signature decides."""
    for key in keys:
        if claim.hint in key_hints(key) or claim.public_key in encodings_of(key):
            return key
    shown = f" (hint {ascii(claim.hint)[1:17]}…)" if claim.hint is not None else ""
    raise ModelSignatureRejected(f"signature: made with another key{shown} than the one given")


def _read_signature(path: Path) -> tuple[bytes, tuple[int, int]]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ModelSignatureRejected(f"{path}: not a regular file")
            return file.read(MAX_BUNDLE_BYTES + 1), (status.st_dev, status.st_ino)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
        raise ModelSignatureRejected(f"{path}: signature cannot be read: {reason}") from None
