"""Keys and certificates below the state folder, and those that the configuration names: what for, whose, of which kind;
never themselves.

A public half is named by the SHA-256 of its SubjectPublicKeyInfo, a certificate by its own SHA-256. A file with a key's
name that is on no list of ours is told as well: an inventory that leaves out what it does not know is none.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from appliance.compliance.inventory import format_seconds
from appliance.config import Configuration
from audit.sealing import SHARE_BYTES
from audit.shares import SHARES
from compliance.installation import HeldKey

_KNOWN = (
    ("audit/log.key", "signs the checkpoints of the log", "auditor"),
    ("audit/log-next.key", "is to sign the checkpoints of the log", "auditor"),
    ("audit/log-mldsa.key", "cosigns the checkpoints of the log", "auditor"),
    ("audit/*", "belongs to the log", "auditor"),
    ("authority/signing/*", "signs access tokens", "authority"),
    ("authority/*", "belongs to the authority", "authority"),
    ("compliance/*", "signs evidence packs", "commands"),
    ("console/client.key", "proves to the authority which application the console is", "console"),
    ("gateway/responses.key", "encrypts answers that are kept", "gateway"),
    ("gateway/*", "belongs to the gateway", "gateway"),
    ("policy/credentials.key", "hashes secrets, seals secrets of one-time codes", "policy, authority"),
    ("tls/ca.key", "signs the server's certificate", "supervisor"),
    ("tls/ca.pem", "is the anchor that clients trust", "clients"),
    ("tls/server.key", "proves who the server is", "gateway, authority"),
    ("tls/server.pem", "says who the server is", "gateway, authority"),
    ("trust/*", "says whom this host believes", "supervisor"),
)
_SUFFIXES = (".key", ".pem")
_MAX_BYTES = 1 << 20


def list_keys(configuration: Configuration) -> Iterator[HeldKey]:
    """All of them, in order of their paths."""
    state = configuration.state_path
    if state.is_dir():
        for path in sorted(path for path in state.rglob("*") if path.suffix in _SUFFIXES and path.is_file()):
            name = path.relative_to(state)
            purpose, holder = _find_purpose(name)
            yield _describe(path, name.as_posix(), purpose, holder)
        yield from _list_shares(state)
    tls = configuration.tls
    for named, purpose in (
        (tls.certificate, "says who the server is"),
        (tls.key, "proves who the server is"),
        (tls.ca_certificate, "is the anchor that clients trust"),
        (configuration.compliance.signing_key, "signs evidence packs"),
    ):
        if named is not None and not Path(named).is_relative_to(state):
            yield _describe(Path(named), named, purpose, "named in the configuration")


def _list_shares(state: Path) -> Iterator[HeldKey]:
    """Second shares of sealed bodies and roots of keyed hashes, which live and die by the day: a line for each."""
    for day in sorted((state / "audit" / SHARES).glob("*")):
        if shares := sorted(day.glob("*.json")):
            newest = max(path.stat().st_mtime for path in shares)
            modes = {path.stat().st_mode & 0o777 for path in shares}
            yield HeldKey(
                f"audit/{SHARES}/{day.name}/*.json",
                "second shares of sealed bodies and roots of keyed hashes, with escrows; destroyed with their day",
                "auditor",
                f"{len(shares)} secrets of {8 * SHARE_BYTES} bits",
                "",
                " ".join(f"{mode:03o}" for mode in sorted(modes)),
                format_seconds(newest),
            )


def _find_purpose(name: Path) -> tuple[str, str]:
    for pattern, purpose, holder in _KNOWN:
        if name.match(pattern) or (name.as_posix().startswith(pattern.removesuffix("*")) and pattern.endswith("*")):
            return purpose, holder
    return "is on no list", "unknown"


def _describe(path: Path, name: str, purpose: str, holder: str) -> HeldKey:
    try:
        status = path.stat()
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES)
    except OSError as error:
        return HeldKey(name, purpose, holder, f"cannot be read: {error.strerror}", "", "", "")
    algorithm, identifier = _identify(data)
    return HeldKey(
        name, purpose, holder, algorithm, identifier, f"{status.st_mode & 0o777:03o}", format_seconds(status.st_mtime)
    )


def _identify(data: bytes) -> tuple[str, str]:
    if not data.startswith(b"-----BEGIN"):
        return f"secret of {8 * len(data)} bits", ""
    try:
        if b"CERTIFICATE" in data.split(b"\n", 1)[0]:
            certificate = x509.load_pem_x509_certificate(data)
            encoded = certificate.public_bytes(Encoding.DER)
            return f"certificate until {certificate.not_valid_after_utc:%Y-%m-%d}", _digest(encoded)
        public = load_pem_private_key(data, password=None).public_key()
        return _name_algorithm(public), _digest(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return "encrypted, or of another form", ""


def _name_algorithm(key: object) -> str:
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"ECDSA {key.curve.name}"
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size}"
    if isinstance(key, ed25519.Ed25519PublicKey):
        return "Ed25519"
    return "ML-DSA-44" if isinstance(key, mldsa.MLDSA44PublicKey) else type(key).__name__


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
