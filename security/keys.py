"""Private keys in files: made atomically with mode 0600, loaded only if nobody else can read them.

A key file is PEM, PKCS#8, unencrypted (what unlocks it at start would lie beside it); secret bytes are raw. Every refusal
names the file and what is wrong with it, never what it holds.
"""

import contextlib
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from security.errors import KeyUnusable
from security.sandbox.users import is_ours, is_roots

SigningPrivateKey = Ed25519PrivateKey | EllipticCurvePrivateKey

MAX_KEY_FILE_BYTES = 64 << 10
SECRET_KEY_BYTES = 32
RSA_BITS = 3072
"""As strong as the curves (SP 800-57 part 1, table 2)."""


def generate_ed25519() -> Ed25519PrivateKey:
    """A new Ed25519 key."""
    return Ed25519PrivateKey.generate()


def generate_p256() -> EllipticCurvePrivateKey:
    """A new key on P-256."""
    return generate_private_key(SECP256R1())


def generate_rsa() -> RSAPrivateKey:
    """A new RSA key, which takes some tenths of a second."""
    return generate_rsa_key(65537, RSA_BITS)


def encode_private_key(key: SigningPrivateKey | RSAPrivateKey) -> bytes:
    """PEM, PKCS#8, unencrypted."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def write_exclusive(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Create `path` with `data`: whole, durable and with `mode` from the first moment, or not at all.

    Written beside and linked into place, so that a reader never sees half a file and two makers cannot both win.

    Raises: FileExistsError if `path` exists; KeyUnusable for any other failure.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        _write_durably(temporary, data, mode)
        os.link(temporary, path)
        _sync_directory(path.parent)
    except FileExistsError:
        raise
    except OSError as error:
        raise KeyUnusable(f"{path} cannot be written: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_replacing(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Put `data` at `path`, atomically replacing what may be there.

    Raises: KeyUnusable.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        _write_durably(temporary, data, mode)
        temporary.replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        raise KeyUnusable(f"{path} cannot be written: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _write_durably(path: Path, data: bytes, mode: int) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
        os.fchmod(file.fileno(), mode)  # The umask may have taken more away than the owner needs.
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_private_directory(path: Path) -> None:
    """Create a folder, and those above it, that only its owner can enter; one that exists is left as it is.

    Raises: KeyUnusable.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise KeyUnusable(f"folder {path} cannot be made: {error.strerror}") from error


def load_private_file(path: Path) -> bytes:
    """Read a file that nobody but its owner may read or write.

    Checked on the open descriptor, not on the name. The owner MUST be us or root; to root, a user of one of our roles is as good.
    A group may read it if it is one of the roles' (`security.sandbox.users`).

    Raises: KeyUnusable if it is missing, unreadable, not a regular file, too large, exposed, or somebody else's.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            _verify_private(path, status)
            return file.read(MAX_KEY_FILE_BYTES)
    except OSError as error:
        raise KeyUnusable(f"{path} cannot be read: {error.strerror}") from error


def _verify_private(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise KeyUnusable(f"{path} is not a regular file")
    if status.st_size > MAX_KEY_FILE_BYTES:
        raise KeyUnusable(f"{path} is larger than {MAX_KEY_FILE_BYTES} bytes: not a key")
    shared = stat.S_IRGRP if is_ours(status.st_gid) else 0  # By the processes that `security.sandbox.users` puts in it.
    if exposed := stat.S_IMODE(status.st_mode) & 0o077 & ~shared:
        raise KeyUnusable(
            f"{path} is open to others (mode {stat.S_IMODE(status.st_mode):04o}, {exposed:03o} too many): expected 0600"
        )
    own = os.geteuid()
    if status.st_uid != own and not is_roots(status.st_uid) and not (own == 0 and is_ours(status.st_uid)):
        raise KeyUnusable(f"{path} belongs to uid {status.st_uid}, expected {own}")


def load_private_key(path: Path) -> SigningPrivateKey:
    """Load an Ed25519 or P-256 key.

    Raises: KeyUnusable, as `load_private_file` does, and for what is not such a key.
    """
    key = _load_pem(path)
    if isinstance(key, Ed25519PrivateKey):
        return key
    if isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1):
        return key
    raise KeyUnusable(f"{path} holds a key of another kind: expected Ed25519 or P-256")


def load_rsa_key(path: Path) -> RSAPrivateKey:
    """Load an RSA key of RSA_BITS or more.

    Raises: KeyUnusable, as `load_private_file` does, and for what is not such a key.
    """
    key = _load_pem(path)
    if isinstance(key, RSAPrivateKey) and key.key_size >= RSA_BITS:
        return key
    raise KeyUnusable(f"{path} holds a key of another kind: expected RSA with {RSA_BITS} bits or more")


def _load_pem(path: Path) -> object:
    data = load_private_file(path)
    try:
        return load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyUnusable(f"{path} is not an unencrypted PEM private key") from None


def load_or_create_private_key(path: Path, generate: Callable[[], SigningPrivateKey]) -> SigningPrivateKey:
    """Load the key at `path`; where there is none yet, generate one. Of two makers at once one wins, for both.

    Raises: KeyUnusable.
    """
    with contextlib.suppress(FileExistsError):
        if not path.exists():
            write_exclusive(path, encode_private_key(generate()))
    return load_private_key(path)


def load_or_create_secret(path: Path) -> bytes:
    """Load the 256-bit secret at `path`; where there is none yet, make one.

    Raises: KeyUnusable.
    """
    with contextlib.suppress(FileExistsError):
        if not path.exists():
            write_exclusive(path, secrets.token_bytes(SECRET_KEY_BYTES))
    data = load_private_file(path)
    if len(data) != SECRET_KEY_BYTES:
        raise KeyUnusable(f"{path} holds {len(data)} bytes: expected {SECRET_KEY_BYTES}")
    return data
