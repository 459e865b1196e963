"""Signed notes (C2SP signed-note) with Ed25519: the envelope of checkpoints.

Only the canonical form is accepted: encoding what was parsed gives the same bytes. A signature by a key that the caller
does not know is ignored; one by a known key that fails rejects the whole note, whatever else signed it.

Source: C2SP signed-note. Of its algorithms Ed25519 (type 0x01) only: the specification asks not to carry more than needed.
"""

import hashlib
import struct
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from audit.canonical_text import decode_base64, encode_base64
from audit.errors import MalformedNote, SignatureRejected

MAX_NOTE_BYTES = 1 << 20
MAX_SIGNATURES = 100
"""The specification asks for at least 16; post-quantum ones of 5 kB each still fit into MAX_NOTE_BYTES."""
ED25519_TYPE = 0x01
SIGNATURE_PREFIX = "— "


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line: not yet verified."""

    name: str
    key_id: int
    value: bytes


@dataclass(frozen=True, slots=True)
class SignedNote:
    """A parsed note; `text` ends in a newline. Nothing about it may be believed before `verify_note`."""

    text: str
    signatures: tuple[Signature, ...]


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key under the name that its signature lines carry."""

    name: str
    public_key: bytes

    @property
    def key_id(self) -> int:
        """First four bytes of SHA-256(name || LF || type || public key), big-endian."""
        return key_id_of(self.name, self.public_key)

    def encode(self) -> str:
        """The vkey text: name, key id in hexadecimal, base64 of type and key."""
        return f"{self.name}+{self.key_id:08x}+{encode_base64(bytes([ED25519_TYPE]) + self.public_key)}"

    def verify(self, text: str, signature: Signature) -> None:
        """Check one signature of this key.

        Raises: SignatureRejected.
        """
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(signature.value, text.encode())
        except (InvalidSignature, ValueError) as error:
            raise SignatureRejected(f"note: the signature of {self.name}+{self.key_id:08x} is wrong") from error


class NoteSigner:
    """Signs note texts under a name. Holds the private key; its `repr` does not show it.

    Args:
        countersign: gives further signatures over a text, such as the log's own post-quantum cosignature.
    """

    def __init__(
        self,
        name: str,
        private_key: Ed25519PrivateKey,
        countersign: Callable[[str], Sequence[Signature]] = lambda _text: (),
    ) -> None:
        verify_key_name(name)
        self._private_key = private_key
        self._countersign = countersign
        self.key = VerifierKey(name, private_key.public_key().public_bytes_raw())

    def sign(self, text: str) -> bytes:
        """The signed note of a text: this key's signature, then those that come with it."""
        return encode_note(SignedNote(text, (self.sign_alone(text), *self._countersign(text))))

    def sign_alone(self, text: str) -> Signature:
        """This key's signature of a text."""
        return Signature(self.key.name, self.key.key_id, self._private_key.sign(text.encode()))


def key_id_of(name: str, public_key: bytes) -> int:
    """Key id of an Ed25519 key under a name."""
    digest = hashlib.sha256(name.encode() + b"\n" + bytes([ED25519_TYPE]) + public_key).digest()
    return int.from_bytes(digest[:4], "big")


def verify_key_name(name: str) -> None:
    """Check the rules for key names: not empty, no Unicode space, no plus sign, nothing that a note may not hold.

    Raises: MalformedNote.
    """
    if not name or "+" in name or any(_is_space(c) or c < " " for c in name) or not _is_encodable(name):
        raise MalformedNote(f"key name {name!r}: must be text without spaces, plus signs and control characters")


