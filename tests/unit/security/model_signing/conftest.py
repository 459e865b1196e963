"""Fixtures: a small model folder, keys on the format's curves, and certificates under a root."""

import datetime
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.hashes import SHA256, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from security.model_signing.bundle import Bundle, KeyHint, encode_bundle, encode_pae
from security.model_signing.elliptic import key_hints
from security.model_signing.signer import ModelSigner
from security.model_signing.signing import sign_model
from security.model_signing.trust import KeyTrust, Trust
from security.model_signing.verification import VerifiedModel, verify_model

NOW = datetime.datetime(2026, 6, 1, tzinfo=datetime.UTC)
YEAR = datetime.timedelta(days=365)
FILES = {
    "config.json": b"{}",
    "model-00001-of-00002.safetensors": bytes(range(256)) * 40,
    "model-00002-of-00002.safetensors": b"weights" * 1000,
    "tokenizer.json": b'{"model": {}}',
    "chat_template.jinja": b"{{ messages }}",
    "draft/config.json": b'{"draft": true}',
    "draft/model.safetensors": b"draft head",
    "empty": b"",
}


def key_usage(*names: str) -> x509.KeyUsage:
    """A key usage with these bits."""
    bits = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    bits += ("key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(**{bit: bit in names for bit in bits})


SIGNING = key_usage("digital_signature")
ISSUING = key_usage("key_cert_sign", "crl_sign")
CODE_SIGNING = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])


@dataclass
class Entity:
    """A name with a key and a certificate."""

    name: str
    key: Any = field(default_factory=lambda: generate_private_key(SECP256R1()))
    certificate: x509.Certificate | None = None

    @property
    def der(self) -> bytes:
        assert self.certificate is not None
        return self.certificate.public_bytes(Encoding.DER)

    def certify(
        self,
        issuer: "Entity | None" = None,
        extensions: Iterable[x509.ExtensionType] = (),
        *,
        critical: bool = True,
        start: datetime.datetime = NOW - YEAR,
        end: datetime.datetime = NOW + YEAR,
    ) -> "Entity":
        """Have a certificate by `issuer`, or by itself."""
        issuer = issuer or self

        def name(text: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

        builder = x509.CertificateBuilder(name(issuer.name), name(self.name), self.key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(start).not_valid_after(end)
        for extension in extensions:
            builder = builder.add_extension(extension, critical=critical)
        self.certificate = builder.sign(issuer.key, SHA256())
        return self


def certify_authority(
    name: str, issuer: Entity | None = None, *, path_length: int | None = None, **options: Any
) -> Entity:
    """A certificate authority."""
    return Entity(name).certify(issuer, (x509.BasicConstraints(True, path_length), ISSUING), **options)


def certify_signer(
    issuer: Entity, extensions: Iterable[x509.ExtensionType] = (SIGNING, CODE_SIGNING), **options: Any
) -> Entity:
    """A signer's certificate."""
    return Entity("steward").certify(issuer, (x509.BasicConstraints(False, None), *extensions), **options)


def signer_of(
    key: EllipticCurvePrivateKey,
    algorithm: HashAlgorithm | None = None,
    certificates: tuple[x509.Certificate, ...] = (),
) -> ModelSigner:
    """A signer in memory."""
    algorithm = algorithm or SHA256()
    return ModelSigner(key.public_key(), lambda message: key.sign(message, ECDSA(algorithm)), certificates)


def sign_payload(payload: bytes, key: EllipticCurvePrivateKey) -> bytes:
    """A signature file over any payload, rightly signed: what only a holder of the key can make."""
    signature = key.sign(encode_pae(payload), ECDSA(SHA256()))
    return encode_bundle(Bundle(payload, signature, KeyHint(key_hints(key.public_key())[0])))


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    """Write files, with the folders above them."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@dataclass
class Model:
    """A signed model folder and whom to trust for it."""

    folder: Path
    signature: Path
    trust: Trust
    key: EllipticCurvePrivateKey

    def verify(self) -> VerifiedModel:
        return verify_model(self.folder, self.signature, self.trust)


@pytest.fixture(scope="session")
def key() -> EllipticCurvePrivateKey:
    """A key on P-256."""
    return generate_private_key(SECP256R1())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder with a draft head, a tokenizer and a template."""
    return write_files(tmp_path / "model", FILES)


@pytest.fixture
def model(folder: Path, tmp_path: Path, key: EllipticCurvePrivateKey) -> Model:
    """The folder, signed; the signature lies beside it."""
    signature = tmp_path / "model.sig"
    sign_model(folder, signer_of(key), signature)
    return Model(folder, signature, KeyTrust((key.public_key(),)), key)
