"""Checkpoints: what the log signs, namely its name, its size and its root.

Of our own logs extension lines are refused: the specification advises against them, and what monitors cannot audit a log must not
sign. A witness takes those of other logs, and vouches for the first three lines only.

Source: C2SP tlog-checkpoint.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from audit.canonical_text import decode_base64, encode_base64, parse_decimal
from audit.errors import MalformedCheckpoint, WrongEmptyRoot
from audit.merkle import EMPTY_ROOT, HASH_BYTES
from audit.note import VerifierKey, verify_note


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A tree head of a log."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def encode(self) -> str:
        """The note text: origin, size, root and extensions, a line each."""
        lines = (self.origin, str(self.size), encode_base64(self.root), *self.extensions)
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
    checkpoint = Checkpoint(origin, _parse_size(size_text), _parse_root(root_text), tuple(extensions))
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


def _parse_size(text: str) -> int:
    return parse_decimal(text, "checkpoint: the size", MalformedCheckpoint)


def _parse_root(text: str) -> bytes:
    root = decode_base64(text, "checkpoint: the root", MalformedCheckpoint)
    if len(root) != HASH_BYTES:
        raise MalformedCheckpoint(f"checkpoint: the root has {len(root)} bytes, expected {HASH_BYTES}")
    return root
