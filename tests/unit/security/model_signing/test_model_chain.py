"""Certificates under a pinned root: what is trusted, and each way not to be."""

import datetime
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256K1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from security.errors import KeyUnusable, ModelSignatureRejected
from security.model_signing.chain import load_certificates, verify_chain
from tests.unit.security.model_signing.conftest import (
    CODE_SIGNING,
    ISSUING,
    NOW,
    SIGNING,
    YEAR,
    Entity,
    certify_authority,
    certify_signer,
    key_usage,
)

TLS_SERVER = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])


@pytest.fixture(scope="module")
def root() -> Entity:
    """A root that is trusted."""
    return certify_authority("root", start=NOW - 2 * YEAR, end=NOW + 10 * YEAR)


@pytest.fixture(scope="module")
def signed_chain(root: Entity) -> list[Entity]:
    """Signer, intermediate and root."""
    intermediate = certify_authority("intermediate", root)
    return [certify_signer(intermediate), intermediate, root]


def verify(chain: list[Entity], *roots: Entity, at: datetime.datetime = NOW) -> x509.Certificate:
    """Verify a chain of entities."""
    anchors = [root.certificate for root in roots if root.certificate is not None]
    return verify_chain([entity.der for entity in chain], anchors, at)


def test_signer_under_the_root_is_trusted(root: Entity) -> None:
    """Directly and through an intermediate; the root itself may be in the chain."""
    leaf = certify_signer(root)
    assert verify([leaf], root) == leaf.certificate
    assert verify([leaf, root], root) == leaf.certificate
    intermediate = certify_authority("intermediate", root, path_length=0)
    below = certify_signer(intermediate)
    assert verify([below, intermediate], root) == below.certificate


def test_intermediate_may_be_pinned(root: Entity) -> None:
    """Whoever trusts one department need not trust the root above it."""
    intermediate, other = certify_authority("one", root), certify_authority("other", root)
    assert verify([certify_signer(intermediate)], intermediate)
    with pytest.raises(ModelSignatureRejected, match="not trusted under the given root"):
        verify([certify_signer(other), other], intermediate)


@pytest.mark.parametrize(
    "extensions",
    [(SIGNING, CODE_SIGNING), (SIGNING,), (CODE_SIGNING,)],
    ids=["both", "key usage alone", "extended key usage alone"],
)
def test_certificates_for_signing_are_taken(root: Entity, extensions: tuple[x509.ExtensionType, ...]) -> None:
    """One of the two usages must say it."""
    assert verify([certify_signer(root, extensions)], root)


@pytest.mark.parametrize(
    ("extensions", "message"),
    [
        ((), "does not say that it is for signatures"),
        ((key_usage("key_agreement"), CODE_SIGNING), "key usage"),
        ((key_usage("digital_signature", "key_cert_sign"), CODE_SIGNING), "not keyCertSign"),
        ((SIGNING, TLS_SERVER), "other purposes than code signing"),
        ((TLS_SERVER,), "other purposes than code signing"),
    ],
)
def test_certificates_for_other_purposes_are_refused(
    root: Entity, extensions: tuple[x509.ExtensionType, ...], message: str
) -> None:
    """A web server's certificate by the same authority signs no model, nor does the authority itself."""
    with pytest.raises(ModelSignatureRejected, match=message):
        verify([certify_signer(root, extensions)], root)
    with pytest.raises(ModelSignatureRejected, match="key usage"):
        verify([root], root)


def test_other_root_is_refused(root: Entity) -> None:
    """Also one of the same name, and also if the chain brings it along."""
    other = certify_authority("root")
    for chain in ([certify_signer(other)], [certify_signer(other), other]):
        with pytest.raises(ModelSignatureRejected, match="not trusted under the given root"):
            verify(chain, root)


def test_self_signed_signer_is_refused(root: Entity) -> None:
    """A certificate vouches for nobody by itself."""
    alone = Entity("steward").certify(None, (SIGNING, CODE_SIGNING))
    with pytest.raises(ModelSignatureRejected, match="not trusted"):
        verify([alone], root)


@pytest.mark.parametrize("days", [-400, 400])
def test_time_decides(root: Entity, days: int) -> None:
    """Expired or not valid yet at the given time; the message gives the period."""
    leaf = certify_signer(root)
    with pytest.raises(ModelSignatureRejected, match="valid from 2025-06-01 to 2027-06-01, not on 202"):
        verify([leaf], root, at=NOW + datetime.timedelta(days=days))


def test_expired_authority_is_refused(root: Entity) -> None:
    """Every certificate of the chain must be valid, the root included."""
    intermediate = certify_authority("intermediate", root, end=NOW - YEAR / 2)
    leaf = certify_signer(intermediate)
    with pytest.raises(ModelSignatureRejected, match="not trusted"):
        verify([leaf, intermediate], root)
    assert verify([leaf, intermediate], root, at=NOW - 0.7 * YEAR)
    ended = certify_authority("ended", start=NOW - 2 * YEAR, end=NOW - YEAR / 2)
    with pytest.raises(ModelSignatureRejected, match="not trusted"):
        verify([certify_signer(ended)], ended)


