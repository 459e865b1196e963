"""A witness: remembers the largest tree it has seen of each log it knows, and cosigns only what extends it.

So a log that shows one history to some and another to others, or goes back to an earlier one, gets no cosignature for it. The
witness needs nothing of the log but checkpoints and proofs, and must be run by somebody who does not run the log.

For one request, under one lock:

(1) The request's form, the log it is about, and the log's signature.
(2) The old size is the one remembered, the consistency proof holds.
(3) The new checkpoint is remembered durably, before
(4) the cosignature is given out.

What always holds: of two cosigned checkpoints of one log, one is a prefix of the other.

Source: C2SP tlog-witness.
"""

import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from audit.canonical_text import decode_base64, encode_base64, parse_decimal
from audit.checkpoint import Checkpoint, parse_checkpoint, verify_checkpoint
from audit.cosignature import Cosigner
from audit.errors import AuditRejected, MalformedNote, ProofRejected, SignatureRejected, StateMismatch, WrongEmptyRoot
from audit.merkle import EMPTY_ROOT, HASH_BYTES, MAX_PROOF_HASHES, verify_consistency
from audit.note import MAX_NOTE_BYTES, Signature, SignedNote, VerifierKey, encode_note, encode_signature, parse_note
from audit.storage import Disk, lock_folder

