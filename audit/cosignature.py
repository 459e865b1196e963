"""Cosignatures: a witness's word that, as of a time, a tree was the largest it had seen of a log, and extended all before it.

Two kinds of key: Ed25519 (type 0x04) and ML-DSA-44 (type 0x06), which stays secure against quantum computers and commits to
the cosigner's name too. A log may cosign its own checkpoints with the latter. Both are signature lines of the checkpoint's note.

Source: C2SP tlog-cosignature; FIPS 204 (ML-DSA).
"""

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey

from audit.canonical_text import decode_base64, encode_base64
from audit.checkpoint import parse_checkpoint
from audit.errors import MalformedNote, SignatureRejected
from audit.note import Signature, parse_note, verify_key_name

ED25519_COSIGNATURE = 0x04
MLDSA44_COSIGNATURE = 0x06
MAX_TIMESTAMP = 2**63 - 1
_KEY_BYTES = {ED25519_COSIGNATURE: 32, MLDSA44_COSIGNATURE: 1312}
_SIGNATURE_BYTES = {ED25519_COSIGNATURE: 64, MLDSA44_COSIGNATURE: 2420}
_LABEL = b"subtree/v1\n\0"

FUTURE_S = 3_600
"""How far a cosigner's clock may be ahead of ours. A word of later would be fresh for longer than anybody can vouch for."""

CosigningKey = Ed25519PrivateKey | MLDSA44PrivateKey


@dataclass(frozen=True, slots=True)
class CosignerKey:
    """A cosigner's public key under the name that its signature lines carry."""

    name: str
    public_key: bytes
    kind: int = ED25519_COSIGNATURE

    @property
    def key_id(self) -> int:
        """First four bytes of SHA-256(name || LF || type || public key), big-endian."""
        digest = hashlib.sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.public_key).digest()
        return int.from_bytes(digest[:4], "big")

    def encode(self) -> str:
        """The vkey text."""
        return f"{self.name}+{self.key_id:08x}+{encode_base64(bytes([self.kind]) + self.public_key)}"

    def verify(self, text: str, signature: Signature) -> None:
        """Check one cosignature of this key over a checkpoint's text.

        Raises: SignatureRejected, MalformedCheckpoint.
        """
        timestamp, value = _split(self, signature)
        message = cosigned_message(self.kind, self.name, text, timestamp)
        try:
            if self.kind == ED25519_COSIGNATURE:
                Ed25519PublicKey.from_public_bytes(self.public_key).verify(value, message)
            else:
                MLDSA44PublicKey.from_public_bytes(self.public_key).verify(value, message)
        except (InvalidSignature, ValueError) as error:
            raise SignatureRejected(f"checkpoint: the cosignature of {self.name}+{self.key_id:08x} is wrong") from error


class Cosigner:
    """Cosigns checkpoints under a name. Holds the private key; its `repr` does not show it."""

    def __init__(self, name: str, private_key: CosigningKey) -> None:
        verify_key_name(name)
        self._private_key = private_key
        kind = ED25519_COSIGNATURE if isinstance(private_key, Ed25519PrivateKey) else MLDSA44_COSIGNATURE
        self.key = CosignerKey(name, private_key.public_key().public_bytes_raw(), kind)

    def cosign(self, text: str, timestamp: int) -> Signature:
        """Cosign a checkpoint's text as of `timestamp` (seconds since 1970).

        The caller MUST have made sure that it extends every checkpoint that this key has cosigned for the log.
        """
        message = cosigned_message(self.key.kind, self.key.name, text, timestamp)
        value = struct.pack(">Q", timestamp) + self._private_key.sign(message)
        return Signature(self.key.name, self.key.key_id, value)


def cosigned_message(kind: int, cosigner: str, text: str, timestamp: int) -> bytes:
    """What is signed.

    Raises: MalformedCheckpoint where the text is no checkpoint.
    """
    checkpoint = parse_checkpoint(text, may_extend=True)
    if kind == ED25519_COSIGNATURE:
        return f"cosignature/v1\ntime {timestamp}\n{text}".encode()
    name, origin = cosigner.encode(), checkpoint.origin.encode()
    if not (0 < len(name) < 256 and 0 < len(origin) < 256):
        raise MalformedNote("cosignature: name and origin must have 1 to 255 bytes")
    sized = b"".join((bytes([len(name)]), name, struct.pack(">Q", timestamp), bytes([len(origin)]), origin))
    return _LABEL + sized + struct.pack(">QQ", 0, checkpoint.size) + checkpoint.root


def parse_cosigner_key(text: str) -> CosignerKey:
    """Parse the vkey of a cosigner in canonical form.

    Raises: MalformedNote.
    """
    name, _, rest = text.partition("+")
    id_text, _, key_text = rest.partition("+")
    verify_key_name(name)
    data = decode_base64(key_text, "cosigner key", MalformedNote)
    if not data or len(data) - 1 != _KEY_BYTES.get(data[0], 0):
        raise MalformedNote(f"cosigner key {name!r}: expected type 4 (Ed25519) or 6 (ML-DSA-44) and its key")
    key = CosignerKey(name, data[1:], data[0])
    if id_text != f"{key.key_id:08x}":
        raise MalformedNote(f"cosigner key {name!r}: its id says {id_text!r}, its key {key.key_id:08x}")
    return key


def verify_cosignatures(note: bytes, keys: Iterable[CosignerKey]) -> dict[str, int]:
    """Check every cosignature by a known key; there may be none.

    The log's own signature is not looked at: the caller MUST have called `verify_checkpoint`.
    Returns: for each cosigner that signed, the time of its latest word, in seconds since 1970.
    Raises: MalformedNote, SignatureRejected when a known key's cosignature is wrong.
    """
    parsed = parse_note(note)
    known = {(key.name, key.key_id): key for key in keys}
    found: dict[str, int] = {}
    for signature in parsed.signatures:
        if (key := known.get((signature.name, signature.key_id))) is not None:
            key.verify(parsed.text, signature)
            found[key.name] = max(_split(key, signature)[0], found.get(key.name, 0))
    return found


def find_come(times: Iterable[int], now_s: float) -> list[int]:
    """Those times of words that have come, the latest first."""
    return sorted((time_s for time_s in times if time_s <= now_s + FUTURE_S), reverse=True)


def _split(key: CosignerKey, signature: Signature) -> tuple[int, bytes]:
    value = signature.value
    if len(value) != 8 + _SIGNATURE_BYTES[key.kind]:
        raise SignatureRejected(f"checkpoint: the cosignature of {key.name}+{key.key_id:08x} has {len(value)} bytes")
    timestamp: int
    (timestamp,) = struct.unpack_from(">Q", value)
    if timestamp > MAX_TIMESTAMP:
        raise SignatureRejected(f"checkpoint: the cosignature of {key.name}+{key.key_id:08x} has an impossible time")
    return timestamp, value[8:]
