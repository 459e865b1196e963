"""Cosigning: every so often all witnesses are asked about one checkpoint, and a quorum's word is kept beside the log.

For each round:

(1) The last signed checkpoint is taken; every witness that has an address is asked about that one, so that their words meet
    in one note.
(2) A witness that remembers another size than we thought (409) is asked once more, with the proof from there.
(3) Once as many as the quorum have cosigned, the note is kept, and each later word with it.
(4) A round that ended with fewer is told: to the log, at most once an hour however many there were, and as an alarm while it lasts.
    One in which the courier left is not judged: it is stopped before the auditor, and started anew where it crashed.

What a witness answers is untrusted: what cannot be parsed, or is not its signature, is logged and changes nothing. A witness
that remembers *more* than the log has, or says that its tree is not a prefix of ours, says that this log went back or forked.
That is an alarm and a record, not a stop: one witness could lie, and the records of this history are wanted in either case.

Source: C2SP tlog-witness, tlog-policy (quorum).
"""

from collections.abc import Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

from appliance.auditor.ledger import Clock
from appliance.auditor.peer import Peer, Send
from appliance.messages.witnessing import AskWitness, WitnessAnswered
from audit.append import LogWriter
from audit.checkpoint import Checkpoint
from audit.cosignature import CosignerKey
from audit.courier import add_cosignatures, merge_cosigned, parse_remembered_size
from audit.errors import AuditFault, AuditRejected
from audit.note import parse_note
from audit.witness import encode_request

MAX_SHOWN_CHARS = 200

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Witnessing:
    """How witnesses are asked: which, and whether a courier reaches each; how many must agree, how often, who writes it down.

    The executor keeps the note, beside the appending thread.
    """

    witnesses: Sequence[tuple[CosignerKey, bool]]
    quorum: int
    interval_s: float
    executor: Executor


@dataclass(frozen=True, slots=True)
class Dispute:
    """A witness says that this log is not the one it has cosigned."""

    witness: str
    detail: str


class RoundsWatch(Protocol):
    """Told how rounds end."""

    def round_ended(self, missing: Sequence[str]) -> None:
        """Which witnesses' words were missing for a quorum; none where it was reached."""
        ...

    def dispute(self, dispute: Dispute) -> None:
        """A witness denies the log's history."""
        ...


@dataclass(slots=True)
class _Asked:
    """What is known of one witness."""

    key: CosignerKey
    keys: Sequence[CosignerKey]
    """All that are configured under its name: a witness may answer with an Ed25519 and an ML-DSA-44 cosignature."""
    known_size: int = 0
    """What it remembers, as far as we know; it says if it is another."""
    correlation: int | None = None
    """Of the question that it has not answered."""
    may_retry: bool = False


