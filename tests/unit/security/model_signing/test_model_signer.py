"""Signing keys from files and by URI: what is taken and what is refused, by name."""

import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from security.errors import KeyUnusable
from security.model_signing.bundle import CertificateChain, KeyHint
from security.model_signing.elliptic import load_public_key, verify_signature_bytes
from security.model_signing.signer import load_signer
from security.model_signing.token import TokenKey, open_token_signer, parse_token_uri
from tests.unit.security.model_signing.conftest import CODE_SIGNING, SIGNING, Entity, certify_authority, certify_signer

CURVES = [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()]
GOOD_URI = "pkcs11:token=models;object=release?module-path=/usr/lib/token.so"


def refuse_to_ask(what: str) -> str:
    """For keys that need no passphrase."""
    raise AssertionError(f"asked for {what}")


def write_key(
    path: Path, key: object, *, passphrase: bytes | None = None, form: PrivateFormat = PrivateFormat.PKCS8
) -> Path:
    """Write a private key as PEM, for its owner alone."""
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    path.write_bytes(key.private_bytes(Encoding.PEM, form, encryption))  # type: ignore[attr-defined]
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.name)
def test_three_curves_in_two_encodings_are_taken(tmp_path: Path, curve: ec.EllipticCurve, form: PrivateFormat) -> None:
    """What a signer makes verifies with its public key; the material is the key's hint."""
    signer = load_signer(write_key(tmp_path / "key.pem", ec.generate_private_key(curve), form=form), refuse_to_ask)
    verify_signature_bytes(signer.public_key, signer.sign(b"message"), b"message")
    assert isinstance(signer.material, KeyHint)


def test_encrypted_key_is_asked_for(tmp_path: Path) -> None:
    """Once, by the name of the file; a wrong passphrase is an error that names it too."""
    key = ec.generate_private_key(ec.SECP384R1())
    path = write_key(tmp_path / "key.pem", key, passphrase=b"correct horse")
    asked: list[str] = []

    def answer(what: str) -> str:
        asked.append(what)
        return "correct horse"

    assert load_signer(path, answer).public_key == key.public_key()
    assert asked == [f"passphrase of {path}"]
    with pytest.raises(KeyUnusable, match="passphrase is wrong"):
        load_signer(path, lambda _: "battery staple")
    with pytest.raises(KeyUnusable, match="passphrase is wrong"):
        load_signer(path, lambda _: "")


def test_keys_of_other_kinds_are_refused(tmp_path: Path) -> None:
    """The format has three curves and nothing else, for private and for public keys."""
    for number, key in enumerate((ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256K1()))):
        with pytest.raises(KeyUnusable, match="expected P-256, P-384 or P-521"):
            load_signer(write_key(tmp_path / f"{number}.pem", key), refuse_to_ask)
        public = tmp_path / f"{number}.pub"
        public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        with pytest.raises(KeyUnusable, match="expected P-256, P-384 or P-521"):
            load_public_key(public)


def test_exposed_key_is_refused(tmp_path: Path) -> None:
    """A key that others can read has signed for everybody."""
    path = write_key(tmp_path / "key.pem", ec.generate_private_key(ec.SECP256R1()))
    path.chmod(0o644)
    with pytest.raises(KeyUnusable, match="open to others"):
        load_signer(path, refuse_to_ask)


def test_garbage_is_refused(tmp_path: Path) -> None:
    """Files that hold no key, private or public."""
    path = tmp_path / "key.pem"
    path.write_bytes(b"garbage")
    path.chmod(0o600)
    with pytest.raises(KeyUnusable, match="not a PEM private key"):
        load_signer(path, refuse_to_ask)
    with pytest.raises(KeyUnusable, match="not a PEM public key"):
        load_public_key(path)


def test_chain_is_checked_before_anything_is_signed(tmp_path: Path) -> None:
    """A certificate of another key, or one that verifiers refuse, is found at the signer's and not at the host."""
    root = certify_authority("root")
    steward = certify_signer(root)
    tls = Entity("tls", steward.key).certify(root, (CODE_SIGNING, SIGNING))
    path, chain = write_key(tmp_path / "key.pem", steward.key), tmp_path / "chain.pem"

    def write_chain(*entities: Entity) -> None:
        pems = [entity.certificate.public_bytes(Encoding.PEM) for entity in entities if entity.certificate is not None]
        chain.write_bytes(b"".join(pems))

    write_chain(tls, root)
    signer = load_signer(path, refuse_to_ask, chain=chain)
    assert signer.material == CertificateChain((tls.der, root.der))
    write_chain(certify_signer(root), root)
    with pytest.raises(KeyUnusable, match="not that of the signing key"):
        load_signer(path, refuse_to_ask, chain=chain)
    write_chain(root)
    with pytest.raises(KeyUnusable, match=r"chain\.pem: certificate's key usage"):
        load_signer(path, refuse_to_ask, chain=chain)


def test_token_uri_is_parsed() -> None:
    """RFC 7512, percent-encoded where needed."""
    uri = (
        "pkcs11:token=My%20token;object=r%c3%a9lease;id=%00%ff;type=private?module-path=/m.so&pin-source=file:/run/pin"
    )
    assert parse_token_uri(uri) == TokenKey("My token", Path("/m.so"), "rélease", b"\x00\xff", Path("/run/pin"))
    assert parse_token_uri(GOOD_URI) == TokenKey("models", Path("/usr/lib/token.so"), "release", None, None)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("pkcs12:token=a", "not a PKCS#11 URI"),
        (GOOD_URI.replace("token=models;", ""), "expected token and object"),
        (GOOD_URI.replace(";object=release", ""), "expected token and object"),
        (GOOD_URI.replace("?module-path=/usr/lib/token.so", ""), "module-path"),
        (GOOD_URI.replace("=/usr", "=usr"), "absolute path"),
        (GOOD_URI + "&pin-value=1234", "pin-source"),
        (GOOD_URI.replace("object", "type=public;object"), "expected private"),
        (GOOD_URI.replace("object", "slot-id=1;object"), "unknown, empty or given twice"),
        (GOOD_URI.replace("object", "token=b;object"), "unknown, empty or given twice"),
        (GOOD_URI.replace("models", ""), "unknown, empty or given twice"),
        (GOOD_URI.replace("models", "%ff"), "not UTF-8"),
        (GOOD_URI.replace("models", "a%00b"), "not UTF-8"),
        (GOOD_URI.replace("models", "é"), "not a PKCS#11 URI"),
    ],
)
def test_other_token_uris_are_refused(uri: str, message: str) -> None:
    """A PIN in the URI above all: the list of processes shows it. It is not in the message either."""
    with pytest.raises(KeyUnusable, match=message) as refused:
        parse_token_uri(uri)
    assert "1234" not in str(refused.value)


def test_missing_extra_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without python-pkcs11 the message says what to install, before a PIN is asked for."""
    monkeypatch.setitem(sys.modules, "pkcs11", None)
    with (
        pytest.raises(KeyUnusable, match=r"install casemate\[pkcs11\]"),
        open_token_signer(parse_token_uri(GOOD_URI), refuse_to_ask),
    ):
        pass


@given(st.text(max_size=60) | st.text(alphabet="token=;?&%0aidobject-sf", max_size=60))
def test_nothing_but_the_family_escapes_from_uris(text: str) -> None:
    """Any text after the scheme."""
    for uri in (text, f"pkcs11:{text}", f"pkcs11:token=a;object=b?{text}"):
        with pytest.raises(KeyUnusable):
            parse_token_uri(uri)
