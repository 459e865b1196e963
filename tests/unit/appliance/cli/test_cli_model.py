"""`casemate model`: a folder is signed and verified, and what differs is one line a file."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from appliance.cli import hashing_progress
from appliance.cli import progress as progress_module
from appliance.cli.main import EXIT_FAILED, EXIT_MISCONFIGURED, EXIT_OK, EXIT_USAGE, main
from tests.unit.security.model_signing.conftest import certify_authority, certify_signer


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `model/`, `key.pem` and `public.pem`, which is the working directory."""
    key = generate_private_key(SECP256R1())
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_bytes(b"{}")
    (tmp_path / "model" / "model.safetensors").write_bytes(bytes(1000))
    (tmp_path / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (tmp_path / "key.pem").chmod(0o600)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "public.pem").write_bytes(public)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sign(*words: str) -> int:
    """`casemate model sign model --key key.pem …`."""
    return main(["model", "sign", "model", "--key", "key.pem", *words])


def verify(*words: str) -> int:
    """`casemate model verify model --signature model/model.sig --key public.pem …`."""
    return main(["model", "verify", "model", "--signature", "model/model.sig", "--key", "public.pem", *words])


def test_sign_and_verify_say_the_same_root(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The way of the documentation, with nothing on standard error."""
    assert sign() == EXIT_OK
    signed = capsys.readouterr()
    assert verify() == EXIT_OK
    verified = capsys.readouterr()
    assert signed.err == verified.err == ""
    assert "signed     2 files, 1.0 kB" in signed.out
    assert "files      all 2 as signed, 1.0 kB" in verified.out
    assert signed.out.splitlines()[1] == verified.out.splitlines()[-1]
    assert signed.out.splitlines()[1].startswith("root       sha256:")


def test_json_is_for_scripts(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every file with its digest and size."""
    assert sign("--json", "-o", "beside.sig") == EXIT_OK
    signed = json.loads(capsys.readouterr().out)
    assert signed["signature"] == "beside.sig"
    assert main(["model", "verify", "model", "--signature", "beside.sig", "--key", "public.pem", "--json"]) == EXIT_OK
    verified = json.loads(capsys.readouterr().out)
    assert verified["root"] == signed["root"]
    assert verified["files"]["model.safetensors"]["size_bytes"] == 1000


def test_what_differs_is_one_line_a_file(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Changed, missing, not listed: the file and what is wrong with it."""
    sign()
    capsys.readouterr()
    (workplace / "model" / "model.safetensors").write_bytes(bytes(999) + b"\x01")
    assert verify() == EXIT_FAILED
    changed = capsys.readouterr().err
    assert changed.startswith("casemate: model.safetensors: changed: SHA-256 ")
    (workplace / "model" / "model.safetensors").unlink()
    (workplace / "model" / "pytorch_model.bin").touch()
    assert verify() == EXIT_FAILED
    assert capsys.readouterr().err == (
        "casemate: model.safetensors: missing\ncasemate: pytorch_model.bin: not listed in the signature; remove it\n"
    )


def test_what_is_left_out_is_said(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A clone's `.git` is not signed, and the folder does not verify with it."""
    (workplace / "model" / ".gitattributes").touch()
    assert sign() == EXIT_OK
    assert "not covered by the signature: .gitattributes" in capsys.readouterr().err
    assert verify() == EXIT_FAILED


def test_signature_is_not_replaced(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line that names it."""
    assert sign() == EXIT_OK
    capsys.readouterr()
    assert sign() == EXIT_FAILED
    assert capsys.readouterr().err == "casemate: already exists and is not replaced: model/model.sig\n"


def test_certificates_go_with_a_root_and_a_time(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--certificate-chain` to sign, `--root` to verify, `--at` for a time that has passed."""
    root = certify_authority("root")
    leaf = certify_signer(root)
    assert root.certificate is not None
    assert leaf.certificate is not None
    encoded = leaf.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (workplace / "key.pem").write_bytes(encoded)
    (workplace / "chain.pem").write_bytes(leaf.certificate.public_bytes(Encoding.PEM))
    (workplace / "root.pem").write_bytes(root.certificate.public_bytes(Encoding.PEM))
    assert sign("--certificate-chain", "chain.pem") == EXIT_OK
    words = ["model", "verify", "model", "--signature", "model/model.sig", "--root", "root.pem", "--at"]
    assert main([*words, "2026-06-01T12:00:00Z"]) == EXIT_OK
    assert "signature  good, by CN=steward" in capsys.readouterr().out
    assert main([*words, "2040-01-01"]) == EXIT_FAILED
    assert "certificate is valid from 2025-06-01 to 2027-06-01, not on 2040-01-01" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["model", "verify", "model", "--signature", "x"],
        ["model", "verify", "model", "--key", "public.pem"],
        ["model", "verify", "model", "--signature", "x", "--key", "public.pem", "--root", "root.pem"],
        ["model", "verify", "model", "--signature", "x", "--root", "root.pem", "--at", "yesterday"],
        ["model", "sign", "model"],
    ],
)
def test_trust_has_no_default(workplace: Path, words: list[str]) -> None:
    """Without exactly one of key and root there is nothing to verify against."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == EXIT_USAGE


def test_time_without_certificates_is_refused(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A key has no period; an option that would be ignored is an error."""
    sign()
    assert verify("--at", "2026-01-01") == EXIT_FAILED
    assert "--at is for certificates" in capsys.readouterr().err


def test_unusable_keys_are_named(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Missing, and exposed."""
    assert main(["model", "sign", "model", "--key", "none.pem"]) == EXIT_MISCONFIGURED
    assert "none.pem cannot be read" in capsys.readouterr().err
    (workplace / "key.pem").chmod(0o644)
    assert sign() == EXIT_MISCONFIGURED
    assert "key.pem is open to others" in capsys.readouterr().err


def test_passphrase_is_never_taken_from_a_pipe(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal an encrypted key is an error, not a question that nobody sees."""
    encryption = BestAvailableEncryption(b"secret")
    encoded = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    (workplace / "key.pem").write_bytes(encoded)
    assert sign() == EXIT_FAILED
    assert "passphrase of key.pem: there is no terminal to ask at" in capsys.readouterr().err


def test_progress_speaks_after_a_second(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing for what is quick; each tenth once for what is not."""
    now = 100.0
    monkeypatch.setattr(hashing_progress.time, "monotonic", lambda: now)
    with progress_module.Progress("verifying") as progress:
        percentage = hashing_progress.Percentage(progress)
        percentage.report(10, 100_000)
        now += 1.0
        for done in range(0, 100_001, 1000):
            percentage.report(done, 100_000)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"verifying: {tenth * 10} % of 100.0 kB" for tenth in range(11)]
