"""A folder against its signature: every way to differ is refused, by the name of the file and what differs."""

import hashlib
import json
import os
from base64 import b64decode, b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    SECP521R1,
    EllipticCurve,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from security.errors import ModelFolderRejected, ModelRejected, ModelSignatureRejected
from security.model_signing.names import DEFAULT_EXCLUSIONS, problem_of_name
from security.model_signing.signing import sign_model
from security.model_signing.trust import CertificateTrust, KeyTrust, verify_signature
from security.model_signing.verification import verify_model, verify_names
from tests.support.controls import control
from tests.unit.security.model_signing.conftest import (
    FILES,
    NOW,
    YEAR,
    Model,
    certify_authority,
    certify_signer,
    sign_payload,
    signer_of,
    write_files,
)

HASHES: list[tuple[EllipticCurve, HashAlgorithm]] = [
    (SECP256R1(), SHA256()),
    (SECP384R1(), SHA384()),
    (SECP521R1(), SHA512()),
]


def test_signed_folder_verifies(model: Model) -> None:
    """All files by name, size and digest: draft head, tokenizer and template as well as weights."""
    verified = model.verify()
    assert dict(verified.digests) == {
        name: hashlib.sha256(content).hexdigest() for name, content in sorted(FILES.items())
    }
    assert verified.sizes == {name: len(content) for name, content in FILES.items()}
    assert verified.signed_by.method == "key"
    assert len(verified.root) == 64


@control("3.14.5", "SI-7", "SI-7(1)", "SR-11")
@pytest.mark.parametrize("name", sorted(FILES))
def test_one_flipped_bit_in_any_file_is_refused(model: Model, name: str) -> None:
    """Of whatever kind the file is; in the empty file it is a byte too many."""
    content = FILES[name] or b"\x01"
    (model.folder / name).write_bytes(bytes([content[0] ^ 1]) + content[1:])
    with pytest.raises(ModelFolderRejected, match=rf"^{name}: changed: SHA-256 .* instead of"):
        model.verify()


@pytest.mark.parametrize("name", sorted(FILES))
def test_missing_file_is_refused(model: Model, name: str) -> None:
    """Named, before anything is hashed."""
    (model.folder / name).unlink()
    with pytest.raises(ModelFolderRejected, match=rf"^{name}: missing$"):
        model.verify()


@control("CM-8(3)")
@pytest.mark.parametrize("name", ["modeling.py", "draft/extra.json", ".hidden", "config.json.bak", "model.sig"])
def test_unlisted_file_is_refused(model: Model, name: str) -> None:
    """Also hidden, in a subfolder, and under a signature's name where it is not the signature that was read."""
    (model.folder / name).touch()
    with pytest.raises(ModelFolderRejected, match=rf"^{name}: not listed in the signature"):
        model.verify()


@pytest.mark.parametrize("name", [".git/config", ".gitattributes", ".github/x", ".gitignore"])
def test_files_that_signers_leave_out_are_refused(folder: Path, tmp_path: Path, key: Any, name: str) -> None:
    """The format excludes them, so no signature covers them, so nothing of ours loads a folder with them."""
    write_files(folder, {name: b"x"})
    signature = tmp_path / "s.sig"
    signed = sign_model(folder, signer_of(key), signature)
    assert signed.left_out == (name.split("/")[0],)
    assert name not in signed.manifest.digests
    assert signed.manifest.ignored == (".git", ".gitattributes", ".github", ".gitignore")
    with pytest.raises(ModelFolderRejected, match=rf"^{name}: left out of the signature; remove it"):
        verify_model(folder, signature, KeyTrust((key.public_key(),)))


def test_every_difference_is_named_up_to_ten(model: Model) -> None:
    """One line a file, so that an operator knows what to copy again."""
    for name in sorted(FILES)[:3]:
        (model.folder / name).write_bytes(b"?")
    with pytest.raises(ModelFolderRejected) as refused:
        model.verify()
    assert [line.split(":")[0] for line in str(refused.value).splitlines()] == sorted(FILES)[:3]
    for number in range(12):
        (model.folder / f"extra{number}").touch()
    with pytest.raises(ModelFolderRejected, match="… and 2 files more") as refused:
        model.verify()
    assert len(str(refused.value).splitlines()) == 11


