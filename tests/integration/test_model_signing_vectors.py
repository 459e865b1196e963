"""The specification's own vectors (OMS v1.0): what it calls valid is taken, what it calls invalid is refused."""

import datetime
import json
import os
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from security.errors import ModelSignatureRejected
from security.model_signing.bundle import Bundle, CertificateChain, KeyHint, parse_bundle
from security.model_signing.statement import parse_statement
from security.model_signing.trust import CertificateTrust, KeyTrust, verify_signature

DATA = os.environ.get("CASEMATE_TEST_DATA")
VECTORS = Path(DATA or "/nonexistent") / "vectors" / "oms" / "test-vectors" / "v1.0"
AT = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)

pytestmark = pytest.mark.skipif(not VECTORS.is_dir(), reason="CASEMATE_TEST_DATA has no vectors/oms")


def load(name: str) -> Bundle:
    """A valid vector, parsed."""
    return parse_bundle((VECTORS / "valid" / name).read_bytes())


def chain() -> list[x509.Certificate]:
    """The certificates of the certificate vector: signer, intermediate."""
    material = load("certificate.bundle.json").material
    assert isinstance(material, CertificateChain)
    return [x509.load_der_x509_certificate(certificate) for certificate in material.certificates]


def signer_key() -> EllipticCurvePublicKey:
    """The key of both valid vectors; the specification gives it only inside the certificate."""
    key = chain()[0].public_key()
    assert isinstance(key, EllipticCurvePublicKey)
    return key


def test_key_vector_verifies() -> None:
    """Hint, signature (P-384 with SHA-384), statement and root digest."""
    signed = verify_signature(VECTORS / "valid" / "key.bundle.json", KeyTrust((signer_key(),)))
    assert signed.root == "92745110b1ab4368471cbe31664e10174e954b113a3df333db860317b2c6dec4"
    assert list(signed.digests) == ["signme-1", "signme-2"]
    assert set(signed.manifest.ignored) == {".git", ".gitattributes", ".github", ".gitignore", "ignore-me"}
    assert load("key.bundle.json").material == KeyHint(signed.signed_by.fingerprint)


def test_certificate_vector_verifies_under_its_pinned_intermediate() -> None:
    """The vectors do not hold the root itself; what is pinned is the authority that issued the signer's certificate."""
    path = VECTORS / "valid" / "certificate.bundle.json"
    signed = verify_signature(path, CertificateTrust((chain()[1],), AT))
    assert signed.signed_by.name == "CN=intermediate-ca"
    with pytest.raises(ModelSignatureRejected, match="certificate is valid from 2025-05-02 to 2035-04-30"):
        verify_signature(path, CertificateTrust((chain()[1],), AT.replace(year=2040)))


def test_keyless_vector_is_refused_by_name() -> None:
    """Valid for others; we have no way to Sigstore's log, and say so."""
    with pytest.raises(ModelSignatureRejected, match="keyless"):
        load("sigstore.bundle.json")


INVALID = sorted(path.name for path in (VECTORS / "invalid").glob("*.json"))


@pytest.mark.parametrize("name", INVALID)
def test_invalid_vectors_are_refused(name: str) -> None:
    """Before any key is looked at."""
    with pytest.raises(ModelSignatureRejected):
        parse_bundle((VECTORS / "invalid" / name).read_bytes())


def test_vector_with_another_predicate_is_refused() -> None:
    """By the signature, which is not over it; and by the statement's parser for itself."""
    path = VECTORS / "invalid-payload" / "wrong-predicate.bundle.json"
    with pytest.raises(ModelSignatureRejected, match="does not verify"):
        verify_signature(path, KeyTrust((signer_key(),)))
    with pytest.raises(ModelSignatureRejected, match="predicateType: expected"):
        parse_statement(parse_bundle(path.read_bytes()).payload)


def test_schemas_name_the_members_that_we_write(tmp_path: Path) -> None:
    """Every member we write is one that the specification's schemas list, and every one that they require is there."""
    from security.model_signing.bundle import encode_bundle
    from security.model_signing.manifest import build_manifest
    from security.model_signing.statement import encode_statement

    schemas = {
        path.name.split(".")[0]: json.loads(path.read_bytes())
        for path in (VECTORS.parents[1] / "schemas" / "v1.0").glob("*.schema.json")
    }
    statement = json.loads(encode_statement(build_manifest("model", {"a": "00" * 32}, (".git",))))
    bundle = json.loads(encode_bundle(Bundle(b"x", b"y", KeyHint("00"))))
    resource = schemas["predicate"]["$defs"]["resource_descriptor"]
    serialization = schemas["predicate"]["$defs"]["serialization"]
    for written, schema in (
        (bundle, schemas["bundle"]),
        (bundle["dsseEnvelope"], schemas["envelope"]),
        (bundle["dsseEnvelope"]["signatures"][0], schemas["envelope"]["$defs"]["signature"]),
        (statement, schemas["statement"]),
        (statement["subject"][0], schemas["statement"]["$defs"]["subject"]),
        (statement["predicate"], schemas["predicate"]),
        (statement["predicate"]["resources"][0], resource),
        (statement["predicate"]["serialization"], serialization),
    ):
        assert set(schema["required"]) <= set(written) <= set(schema["properties"])
