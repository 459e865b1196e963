"""Checkpoints: what the log signs, namely its name, its size and its root.

Of our own logs extension lines are refused: the specification advises against them, and what monitors cannot audit a log must not
sign. A witness takes those of other logs, and vouches for the first three lines only.

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
    extensions: tuple[str, ...] = ()

    def encode(self) -> str:
        """The note text: origin, size, root and extensions, a line each."""
        lines = (self.origin, str(self.size), base64.b64encode(self.root).decode("ascii"), *self.extensions)
        return "\n".join(lines) + "\n"


def parse_checkpoint(text: str, *, may_extend: bool = False) -> Checkpoint:
    """Parse the text of a note as a checkpoint.

    Accepts the canonical form only: encoding the result gives `text`.

    Args:
        may_extend: extension lines are taken.
    Signatures are not checked here: the caller MUST have called `verify_note`, or call `verify_checkpoint` instead.
    Raises: MalformedCheckpoint.
    """
    lines = text.split("\n")
    if len(lines) < 4 or lines.pop() or not all(lines) or any(c < " " for line in lines for c in line):
        raise MalformedCheckpoint(
            "checkpoint: expected lines, none empty, each ended by a newline, and no control characters"
        )
    if len(lines) > 3 and not may_extend:
        raise MalformedCheckpoint(f"checkpoint: expected three lines, got {len(lines)}")
    origin, size_text, root_text, *extensions = lines
    checkpoint = Checkpoint(origin, parse_decimal(size_text), _parse_root(root_text), tuple(extensions))
    if checkpoint.size == 0 and checkpoint.root != EMPTY_ROOT:
        raise WrongEmptyRoot("checkpoint: size 0 with another root than that of the empty tree")
    return checkpoint


def verify_checkpoint(data: bytes, keys: Iterable[VerifierKey], origin: str, *, may_extend: bool = False) -> Checkpoint:
    """Verify a signed checkpoint of the log named `origin`.

    Raises: MalformedNote, MalformedCheckpoint, SignatureRejected.
    """
    checkpoint = parse_checkpoint(verify_note(data, keys).text, may_extend=may_extend)
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