def test_file_replaced_by_a_link_to_itself_is_refused(model: Model, tmp_path: Path) -> None:
    """The same bytes, but whoever owns the other place can change them."""
    (model.folder / "config.json").rename(tmp_path / "config.json")
    (model.folder / "config.json").symlink_to(tmp_path / "config.json")
    with pytest.raises(ModelFolderRejected, match=r"^config.json: a symbolic link"):
        model.verify()


def test_hard_links_are_taken_and_a_change_through_them_is_noticed(model: Model, tmp_path: Path) -> None:
    """A digest covers bytes and not names; what is written through the other name no longer matches."""
    os.link(model.folder / "config.json", tmp_path / "other name")
    verified = model.verify()
    (tmp_path / "other name").write_bytes(b"{ }")
    with pytest.raises(ModelFolderRejected, match=r"^config.json: changed"):
        model.verify()
    read = hashlib.sha256((model.folder / "config.json").read_bytes()).hexdigest()
    with pytest.raises(ModelFolderRejected, match=r"^config.json: changed"):
        verified.verify_bytes("config.json", read)


def test_two_files_exchanged_are_refused(model: Model) -> None:
    """Every byte is signed, but not under these names."""
    (model.folder / "config.json").rename(model.folder / "x")
    (model.folder / "tokenizer.json").rename(model.folder / "config.json")
    (model.folder / "x").rename(model.folder / "tokenizer.json")
    with pytest.raises(ModelFolderRejected, match="changed"):
        model.verify()


def test_loader_checks_the_bytes_it_reads(model: Model) -> None:
    """A file exchanged after the verification is caught by the digest of what was loaded; so is a name that nobody signed."""
    verified = model.verify()
    good = hashlib.sha256(FILES["config.json"]).hexdigest()
    verified.verify_bytes("config.json", good)
    with pytest.raises(ModelFolderRejected, match=r"^config.json: changed"):
        verified.verify_bytes("config.json", hashlib.sha256(b"other").hexdigest())
    with pytest.raises(ModelFolderRejected, match=r"^tokenizer.json: changed"):
        verified.verify_bytes("tokenizer.json", good)
    with pytest.raises(ModelFolderRejected, match=r"^modeling.py: not listed"):
        verified.verify_bytes("modeling.py", good)


def test_loader_that_hashes_anyway_needs_no_second_read(model: Model) -> None:
    """Signature and names first, digests as the bytes come: the same refusals without reading a file twice."""
    signed = verify_signature(model.signature, model.trust)
    verify_names(model.folder, model.signature, signed)
    for name in signed.digests:
        signed.verify_bytes(name, hashlib.sha256((model.folder / name).read_bytes()).hexdigest())
    (model.folder / "extra").touch()
    with pytest.raises(ModelFolderRejected, match=r"^extra: not listed"):
        verify_names(model.folder, model.signature, signed)


def test_wrong_key_is_refused(model: Model) -> None:
    """By its hint, and by the signature where the hint lies."""
    other = generate_private_key(SECP256R1()).public_key()
    with pytest.raises(ModelSignatureRejected, match="made with another key"):
        verify_model(model.folder, model.signature, KeyTrust((other,)))
    document = json.loads(model.signature.read_bytes())
    pem = other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    document["verificationMaterial"]["publicKey"]["hint"] = hashlib.sha256(pem).hexdigest()
    model.signature.write_text(json.dumps(document))
    with pytest.raises(ModelSignatureRejected, match="does not verify"):
        verify_model(model.folder, model.signature, KeyTrust((other,)))


def test_one_of_several_keys_is_found(model: Model) -> None:
    """As while keys are rotated."""
    other = generate_private_key(SECP384R1()).public_key()
    assert verify_model(model.folder, model.signature, KeyTrust((other, model.key.public_key())))


