"""Both directions with the reference implementation: what one signs, the other verifies, and both refuse the same harm.

Needs PyPI's `model-signing` (with `pyopenssl`, which it imports and does not ask for) in an environment of its own; the
variable CASEMATE_MODEL_SIGNING names its command. Ours runs as a command as well.
"""

import datetime
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    SECP521R1,
    EllipticCurve,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.unit.security.model_signing.conftest import YEAR, Entity, certify_authority, certify_signer, write_files

REFERENCE = os.environ.get("CASEMATE_MODEL_SIGNING")
ROOT = Path(__file__).parents[2]
FILES = {
    "config.json": b"{}",
    "model.safetensors": bytes(range(256)) * 5000,
    "draft/model.safetensors": b"draft",
    "draft.txt": b"sorts before draft/ by code point, and after it by component",
    "tokenizer.json": "é".encode(),
    "naïve name 名.txt": b"x",
    "empty": b"",
}

pytestmark = pytest.mark.skipif(
    REFERENCE is None, reason="CASEMATE_MODEL_SIGNING does not name the command of PyPI's model-signing"
)


@dataclass
class Signatory:
    """Files of a key, its certificates and their root."""

    private: Path
    public: Path
    certificate: Path
    intermediate: Path
    root: Path

    @property
    def chain(self) -> Path:
        """The signer's certificate and the intermediate, as our command takes them."""
        path = self.private.with_name("chain.pem")
        path.write_bytes(self.certificate.read_bytes() + self.intermediate.read_bytes())
        return path


def pem(entity: Entity) -> bytes:
    """A certificate as PEM."""
    assert entity.certificate is not None
    return entity.certificate.public_bytes(Encoding.PEM)


def make_signatory(folder: Path, key: EllipticCurvePrivateKey) -> Signatory:
    """A key with certificates that are valid today."""
    now = datetime.datetime.now(datetime.UTC)
    days = {"start": now - YEAR, "end": now + YEAR}
    root = certify_authority("root", **days)
    intermediate = certify_authority("intermediate", root, **days)
    leaf = certify_signer(intermediate, **days)
    certified = Entity("steward", key)
    assert leaf.certificate is not None
    certified.certify(intermediate, [extension.value for extension in leaf.certificate.extensions], **days)
    files = {
        "key.pem": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        "public.pem": key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "leaf.pem": pem(certified),
        "intermediate.pem": pem(intermediate),
        "root.pem": pem(root),
    }
    write_files(folder, files)
    (folder / "key.pem").chmod(0o600)
    return Signatory(*(folder / name for name in files))


@pytest.fixture(params=[SECP256R1(), SECP384R1(), SECP521R1()], ids=lambda curve: curve.name)
def signatory(request: pytest.FixtureRequest, tmp_path: Path) -> Signatory:
    """One for each curve."""
    curve: EllipticCurve = request.param
    return make_signatory(tmp_path / "keys", generate_private_key(curve))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model folder."""
    return write_files(tmp_path / "model", FILES)


def ours(*words: object) -> subprocess.CompletedProcess[str]:
    """`casemate model …`."""
    command = [sys.executable, "-m", "appliance.cli.main", "model", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


def theirs(*words: object) -> subprocess.CompletedProcess[str]:
    """`model_signing …`."""
    assert REFERENCE is not None
    command = [REFERENCE, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def break_folder(model: Path, how: str) -> None:
    """Do harm to a folder."""
    if how == "flipped":
        content = bytearray((model / "model.safetensors").read_bytes())
        content[1000] ^= 1
        (model / "model.safetensors").write_bytes(content)
    elif how == "missing":
        (model / "draft" / "model.safetensors").unlink()
    elif how == "unlisted":
        (model / "draft" / "modeling.py").touch()
    else:
        (model / "config.json").unlink()
        (model / "config.json").symlink_to("/etc/hostname")


HARMS = ["flipped", "missing", "unlisted", "link"]


def test_theirs_verifies_what_ours_signs_with_a_key(model: Path, signatory: Signatory) -> None:
    """The signature lies in the folder, where both look for it by default."""
    signature = model / "model.sig"
    assert ours("sign", model, "--key", signatory.private).returncode == 0
    done = theirs("verify", "key", model, "--signature", signature, "--public_key", signatory.public)
    assert done.returncode == 0, done.stderr


def test_ours_verifies_what_theirs_signs_with_a_key(model: Path, signatory: Signatory) -> None:
    """Their order of names included, which is by path component."""
    signature = model / "model.sig"
    done = theirs("sign", "key", model, "--signature", signature, "--private_key", signatory.private)
    assert done.returncode == 0, done.stderr
    done = ours("verify", model, "--signature", signature, "--key", signatory.public)
    assert done.returncode == 0, done.stderr


def test_theirs_verifies_what_ours_signs_with_a_certificate(model: Path, signatory: Signatory, tmp_path: Path) -> None:
    """Under the pinned root, the intermediate coming with the signature."""
    signature = tmp_path / "s.sig"
    done = ours("sign", model, "--key", signatory.private, "--certificate-chain", signatory.chain, "-o", signature)
    assert done.returncode == 0, done.stderr
    done = theirs("verify", "certificate", model, "--signature", signature, "--certificate_chain", signatory.root)
    assert done.returncode == 0, done.stderr


def test_ours_verifies_what_theirs_signs_with_a_certificate(model: Path, signatory: Signatory, tmp_path: Path) -> None:
    """As NVIDIA signs its catalogue: a chain in the signature, the root pinned."""
    signature = tmp_path / "s.sig"
    certificates = ("--signing_certificate", signatory.certificate, "--certificate_chain", signatory.intermediate)
    done = theirs(
        "sign", "certificate", model, "--signature", signature, "--private_key", signatory.private, *certificates
    )
    assert done.returncode == 0, done.stderr
    done = ours("verify", model, "--signature", signature, "--root", signatory.root)
    assert done.returncode == 0, done.stderr
    assert "CN=steward" in done.stdout


WITH_BLAKE3 = """
import sys, pathlib
from model_signing import hashing, signing, verifying
folder, signature, key = map(pathlib.Path, sys.argv[2:])
hashes = hashing.Config().use_file_serialization(hashing_algorithm="blake3")
if sys.argv[1] == "sign":
    signing.Config().use_elliptic_key_signer(private_key=key).set_hashing_config(hashes).sign(folder, signature)