def not_an_authority(root: Entity) -> Entity:
    """A signer who issues certificates."""
    return certify_signer(root)


def authority_without_right(root: Entity) -> Entity:
    """A CA whose key usage does not let it issue."""
    return Entity("limited").certify(root, (x509.BasicConstraints(True, None), SIGNING))


def authority_for_servers(root: Entity) -> Entity:
    """A CA for TLS servers only."""
    return Entity("tls").certify(root, (x509.BasicConstraints(True, None), ISSUING, TLS_SERVER))


def authority_without_constraints(root: Entity) -> Entity:
    """No basic constraints at all."""
    return Entity("old").certify(root, (ISSUING,))


@pytest.mark.parametrize(
    "make", [not_an_authority, authority_without_right, authority_for_servers, authority_without_constraints]
)
def test_who_may_not_issue_is_no_way_to_the_root(root: Entity, make: Callable[[Entity], Entity]) -> None:
    """Each link must be an authority, with the right to sign certificates for this purpose."""
    between = make(root)
    with pytest.raises(ModelSignatureRejected, match="not trusted"):
        verify([certify_signer(between), between], root)


def test_path_length_holds(root: Entity) -> None:
    """An authority that may have none below it has none below it."""
    upper = certify_authority("upper", root, path_length=0)
    lower = certify_authority("lower", upper)
    with pytest.raises(ModelSignatureRejected, match="not trusted"):
        verify([certify_signer(lower), lower, upper], root)


def test_unknown_critical_extension_is_refused(root: Entity) -> None:
    """RFC 5280 section 4.2: what is critical and not understood must not be passed over."""
    strange = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    assert verify([certify_signer(root, (SIGNING, strange), critical=False)], root)
    with pytest.raises(ModelSignatureRejected, match="not trusted"):
        verify([certify_signer(root, (SIGNING, strange))], root)


@pytest.mark.parametrize(
    "key",
    [Ed25519PrivateKey.generate(), generate_private_key(SECP256K1()), generate_rsa(65537, 2048)],
    ids=["ed25519", "secp256k1", "rsa"],
)
def test_signers_of_other_kinds_are_refused(root: Entity, key: object) -> None:
    """The format has three curves, for signers; the authorities above may use RSA."""
    leaf = Entity("steward", key).certify(root, (SIGNING, CODE_SIGNING))
    with pytest.raises(ModelSignatureRejected, match="of another kind"):
        verify([leaf], root)


def test_authority_with_rsa_is_trusted() -> None:
    """As in the specification's own vector."""
    issuing = (x509.BasicConstraints(True, None), ISSUING)
    rsa = Entity("rsa root", generate_rsa(65537, 2048)).certify(None, issuing)
    assert verify([certify_signer(rsa)], rsa)


@given(st.binary(max_size=60))
def test_nothing_but_the_family_escapes(root: Entity, data: bytes) -> None:
    """Bytes that are no certificate."""
    assert root.certificate is not None
    with pytest.raises(ModelSignatureRejected, match="malformed certificate"):
        verify_chain([data], [root.certificate], NOW)


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@given(position=st.integers(0), value=st.integers(0, 255), is_leaf=st.booleans())
def test_nothing_but_the_family_escapes_from_near_misses(
    signed_chain: list[Entity], position: int, value: int, is_leaf: bool
) -> None:
    """A good chain with one byte altered is refused, unless what its issuer signed is still the same."""
    leaf, intermediate, root = signed_chain
    ders = [bytearray(leaf.der), bytearray(intermediate.der)]
    altered = ders[0 if is_leaf else 1]
    altered[position % len(altered)] = value
    assert leaf.certificate is not None
    assert root.certificate is not None
    try:
        found = verify_chain([bytes(der) for der in ders], [root.certificate], NOW)
    except ModelSignatureRejected:
        assert [bytes(der) for der in ders] != [leaf.der, intermediate.der]
    else:
        assert found.tbs_certificate_bytes == leaf.certificate.tbs_certificate_bytes


@pytest.mark.parametrize("version", [1, 3])
def test_other_versions_of_certificates_are_refused(root: Entity, version: int) -> None:
    """The version is a byte of the certificate; X.509 version 1 has no extensions, version 4 does not exist."""
    leaf = certify_signer(root).der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01" + bytes([version]))
    assert root.certificate is not None
    with pytest.raises(ModelSignatureRejected):
        verify_chain([leaf], [root.certificate], NOW)


def test_root_file_is_read_strictly(tmp_path: Path, root: Entity) -> None:
    """All certificates of a file; none, garbage, or no file is an error that names it."""
    path = tmp_path / "root.pem"
    assert root.certificate is not None
    pem = root.certificate.public_bytes(Encoding.PEM)
    path.write_bytes(pem + pem)
    assert load_certificates(path) == (root.certificate, root.certificate)
    for content in (b"", b"garbage", pem[:-40], b"x" * (65 << 10)):
        path.write_bytes(content)
        with pytest.raises(KeyUnusable, match=str(path)):
            load_certificates(path)
    with pytest.raises(KeyUnusable, match="cannot be read"):
        load_certificates(tmp_path / "missing.pem")