@pytest.mark.parametrize("curve", [curve for curve, _ in HASHES], ids=lambda curve: curve.name)
@pytest.mark.parametrize("algorithm", [algorithm for _, algorithm in HASHES], ids=lambda algorithm: algorithm.name)
def test_curve_fixes_the_hash(folder: Path, tmp_path: Path, curve: EllipticCurve, algorithm: HashAlgorithm) -> None:
    """Nine pairs, three of them right; the signer notices the wrong ones before it writes a signature."""
    key, signature = generate_private_key(curve), tmp_path / "s.sig"
    if any(type(curve) is type(right) and type(algorithm) is type(by) for right, by in HASHES):
        sign_model(folder, signer_of(key, algorithm), signature)
        assert verify_model(folder, signature, KeyTrust((key.public_key(),)))
    else:
        with pytest.raises(ModelSignatureRejected, match="does not verify"):
            sign_model(folder, signer_of(key, algorithm), signature)
        assert not signature.exists()


def tamper(model: Model, change: Callable[[dict[str, Any]], None]) -> None:
    """Alter the statement inside the signature file, leaving the signature as it is."""
    document = json.loads(model.signature.read_bytes())
    statement = json.loads(b64decode(document["dsseEnvelope"]["payload"]))
    change(statement)
    document["dsseEnvelope"]["payload"] = b64encode(json.dumps(statement).encode()).decode()
    model.signature.write_text(json.dumps(document))


@pytest.mark.parametrize(
    "change",
    [
        lambda statement: statement["predicate"]["resources"].pop(),
        lambda statement: statement["predicate"]["resources"][0].update(digest="0" * 64),
        lambda statement: statement["subject"][0].update(name="another"),
        lambda statement: statement["predicate"]["serialization"].update(ignore_paths=["config.json"]),
        lambda statement: None,
    ],
    ids=["dropped", "digest", "name", "ignored", "spaces"],
)
def test_tampered_statement_is_refused(model: Model, change: Callable[[dict[str, Any]], None]) -> None:
    """The signature is over the very bytes: other spacing is enough."""
    tamper(model, change)
    with pytest.raises(ModelSignatureRejected, match="does not verify"):
        model.verify()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0), bit=st.integers(0, 7))
def test_any_flipped_bit_of_the_signature_is_refused_or_says_the_same(model: Model, position: int, bit: int) -> None:
    """Nothing but the family escapes, and what still verifies names the same files with the same digests."""
    data = bytearray(model.signature.read_bytes())
    data[position % len(data)] ^= 1 << bit
    altered = model.signature.with_name("altered.sig")
    altered.write_bytes(data)
    try:
        signed = verify_signature(altered, model.trust)
    except ModelSignatureRejected:
        return
    assert dict(signed.digests) == dict(model.verify().digests)


def test_rightly_signed_tricks_are_refused(model: Model) -> None:
    """What a holder of the key could do: duplicate keys, unsorted names, paths that leave the folder."""
    document = json.loads(model.signature.read_bytes())
    text = b64decode(document["dsseEnvelope"]["payload"]).decode()
    assert model.signature.write_bytes(sign_payload(text.encode(), model.key))
    assert model.verify()
    first = '{"name":"chat_template.jinja",'
    for trick in (
        text.replace(first, '{"name":"../x","name":"chat_template.jinja",'),
        text.replace(first, '{"name":"../chat_template.jinja",'),
        text.replace(first, '{"name":"/etc/passwd",'),
        text.replace(first, '{"name":"zzz",'),
    ):
        assert trick != text
        model.signature.write_bytes(sign_payload(trick.encode(), model.key))
        with pytest.raises(ModelSignatureRejected):
            model.verify()


def test_statement_is_not_parsed_before_the_signature_is_good(model: Model) -> None:
    """A parser's bug is out of reach of whoever has no key: the refusal is about the signature, not about the statement."""
    document = json.loads(model.signature.read_bytes())
    document["dsseEnvelope"]["payload"] = b64encode(b"not even JSON").decode()
    model.signature.write_text(json.dumps(document))
    with pytest.raises(ModelSignatureRejected, match="does not verify"):
        model.verify()


def test_signature_of_another_folder_does_not_fit(model: Model, tmp_path: Path) -> None:
    """Rightly signed, but of something else."""
    other = write_files(tmp_path / "other", {"config.json": b"[]"})
    sign_model(other, signer_of(model.key), tmp_path / "other.sig")
    with pytest.raises(ModelFolderRejected, match="not listed"):
        verify_model(model.folder, tmp_path / "other.sig", model.trust)