class CosigningDesk:
    """Asks by a courier, while there is one."""

    def __init__(self, writer: LogWriter, witnessing: Witnessing, send: Send, clock: Clock, watch: RoundsWatch) -> None:
        self._writer = writer
        self._folder: Path = writer.folder.parent
        self._keys = [key for key, _ in witnessing.witnesses]
        self._asked = {
            number: _Asked(key, [other for other in self._keys if other.name == key.name])
            for number, (key, is_reached) in enumerate(witnessing.witnesses)
            if is_reached
        }
        self._quorum = witnessing.quorum
        self._interval_s = witnessing.interval_s
        self._executor = witnessing.executor
        self._send = send
        self._clock = clock
        self._watch = watch
        self._courier: Peer | None = None
        self._next_round_s = clock.monotonic_s()
        self._next_correlation = 0
        self._checkpoint = Checkpoint(writer.key.name, 0, b"")
        self._note = b""
        self._cosigned_by: set[str] = set()
        """Whose words this round's note has."""
        self._is_round_open = False
        self._is_courier_new = False
        self._keeping: Future[bytes] | None = None

    def courier_came(self, courier: Peer) -> None:
        """Ask through it from now on, at once."""
        self._courier = courier
        self._is_courier_new = True

    def courier_left(self, courier: Peer) -> None:
        """Nobody carries."""
        if self._courier is courier:
            self._courier = None
            self._is_round_open = False

    def look(self) -> None:
        """End a round and begin another, where it is time."""
        self._look_after_kept()
        now_s = self._clock.monotonic_s()
        is_time = now_s >= self._next_round_s
        if not (is_time or self._is_courier_new) or not self._writer.checkpoint.size or not self._asked:
            return
        if is_time:
            self._next_round_s = now_s + self._interval_s
            self._end_round()
        if self._courier is None:
            return
        self._is_courier_new = False
        self._cosigned_by.clear()
        self._checkpoint, self._note = self._writer.checkpoint, self._writer.note  # (1)
        for number, asked in self._asked.items():
            asked.may_retry = True
            self._ask(number, asked)

    def answered(self, courier: Peer, message: WitnessAnswered) -> None:
        """Take what a witness is said to have answered."""
        asked = self._asked.get(message.witness)
        if courier is not self._courier or asked is None or asked.correlation != message.correlation:
            return  # Late: another round has begun.
        asked.correlation = None
        try:
            self._take(message, asked)
        except AuditRejected as rejected:
            log.warning("witness_not_understood", witness=asked.key.name, reason=str(rejected)[:MAX_SHOWN_CHARS])

    def _take(self, message: WitnessAnswered, asked: _Asked) -> None:
        match message.status:
            case 200:
                self._keep(add_cosignatures(self._note, message.body, asked.keys))  # (3)
                self._cosigned_by.add(asked.key.name)
                asked.known_size = self._checkpoint.size
            case 409:
                self._follow(message, asked)
            case 422:
                detail = f"it has cosigned {asked.known_size} records, and these are not the beginning of this log"
                self._watch.dispute(Dispute(asked.key.name, detail))
            case status:
                reason = message.body[:MAX_SHOWN_CHARS].decode("ascii", "replace")
                log.warning("witness_did_not_cosign", witness=asked.key.name, status=status, reason=reason)

    def _follow(self, message: WitnessAnswered, asked: _Asked) -> None:
        """(2) The witness remembers another size."""
        size = parse_remembered_size(message.body)
        # A publication that was not taken in yet may lie in the folder, where others find it and take it to the witness.
        if size > self._writer.size:
            detail = f"it has cosigned {size} records, the log has {self._writer.size}"
            self._watch.dispute(Dispute(asked.key.name, detail))
            return
        asked.known_size = size
        if not asked.may_retry or size > self._checkpoint.size:
            log.info("witness_asked_later", witness=asked.key.name, size=size)
            return
        asked.may_retry = False
        self._ask(message.witness, asked)

    def _ask(self, number: int, asked: _Asked) -> None:
        assert self._courier is not None
        old_size = min(asked.known_size, self._checkpoint.size)
        try:
            proof = self._writer.prove_consistency(old_size, self._checkpoint.size)
        except AuditFault as fault:
            log.error("witness_not_asked", witness=asked.key.name, reason=str(fault))
            return
        self._next_correlation += 1
        asked.correlation = self._next_correlation
        body = encode_request(old_size, proof, self._note)
        self._send(self._courier, AskWitness(number, asked.correlation, body))

    def _end_round(self) -> None:
        """(4) Nothing is said where too few have an address: somebody carries by hand, and `witness_watch` looks at the age."""
        if self._is_round_open and len(self._asked) >= self._quorum:
            is_reached = len(self._cosigned_by) >= self._quorum
            names = (asked.key.name for asked in self._asked.values())
            self._watch.round_ended([] if is_reached else [name for name in names if name not in self._cosigned_by])
        self._is_round_open = True
        self._cosigned_by.clear()

    def _keep(self, cosigned: bytes) -> None:
        """Add a witness's word to the round's note; with a quorum it is kept."""
        self._note = cosigned
        known = {(key.name, key.key_id): key.name for key in self._keys}
        names = {known[s.name, s.key_id] for s in parse_note(cosigned).signatures if (s.name, s.key_id) in known}
        if len(names) >= self._quorum:
            self._keeping = self._executor.submit(merge_cosigned, self._folder, cosigned)

    def _look_after_kept(self) -> None:
        if self._keeping is None or not self._keeping.done():
            return
        keeping, self._keeping = self._keeping, None
        if (error := keeping.exception()) is not None:
            log.error("cosignatures_not_kept", reason=str(error))