MAX_REQUEST_BYTES = MAX_NOTE_BYTES + 64 * 100
TEXT = "text/plain; charset=utf-8"
SIZE = "text/x.tlog.size"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a witness answers: an HTTP status and a body."""

    status: int
    body: bytes
    content_type: str = TEXT


@dataclass(frozen=True, slots=True)
class CheckpointRequest:
    """A parsed `add-checkpoint`. Nothing about it may be believed yet."""

    old_size: int
    proof: tuple[bytes, ...]
    note: bytes


def encode_request(old_size: int, proof: Sequence[bytes], note: bytes) -> bytes:
    """The body of an `add-checkpoint`."""
    lines = [f"old {old_size}", *map(encode_base64, proof)]
    return ("\n".join(lines) + "\n\n").encode("ascii") + note


def parse_request(data: bytes) -> CheckpointRequest:
    """Parse an untrusted `add-checkpoint` of at most MAX_REQUEST_BYTES.

    Raises: MalformedNote.
    """
    if len(data) > MAX_REQUEST_BYTES:
        raise MalformedNote(f"request: {len(data)} bytes, at most {MAX_REQUEST_BYTES} are taken")
    head, blank, note = data.partition(b"\n\n")
    try:
        lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise MalformedNote("request: is not ASCII before the checkpoint") from error
    if not blank or not lines[0].startswith("old ") or len(lines) - 1 > MAX_PROOF_HASHES:
        raise MalformedNote("request: expected `old SIZE`, at most 63 hashes, a blank line and a checkpoint")
    old_size = parse_decimal(lines[0].removeprefix("old "), "request: the old size", MalformedNote)
    return CheckpointRequest(old_size, tuple(_decode_hash(line) for line in lines[1:]), note)


class Witness:
    """One witness over its state folder, which it keeps locked until `close`.

    Args:
        logs: keys of the logs it knows; several of one name are one log that changed its key.
        clock: seconds since 1970.
    Raises: LogInUse when another witness has the folder.
    """

    def __init__(
        self,
        folder: Path,
        cosigners: Sequence[Cosigner],
        logs: Sequence[VerifierKey],
        clock: Callable[[], float],
        disk: Disk | None = None,
    ) -> None:
        self._disk = disk or Disk()
        self._disk.make_folder(folder)
        self._folder = folder
        self._lock_fd = lock_folder(folder / "lock")
        self._lock = threading.Lock()
        self._cosigners = cosigners
        self._clock = clock
        self._keys: dict[str, list[VerifierKey]] = {}
        for key in logs:
            self._keys.setdefault(key.name, []).append(key)

    def add_checkpoint(self, data: bytes) -> Answer:
        """Answer one `add-checkpoint`.

        Raises: NotDurable, StorageFailed, StateMismatch: then nothing was cosigned. After StorageFailed the process MUST end.
        """
        try:
            request = parse_request(data)  # (1)
            origin = _origin_of(parse_note(request.note).text)
        except AuditRejected as error:
            return _refuse(400, error)
        keys = self._keys.get(origin)
        if keys is None:
            return Answer(404, f"this witness does not know the log {origin}\n".encode())
        try:
            checkpoint = verify_checkpoint(request.note, keys, origin, may_extend=True)
        except SignatureRejected as error:
            return _refuse(403, error)
        except WrongEmptyRoot as error:
            return _refuse(422, error)
        except AuditRejected as error:
            return _refuse(400, error)
        if request.old_size > checkpoint.size:
            return Answer(400, b"the old size is larger than the checkpoint's\n")
        with self._lock:
            return self._cosign(request, checkpoint)

    def latest(self, origin_hash: str) -> bytes | None:
        """The last cosigned checkpoint of the log whose origin has this SHA-256, with all signatures; None where there is none."""
        for origin in self._keys:
            if hashlib.sha256(origin.encode()).hexdigest() == origin_hash:
                try:
                    return self._path(origin).read_bytes()
                except FileNotFoundError:
                    return None
        return None

    def close(self) -> None:
        """Let go of the folder."""
        os.close(self._lock_fd)

    def _cosign(self, request: CheckpointRequest, checkpoint: Checkpoint) -> Answer:
        known = self._load(checkpoint.origin)
        if request.old_size != known.size:  # (2)
            return Answer(409, f"{known.size}\n".encode(), SIZE)
        try:
            _verify_extends(request, known, checkpoint)
        except ProofRejected as error:
            return _refuse(422, error)
        text = checkpoint.encode()
        now = int(self._clock())
        signatures = tuple(cosigner.cosign(text, now) for cosigner in self._cosigners)
        note = SignedNote(text, (*self._own_of(request.note, checkpoint.origin), *signatures))
        self._disk.write_file(self._path(checkpoint.origin), encode_note(note), self._folder / "incoming")  # (3)
        self._disk.sync_folders([self._folder])
        return Answer(200, "".join(encode_signature(signature) for signature in signatures).encode())  # (4)

    def _own_of(self, note: bytes, origin: str) -> list[Signature]:
        """The log's own signatures, which were verified; those of strangers are not kept."""
        known = {(key.name, key.key_id) for key in self._keys[origin]}
        return [s for s in parse_note(note).signatures if (s.name, s.key_id) in known]

    def _load(self, origin: str) -> Checkpoint:
        path = self._path(origin)
        try:
            checkpoint = parse_checkpoint(parse_note(path.read_bytes()).text, may_extend=True)
        except FileNotFoundError:
            return Checkpoint(origin, 0, EMPTY_ROOT)
        except AuditRejected as error:
            raise StateMismatch(f"{path}: is damaged: {error}; without it nothing can be cosigned") from error
        if checkpoint.origin != origin:
            raise StateMismatch(f"{path}: is of the log {checkpoint.origin!r}, expected {origin!r}")
        return checkpoint

    def _path(self, origin: str) -> Path:
        return self._folder / f"{hashlib.sha256(origin.encode()).hexdigest()}.checkpoint"


def _verify_extends(request: CheckpointRequest, known: Checkpoint, checkpoint: Checkpoint) -> None:
    """Raises: ProofRejected."""
    if known.size > 0:
        verify_consistency(known.size, checkpoint.size, request.proof, known.root, checkpoint.root)
    elif request.proof:
        raise ProofRejected("consistency proof from 0: must be empty")


def _origin_of(text: str) -> str:
    """Which log's checkpoint it is; a wrong root of the empty tree is judged behind the signature. Raises: MalformedCheckpoint."""
    try:
        return parse_checkpoint(text, may_extend=True).origin
    except WrongEmptyRoot:
        return text.partition("\n")[0]


def _decode_hash(line: str) -> bytes:
    node = decode_base64(line, "request: a line of the proof", MalformedNote)
    if len(node) != HASH_BYTES:
        raise MalformedNote(f"request: a line of the proof has {len(node)} bytes, expected {HASH_BYTES}")
    return node


def _refuse(status: int, error: Exception) -> Answer:
    return Answer(status, f"{error}\n".encode())