else:
    verifying.Config().use_elliptic_key_verifier(public_key=key).set_hashing_config(hashes).verify(folder, signature)
"""


def their_library(*words: object) -> None:
    """Sign or verify with BLAKE3 digests: version 1.1.1 takes them by its library, its command only SHA-256."""
    python = Path(str(REFERENCE)).with_name("python")
    subprocess.run([python, "-c", WITH_BLAKE3, *map(str, words)], check=True, timeout=120)


def test_blake3_digests_go_both_ways(model: Path, signatory: Signatory, tmp_path: Path) -> None:
    """What one signs, the other verifies; a flipped bit is found by either's signature."""
    by_ours, by_theirs = tmp_path / "ours.sig", tmp_path / "theirs.sig"
    done = ours("sign", model, "--key", signatory.private, "--digest", "blake3", "-o", by_ours)
    assert done.returncode == 0, done.stderr
    their_library("verify", model, by_ours, signatory.public)
    their_library("sign", model, by_theirs, signatory.private)
    done = ours("verify", model, "--signature", by_theirs, "--key", signatory.public)
    assert done.returncode == 0, done.stderr
    break_folder(model, "flipped")
    for signature in (by_ours, by_theirs):
        refused = ours("verify", model, "--signature", signature, "--key", signatory.public)
        assert refused.returncode == 1
        assert "model.safetensors: changed: BLAKE3" in refused.stderr


@pytest.mark.parametrize("how", HARMS)
def test_both_refuse_the_same_harm(model: Path, tmp_path: Path, how: str) -> None:
    """Whoever signed: one changed bit, a file too few, one too many, one that is a link."""
    signatory = make_signatory(tmp_path / "keys", generate_private_key(SECP256R1()))
    by_ours, by_theirs = tmp_path / "ours.sig", tmp_path / "theirs.sig"
    assert ours("sign", model, "--key", signatory.private, "-o", by_ours).returncode == 0
    done = theirs("sign", "key", model, "--signature", by_theirs, "--private_key", signatory.private)
    assert done.returncode == 0, done.stderr
    break_folder(model, how)
    for signature in (by_ours, by_theirs):
        assert ours("verify", model, "--signature", signature, "--key", signatory.public).returncode == 1
        refused = theirs("verify", "key", model, "--signature", signature, "--public_key", signatory.public)
        assert refused.returncode != 0


def test_both_name_the_same_root_where_the_order_is_the_same(tmp_path: Path) -> None:
    """The digest that other documents refer to a model by."""
    from security.model_signing.trust import load_key_trust, verify_signature

    model = write_files(
        tmp_path / "model", {name: FILES[name] for name in ("config.json", "model.safetensors", "empty")}
    )
    signatory = make_signatory(tmp_path / "keys", generate_private_key(SECP256R1()))
    by_ours, by_theirs = tmp_path / "ours.sig", tmp_path / "theirs.sig"
    assert ours("sign", model, "--key", signatory.private, "-o", by_ours).returncode == 0
    assert theirs("sign", "key", model, "--signature", by_theirs, "--private_key", signatory.private).returncode == 0
    trust = load_key_trust(signatory.public)
    assert verify_signature(by_ours, trust).root == verify_signature(by_theirs, trust).root