def parse_verifier_key(text: str) -> VerifierKey:
    """Parse a vkey, `name+hexid+base64`, in canonical form, surrounded by nothing.

    Raises: MalformedNote.
    """
    name, _, rest = text.partition("+")
    id_text, _, key_text = rest.partition("+")
    verify_key_name(name)
    key = decode_base64(key_text, "verifier key", MalformedNote)
    if len(key) != 33 or key[0] != ED25519_TYPE:
        raise MalformedNote(f"verifier key {name!r}: expected type 1 (Ed25519) and 32 bytes, got {len(key)} bytes")
    result = VerifierKey(name, key[1:])
    if id_text != f"{result.key_id:08x}":
        raise MalformedNote(f"verifier key {name!r}: its id says {id_text!r}, its key {result.key_id:08x}")
    return result


def encode_note(note: SignedNote) -> bytes:
    """The note as bytes: text, blank line, signature lines."""
    return (note.text + "\n" + "".join(map(encode_signature, note.signatures))).encode()


def encode_signature(signature: Signature) -> str:
    """One signature line, with its newline."""
    value = encode_base64(struct.pack(">I", signature.key_id) + signature.value)
    return f"{SIGNATURE_PREFIX}{signature.name} {value}\n"


def parse_note(data: bytes) -> SignedNote:
    """Parse an untrusted signed note of at most MAX_NOTE_BYTES. Verifies no signature.

    Accepts the canonical form only: `encode_note` of the result gives `data`.
    Raises: MalformedNote.
    """
    if len(data) > MAX_NOTE_BYTES:
        raise MalformedNote(f"note: {len(data)} bytes, at most {MAX_NOTE_BYTES} are taken")
    try:
        note = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedNote("note: is not UTF-8") from error
    if any(c < " " and c != "\n" for c in note):
        raise MalformedNote("note: holds a control character other than newline")
    # The text may hold empty lines; the last empty line of the note parts it from the signatures.
    text, blank, tail = note.rpartition("\n\n")
    if not blank or not tail.endswith("\n"):
        raise MalformedNote("note: must be text, a blank line and signature lines, each ended by a newline")
    lines = tail[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise MalformedNote(f"note: {len(lines)} signatures, at most {MAX_SIGNATURES} are taken")
    return SignedNote(text + "\n", tuple(_parse_signature(line) for line in lines))


def verify_note(data: bytes, keys: Iterable[VerifierKey]) -> SignedNote:
    """Parse a note and check every signature by a known key; at least one there must be.

    Returns: the note, with the signatures of known keys only.
    Raises: MalformedNote, SignatureRejected.
    """
    note = parse_note(data)
    known = {(key.name, key.key_id): key for key in keys}
    verified = []
    for signature in note.signatures:
        key = known.get((signature.name, signature.key_id))
        if key is not None:
            key.verify(note.text, signature)
            verified.append(signature)
    if not verified:
        names = ", ".join(f"{name}+{key_id:08x}" for name, key_id in known)
        others = ", ".join(f"{ascii(one.name)[1:-1]}+{one.key_id:08x}" for one in note.signatures)
        raise SignatureRejected(f"note: no signature by {names or 'any key: none was given'}; it names {others}")
    return SignedNote(note.text, tuple(verified))


def _parse_signature(line: str) -> Signature:
    if not line.startswith(SIGNATURE_PREFIX):
        raise MalformedNote(f"note: signature line {line[:80]!r} does not start with an em dash and a space")
    name, space, encoded = line[len(SIGNATURE_PREFIX) :].partition(" ")
    if not space:
        raise MalformedNote(f"note: signature line {line[:80]!r} has no signature")
    verify_key_name(name)
    value = decode_base64(encoded, "signature", MalformedNote)
    if len(value) < 5:
        raise MalformedNote(f"note: the signature of {name!r} has {len(value)} bytes, expected a key id and more")
    return Signature(name, int.from_bytes(value[:4], "big"), value[4:])


def _is_space(character: str) -> bool:
    # Unicode White_Space: what str.isspace says, less the four separators U+001C..1F, which are control characters anyway.
    return character.isspace() or unicodedata.category(character) in ("Zs", "Zl", "Zp")


def _is_encodable(text: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in text)
