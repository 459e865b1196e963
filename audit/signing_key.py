"""The log's key: one Ed25519 key in a PEM file that only the auditor reads, and its vkey text beside it.

A key is made once, with a new log. A key without its log, or a log without its key, is refused: an empty log under a known key
would be a second history under the first one's name.
"""

import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from audit.errors import KeyUnusable, MalformedNote
from audit.note import NoteSigner, VerifierKey, parse_verifier_key
from audit.storage import Disk

MAX_KEY_BYTES = 1 << 16


def load_signer(path: Path, origin: str) -> NoteSigner:
    """Load the signing key.

    Raises: KeyUnusable, which names the file.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(MAX_KEY_BYTES + 1)
    except OSError as error:
        raise KeyUnusable(f"signing key of the log {path}: cannot be read: {error.strerror}") from error
    if mode & 0o077:
        raise KeyUnusable(f"signing key of the log {path}: others may use it (mode {mode & 0o777:03o}, expected 600)")
    try:
        key = load_pem_private_key(data, password=None)
    except (ValueError, TypeError) as error:
        raise KeyUnusable(f"signing key of the log {path}: is not an unencrypted private key in PEM") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyUnusable(f"signing key of the log {path}: is no Ed25519 key")
    return NoteSigner(origin, key)


def create_signer(path: Path, origin: str, disk: Disk) -> NoteSigner:
    """Make a new key with its vkey file (`.vkey` in place of `.key`), durably and never over another one.

    Raises: KeyUnusable.
    """
    if path.exists():
        raise KeyUnusable(f"signing key of the log {path}: exists already")
    key = Ed25519PrivateKey.generate()
    signer = NoteSigner(origin, key)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    temporary = path.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    disk.write_file(path, pem, temporary)
    write_vkey(path.with_suffix(".vkey"), signer.key, disk)
    return signer


def write_vkey(path: Path, key: VerifierKey, disk: Disk) -> None:
    """Write the public half where anybody may read it, unless it is there."""
    text = f"{key.encode()}\n".encode()
    if not path.exists() or path.read_bytes() != text:
        disk.write_file(path, text, path.with_name(f"{path.name}.tmp"))
        disk.sync_folders([path.parent])


def load_verifier_key(text_or_path: str) -> VerifierKey:
    """A vkey given as text, or as the path of a file that holds it.

    Raises: KeyUnusable, MalformedNote.
    """
    text = text_or_path.strip()
    if "+" not in text or os.path.exists(text_or_path):
        try:
            text = Path(text_or_path).read_bytes()[:MAX_KEY_BYTES].decode("utf-8").strip()
        except OSError as error:
            raise KeyUnusable(f"verifier key {text_or_path}: cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise MalformedNote(f"verifier key {text_or_path}: is not text") from error
    return parse_verifier_key(text)
