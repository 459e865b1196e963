"""Checkpoints: what the log signs, namely its name, its size and its root.

Extension lines are refused: the specification advises against them, and what monitors cannot audit a log must not sign.

Source: C2SP tlog-checkpoint.
"""

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass

from audit.errors import MalformedCheckpoint, WrongEmptyRoot
from audit.merkle import EMPTY_ROOT, HASH_BYTES
from audit.note import VerifierKey, verify_note

MAX_TREE_SIZE = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A tree head of a log."""

    origin: str
    size: int
    root: bytes

    def encode(self) -> str:
        """The note text: origin, size and root, a line each."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode('ascii')}\n"


def parse_checkpoint(text: str) -> Checkpoint:
    """Parse the text of a note as a checkpoint.

    Accepts the canonical form without extension lines only: encoding the result gives `text`.
    Signatures are not checked here: the caller MUST have called `verify_note`, or call `verify_checkpoint` instead.
    Raises: MalformedCheckpoint.
    """
    lines = text.split("\n")
    if len(lines) != 4 or lines[3]:
        raise MalformedCheckpoint(f"checkpoint: expected three lines, got {max(len(lines) - 1, 0)}")
    origin, size_text, root_text, _ = lines
    if not origin or any(c < " " for c in origin):
        raise MalformedCheckpoint("checkpoint: the origin is empty or holds control characters")
    checkpoint = Checkpoint(origin, parse_decimal(size_text), _parse_root(root_text))
    if checkpoint.size == 0 and checkpoint.root != EMPTY_ROOT:
        raise WrongEmptyRoot("checkpoint: size 0 with another root than that of the empty tree")
    return checkpoint


def verify_checkpoint(data: bytes, keys: Iterable[VerifierKey], origin: str) -> Checkpoint:
    """Verify a signed checkpoint of the log named `origin`.

    Raises: MalformedNote, MalformedCheckpoint, SignatureRejected.
    """
    checkpoint = parse_checkpoint(verify_note(data, keys).text)
    if checkpoint.origin != origin:
        raise MalformedCheckpoint(f"checkpoint: is of the log {checkpoint.origin!r}, expected {origin!r}")
    return checkpoint


def parse_decimal(text: str) -> int:
    """Parse a tree size or index: ASCII digits, no leading zero.

    Raises: MalformedCheckpoint.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and (text == "0" or text[0] != "0")):
        raise MalformedCheckpoint(f"expected a decimal without leading zeroes, got {text[:40]!r}")
    number = int(text)
    if number > MAX_TREE_SIZE:
        raise MalformedCheckpoint(f"{text} is larger than any tree")
    return number


def _parse_root(text: str) -> bytes:
    try:
        root = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedCheckpoint("checkpoint: the root is not base64") from error
    if len(root) != HASH_BYTES or base64.b64encode(root).decode("ascii") != text:
        raise MalformedCheckpoint(f"checkpoint: the root must be {HASH_BYTES} bytes in canonical base64")
    return root
