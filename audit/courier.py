"""Between a log and its witnesses: what to ask, and what to make of the answer. Works over a network and with files alike.

The log's host keeps the last cosigned checkpoint beside the log (`cosigned`): the log's note with the cosignatures of the
witnesses that were asked. It is public; whoever brings it need not be trusted.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from audit.canonical_text import parse_decimal
from audit.checkpoint import Checkpoint, parse_checkpoint, verify_checkpoint
from audit.cosignature import CosignerKey, verify_cosignatures
from audit.errors import AuditRejected, EntryNotFound, MalformedNote, SignatureRejected
from audit.note import MAX_NOTE_BYTES, SignedNote, VerifierKey, encode_note, parse_note
from audit.reader import LogReader
from audit.storage import Disk, read_regular
from audit.witness import Answer, encode_request

COSIGNED = "cosigned"
Ask = Callable[[bytes], Answer]
"""Sends an `add-checkpoint` to one witness."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a witness is asked about: a checkpoint of the log, and the size that it should know."""

    note: bytes
    checkpoint: Checkpoint
    body: bytes


def build_request(reader: LogReader, key: VerifierKey, old_size: int) -> Request:
    """Ask for the log's last checkpoint, for a witness that remembers `old_size`.

    Raises: SignatureRejected, LogCorrupted, EntryNotFound; MalformedNote when the log is smaller than what the witness remembers.
    """
    note = reader.checkpoint_note()
    checkpoint = verify_checkpoint(note, [key], key.name)
    if old_size > checkpoint.size:
        raise MalformedNote(
            f"the witness has cosigned {old_size} records, the log has {checkpoint.size}: the log went back, or is another"
        )
    proof = reader.prove_consistency(old_size, checkpoint.size) if 0 < old_size < checkpoint.size else []
    return Request(note, checkpoint, encode_request(old_size, proof, note))


def ask_witness(reader: LogReader, key: VerifierKey, witness: CosignerKey, ask: Ask, old_size: int) -> bytes:
    """Get one witness's cosignature of the log's last checkpoint.

    Args:
        old_size: the size that the witness is thought to remember; it says if it is another.
    Returns: the checkpoint with the cosignature.
    Raises: SignatureRejected, LogCorrupted, EntryNotFound; MalformedNote for an answer that makes no sense or refuses.
    """
    request = build_request(reader, key, old_size)
    answer = ask(request.body)
    if answer.status == 409:
        request = build_request(reader, key, parse_remembered_size(answer.body))
        answer = ask(request.body)
    if answer.status != 200:
        reason = answer.body[:200].decode("utf-8", "replace").strip()
        raise MalformedNote(f"the witness {witness.name} refused with {answer.status}: {reason}")
    return add_cosignatures(request.note, answer.body, [witness])


def parse_remembered_size(body: bytes) -> int:
    """The size that a witness says it remembers, where it answers 409 (C2SP tlog-witness).

    Raises: MalformedNote.
    """
    try:
        text = body.decode("ascii")
    except UnicodeDecodeError as error:
        raise MalformedNote("the witness answered 409 with rubbish") from error
    return parse_decimal(text.removesuffix("\n"), "the witness answered 409: the size", MalformedNote)


def add_cosignatures(note: bytes, lines: bytes, witnesses: Sequence[CosignerKey]) -> bytes:
    """The checkpoint with the cosignatures of known witnesses; lines of others are left out.

    Raises: MalformedNote, SignatureRejected when no known witness is among them, or one's cosignature is wrong.
    """
    if len(lines) > MAX_NOTE_BYTES:
        raise MalformedNote(f"cosignatures: {len(lines)} bytes, at most {MAX_NOTE_BYTES} are taken")
    base = parse_note(note)
    try:
        brought = parse_note(f"{base.text}\n".encode() + lines).signatures
    except AuditRejected as error:
        raise MalformedNote(f"cosignatures: the witness answered with rubbish: {error}") from error
    known = {(key.name, key.key_id) for key in witnesses}
    kept = tuple(signature for signature in brought if (signature.name, signature.key_id) in known)
    if not kept:
        raise SignatureRejected("cosignatures: none is by a known witness")
    fresh = {(signature.name, signature.key_id) for signature in kept}
    others = tuple(s for s in base.signatures if (s.name, s.key_id) not in fresh)
    cosigned = encode_note(SignedNote(base.text, (*others, *kept)))
    verify_cosignatures(cosigned, witnesses)
    return cosigned


def merge_cosigned(folder: Path, cosigned: bytes, disk: Disk | None = None) -> bytes:
    """Keep a cosigned checkpoint beside the log, with the cosignatures already there if they are of the same tree.

    Returns: what is kept now: a larger tree of the same log stays.
    Raises: MalformedNote where either is no checkpoint; NotDurable, StorageFailed.
    """
    disk = disk or Disk()
    path = folder / COSIGNED
    try:
        old = parse_note(path.read_bytes())
    except FileNotFoundError:
        old = None
    new = parse_note(cosigned)
    if old is not None and _is_larger(old, new):
        return encode_note(old)
    if old is not None and old.text == new.text:
        fresh = {(signature.name, signature.key_id) for signature in new.signatures}
        kept = tuple(s for s in old.signatures if (s.name, s.key_id) not in fresh)
        new = SignedNote(new.text, (*new.signatures, *kept))
    data = encode_note(new)
    disk.write_file(path, data, folder / f"{COSIGNED}.tmp")
    disk.sync_folders([folder])
    return data


def load_cosigned(folder: Path) -> bytes:
    """The cosigned checkpoint beside the log.

    Raises: EntryNotFound.
    """
    try:
        return read_regular(folder / COSIGNED, MAX_NOTE_BYTES)
    except FileNotFoundError:
        raise EntryNotFound(f"{folder / COSIGNED}: no witness has cosigned yet") from None


def _is_larger(old: SignedNote, new: SignedNote) -> bool:
    """Whether the old one is a larger tree of the same log. Raises: MalformedCheckpoint."""
    before, after = (parse_checkpoint(note.text, may_extend=True) for note in (old, new))
    return before.origin == after.origin and before.size > after.size
