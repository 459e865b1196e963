"""The log's key: one Ed25519 key in a PEM file that only the auditor reads, and its vkey text beside it.

A key is made once, with a new log. A key without its log, or a log without its key, is refused: an empty log under a known key
would be a second history under the first one's name.
"""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from audit.cosignature import Cosigner, CosignerKey, CosigningKey, parse_cosigner_key
from audit.errors import KeyUnusable, MalformedNote
from audit.note import NoteSigner, Signature, VerifierKey, parse_verifier_key
from audit.storage import Disk

MAX_KEY_BYTES = 1 << 16


def mldsa_key_path(key_path: Path) -> Path:
    """Where the log's own post-quantum key lies."""
    return key_path.with_name(f"{key_path.stem}-mldsa.key")


def next_key_path(path: Path) -> Path:
    """Where the key lies that is to follow this one."""
    return path.with_name(f"{path.stem}-next.key")


def load_signer(path: Path, origin: str, cosigner: Cosigner | None = None) -> NoteSigner:
    """Load the signing key. Where a next key lies beside it (see `rotation`), that signs as well.

    Args:
        cosigner: cosigns what is signed as well, as of now.
    Raises: KeyUnusable, which names the file.
    """
    key = _load_private_key(path, f"signing key of the log {path}")
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyUnusable(f"signing key of the log {path}: is no Ed25519 key")
    following = load_signer(next_key_path(path), origin) if next_key_path(path).exists() else None
    return NoteSigner(origin, key, _countersign_with(following, cosigner))


def open_cosigner(path: Path, name: str, disk: Disk, *, is_mldsa: bool) -> Cosigner:
    """Load a cosigning key, or make it with its vkey file where there is none.

    Raises: KeyUnusable.
    """
    if not path.exists():
        _write_private_key(path, MLDSA44PrivateKey.generate() if is_mldsa else Ed25519PrivateKey.generate(), disk)
    key = _load_private_key(path, f"cosigning key {path}")
    if not isinstance(key, MLDSA44PrivateKey if is_mldsa else Ed25519PrivateKey):
        raise KeyUnusable(f"cosigning key {path}: is no {'ML-DSA-44' if is_mldsa else 'Ed25519'} key")
    cosigner = Cosigner(name, key)
    write_vkey(path.with_suffix(".vkey"), cosigner.key, disk)
    return cosigner


def open_cosigners(folder: Path, name: str, *, with_mldsa: bool) -> list[Cosigner]:
    """The keys of a witness in its state folder.

    Raises: KeyUnusable.
    """
    disk = Disk()
    disk.make_folder(folder)
    cosigners = [open_cosigner(folder / "witness.key", name, disk, is_mldsa=False)]
    if with_mldsa:
        cosigners.append(open_cosigner(folder / "witness-mldsa.key", name, disk, is_mldsa=True))
    return cosigners


def _countersign_with(following: NoteSigner | None, cosigner: Cosigner | None) -> Callable[[str], Sequence[Signature]]:
    def countersign(text: str) -> list[Signature]:
        signatures = [] if following is None else [following.sign_alone(text)]
        if cosigner is not None:
            signatures.append(cosigner.cosign(text, int(time.time())))
        return signatures

    return countersign


def _load_private_key(path: Path, what: str) -> object:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(MAX_KEY_BYTES + 1)
    except OSError as error:
        raise KeyUnusable(f"{what}: cannot be read: {error.strerror}") from error
    if mode & 0o077:
        raise KeyUnusable(f"{what}: others may use it (mode {mode & 0o777:03o}, expected 600)")
    try:
        return load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyUnusable(f"{what}: is not an unencrypted private key in PEM") from error


def create_signer(path: Path, origin: str, disk: Disk, cosigner: Cosigner | None = None) -> NoteSigner:
    """Make a new key with its vkey file (`.vkey` in place of `.key`), durably and never over another one.

    Raises: KeyUnusable.
    """
    if path.exists():
        raise KeyUnusable(f"signing key of the log {path}: exists already")
    _write_private_key(path, Ed25519PrivateKey.generate(), disk)
    signer = load_signer(path, origin, cosigner)
    write_vkey(path.with_suffix(".vkey"), signer.key, disk)
    return signer


def _write_private_key(path: Path, key: CosigningKey, disk: Disk) -> None:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    temporary = path.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    disk.write_file(path, pem, temporary)


def write_vkey(path: Path, key: VerifierKey | CosignerKey, disk: Disk) -> None:
    """Write the public half where anybody may read it, unless it is there."""
    text = f"{key.encode()}\n".encode()
    if not path.exists() or path.read_bytes() != text:
        disk.write_file(path, text, path.with_name(f"{path.name}.tmp"))
        disk.sync_folders([path.parent])


def load_verifier_key(text_or_path: str) -> VerifierKey:
    """A vkey given as text, or as the path of a file that holds it.

    Raises: KeyUnusable, MalformedNote.
    """
    return parse_verifier_key(_read_vkey(text_or_path))


def load_cosigner_key(text_or_path: str) -> CosignerKey:
    """The same, of a witness or other cosigner.

    Raises: KeyUnusable, MalformedNote.
    """
    return parse_cosigner_key(_read_vkey(text_or_path))


def _read_vkey(text_or_path: str) -> str:
    text = text_or_path.strip()
    if "+" not in text or os.path.exists(text_or_path):
        try:
            text = Path(text_or_path).read_bytes()[:MAX_KEY_BYTES].decode("utf-8").strip()
        except OSError as error:
            raise KeyUnusable(f"verifier key {text_or_path}: cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise MalformedNote(f"verifier key {text_or_path}: is not text") from error
    return text