def test_certificate_method_verifies_under_its_root(folder: Path, tmp_path: Path) -> None:
    """The signer is named by the certificate; expired is refused, unless the time asked about is earlier."""
    root = certify_authority("root")
    intermediate = certify_authority("intermediate", root)
    leaf = certify_signer(intermediate)
    assert root.certificate is not None
    assert intermediate.certificate is not None
    assert leaf.certificate is not None
    signature = tmp_path / "s.sig"
    sign_model(folder, signer_of(leaf.key, certificates=(leaf.certificate, intermediate.certificate)), signature)
    signed_by = verify_model(folder, signature, CertificateTrust((root.certificate,), NOW)).signed_by
    assert (signed_by.method, signed_by.name) == ("certificate", "CN=steward")
    with pytest.raises(ModelSignatureRejected, match="certificate is valid from"):
        verify_model(folder, signature, CertificateTrust((root.certificate,), NOW + 2 * YEAR))
    other = certify_authority("root")
    assert other.certificate is not None
    with pytest.raises(ModelSignatureRejected, match="not trusted under the given root"):
        verify_model(folder, signature, CertificateTrust((other.certificate,), NOW))


def test_methods_do_not_stand_in_for_each_other(model: Model, folder: Path, tmp_path: Path) -> None:
    """A key that is trusted says nothing about certificates, not even about one of that key; nor the other way round."""
    root = certify_authority("root")
    leaf = certify_signer(root)
    assert root.certificate is not None
    assert leaf.certificate is not None
    sign_model(folder, signer_of(leaf.key, certificates=(leaf.certificate,)), tmp_path / "s.sig")
    with pytest.raises(ModelSignatureRejected, match="made with a certificate"):
        verify_model(folder, tmp_path / "s.sig", KeyTrust((leaf.key.public_key(),)))
    with pytest.raises(ModelSignatureRejected, match="made with a key"):
        verify_model(folder, model.signature, CertificateTrust((root.certificate,), NOW))


def test_stranger_cannot_borrow_a_certificate(folder: Path, tmp_path: Path) -> None:
    """The chain is public; without its key there is no signature."""
    root = certify_authority("root")
    leaf = certify_signer(root)
    assert root.certificate is not None
    assert leaf.certificate is not None
    stranger = generate_private_key(SECP256R1())
    sign_model(folder, signer_of(stranger, certificates=(leaf.certificate,)), tmp_path / "s.sig")
    with pytest.raises(ModelSignatureRejected, match="does not verify"):
        verify_model(folder, tmp_path / "s.sig", CertificateTrust((root.certificate,), NOW))


@pytest.mark.parametrize(
    "make", [lambda path: path.mkdir(), os.mkfifo, lambda path: path.write_bytes(b""), lambda path: None]
)
def test_unreadable_signature_is_refused(model: Model, make: Callable[[Path], object]) -> None:
    """A folder, a pipe that nobody writes to, an empty file, no file."""
    path = model.folder.parent / "odd.sig"
    make(path)
    with pytest.raises(ModelSignatureRejected):
        verify_model(model.folder, path, model.trust)


def is_plain(name: str) -> bool:
    """A name of one component that is not left out."""
    return problem_of_name(name) is None and "/" not in name and name not in DEFAULT_EXCLUSIONS


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=12).filter(is_plain),
        st.binary(max_size=50),
        min_size=1,
        max_size=6,
    ),
    st.data(),
)
def test_whatever_is_signed_verifies_until_it_is_touched(
    tmp_path_factory: pytest.TempPathFactory, key: EllipticCurvePrivateKey, files: dict[str, bytes], data: st.DataObject
) -> None:
    """Any names, any content; one more byte in any file and it no longer does."""
    folder = write_files(tmp_path_factory.mktemp("any"), files)
    signature, trust = folder.parent / f"{folder.name}.sig", KeyTrust((key.public_key(),))
    sign_model(folder, signer_of(key), signature)
    assert set(verify_model(folder, signature, trust).digests) == set(files)
    touched = data.draw(st.sampled_from(sorted(files)))
    (folder / touched).write_bytes(files[touched] + b"x")
    with pytest.raises(ModelRejected, match="changed"):
        verify_model(folder, signature, trust)
