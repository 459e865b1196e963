"""Signing a folder: where the signature may lie, and what is refused before a signature is written."""

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from security.errors import ModelFolderRejected, ModelSignatureRejected
from security.model_signing import statement as statement_module
from security.model_signing.signing import sign_model
from security.model_signing.trust import KeyTrust, verify_signature
from security.model_signing.verification import verify_model, verify_names
from tests.unit.security.model_signing.conftest import Model, signer_of, write_files


def test_signature_may_lie_in_the_folder(folder: Path, key: EllipticCurvePrivateKey) -> None:
    """It is recorded as left out, and passed over when it is the very file that was read."""
    signature, trust = folder / "model.sig", KeyTrust((key.public_key(),))
    signed = sign_model(folder, signer_of(key), signature)
    assert "model.sig" in signed.manifest.ignored
    assert "model.sig" not in verify_model(folder, signature, trust).digests
    copy = folder.parent / "copy.sig"
    copy.write_bytes(signature.read_bytes())
    with pytest.raises(ModelFolderRejected, match=r"^model.sig: left out of the signature; remove it"):
        verify_model(folder, copy, trust)
    (folder / "second.sig").hardlink_to(signature)
    with pytest.raises(ModelFolderRejected, match=r"^second.sig: not listed"):
        verify_model(folder, signature, trust)


def test_signature_exchanged_after_it_was_read_is_refused(folder: Path, key: EllipticCurvePrivateKey) -> None:
    """Only the very file that was verified is passed over, not what a rename has put at its name."""
    signature = folder / "model.sig"
    sign_model(folder, signer_of(key), signature)
    signed = verify_signature(signature, KeyTrust((key.public_key(),)))
    verify_names(folder, signature, signed)
    (folder.parent / "other").write_bytes(b"anything")
    (folder.parent / "other").rename(signature)
    with pytest.raises(ModelFolderRejected, match=r"^model\.sig: exchanged while it was read"):
        verify_names(folder, signature, signed)


def test_signature_in_the_folder_cannot_pose_as_another_file(model: Model) -> None:
    """Else it could lie there as `tokenizer_config.json`, passed over and loaded."""
    posing = model.folder / "tokenizer_config.json"
    posing.write_bytes(model.signature.read_bytes())
    with pytest.raises(ModelFolderRejected, match=r"^tokenizer_config.json: not listed"):
        verify_model(model.folder, posing, model.trust)
    with pytest.raises(ModelFolderRejected, match=r"must end with \.sig"):
        sign_model(model.folder, signer_of(model.key), model.folder / "config.sig.json")


def test_existing_signature_is_never_replaced(model: Model) -> None:
    """It may be the vendor's."""
    before = model.signature.read_bytes()
    with pytest.raises(FileExistsError):
        sign_model(model.folder, signer_of(model.key), model.signature)
    assert model.signature.read_bytes() == before


def test_folder_with_more_than_a_statement_holds_is_not_signed(
    folder: Path, tmp_path: Path, key: Any, monkeypatch: Any
) -> None:
    """What we would refuse to verify we do not sign."""
    monkeypatch.setattr(statement_module, "MAX_STATEMENT_BYTES", 500)
    with pytest.raises(ModelSignatureRejected, match="longer than 500 bytes"):
        sign_model(folder, signer_of(key), tmp_path / "s.sig")
    assert not (tmp_path / "s.sig").exists()


def test_what_cannot_be_signed_is_refused_before_it_is_hashed(folder: Path, tmp_path: Path, key: Any) -> None:
    """An empty folder, a link, no place for the signature."""
    (tmp_path / "none").mkdir()
    write_files(tmp_path / "none", {".git/config": b"x"})
    with pytest.raises(ModelFolderRejected, match="holds no files"):
        sign_model(tmp_path / "none", signer_of(key), tmp_path / "s.sig")
    with pytest.raises(ModelFolderRejected, match="no such folder"):
        sign_model(folder, signer_of(key), tmp_path / "missing" / "s.sig")
    (folder / "link").symlink_to("config.json")
    with pytest.raises(ModelFolderRejected, match=r"^link: a symbolic link"):
        sign_model(folder, signer_of(key), tmp_path / "s.sig")
    assert not (tmp_path / "s.sig").exists()
