"""A witness by the C2SP protocol, status by status; and that a log which goes back or forks gets no cosignature."""

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from audit.canonical_text import encode_base64
from audit.checkpoint import Checkpoint, parse_checkpoint
from audit.cosignature import Cosigner, verify_cosignatures
from audit.courier import COSIGNED, add_cosignatures, ask_witness, load_cosigned, merge_cosigned
from audit.errors import (
    AuditRejected,
    EntryNotFound,
    LogInUse,
    MalformedNote,
    NotDurable,
    SignatureRejected,
    StateMismatch,
)
from audit.frontier import Frontier
from audit.merkle import EMPTY_ROOT, consistency_proof, leaf_hash, root_of
from audit.note import MAX_NOTE_BYTES, NoteSigner, SignedNote, VerifierKey, encode_note, encode_signature, parse_note
from audit.reader import LogReader
from audit.signing_key import open_cosigners
from audit.storage import Disk
from audit.witness import MAX_REQUEST_BYTES, SIZE, Answer, Witness, encode_request, parse_request
from tests.support.controls import control
from tests.unit.audit.conftest import OpenLog, make_record

ORIGIN = "log.example/witnessed"
LEAVES = [leaf_hash(b"%d" % i) for i in range(40)]
FORK = [*LEAVES[:10], *(leaf_hash(b"other %d" % i) for i in range(30))]
NOW = 1_795_411_388


class FakeLog:
    """Signs checkpoints of whatever leaves it is given."""

    def __init__(self, seed: int = 1, origin: str = ORIGIN) -> None:
        self.signer = NoteSigner(origin, Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32))
        self.key: VerifierKey = self.signer.key

    def note(self, size: int, leaves: list[bytes] = LEAVES) -> bytes:
        root = root_of(leaves[:size]) if size else EMPTY_ROOT
        return self.signer.sign(Checkpoint(self.key.name, size, root).encode())

    def request(self, old: int, size: int, leaves: list[bytes] = LEAVES) -> bytes:
        proof = consistency_proof(old, size, lambda a, b: root_of(leaves[a:b])) if 0 < old < size else []
        return encode_request(old, proof, self.note(size, leaves))


LOG = FakeLog()


@pytest.fixture
def open_witness(tmp_path: Path) -> Callable[..., Witness]:
    def open_(disk: Disk | None = None, logs: list[VerifierKey] | None = None) -> Witness:
        cosigners = open_cosigners(tmp_path / "witness", "w.example/1", with_mldsa=True)
        return Witness(tmp_path / "witness", cosigners, logs or [LOG.key], lambda: NOW, disk)

    return open_


@pytest.fixture
def witness(open_witness: Callable[..., Witness]) -> Witness:
    return open_witness()


def test_a_growing_log_is_cosigned_by_every_key(witness: Witness) -> None:
    """From nothing, on to a larger tree, and the same tree again."""
    keys = [cosigner.key for cosigner in witness._cosigners]
    for old, size in ((0, 5), (5, 23), (23, 23), (23, 40)):
        answer = witness.add_checkpoint(LOG.request(old, size))
        assert answer.status == 200, answer.body
        note = LOG.note(size)
        text = parse_note(note).text
        cosigned = f"{text}\n".encode() + answer.body
        parsed = parse_note(cosigned)
        assert [s.key_id for s in parsed.signatures] == [key.key_id for key in keys]
        assert verify_cosignatures(cosigned, keys) == {"w.example/1": NOW}


def test_extension_lines_of_other_logs_are_cosigned_as_they_are(witness: Witness) -> None:
    """The Ed25519 cosignature is over them too (C2SP tlog-cosignature); the history is that of the first three lines."""
    ed25519, mldsa = (cosigner.key for cosigner in witness._cosigners)
    text = f"{Checkpoint(ORIGIN, 5, root_of(LEAVES[:5])).encode()}an extension\n"
    answer = witness.add_checkpoint(encode_request(0, [], LOG.signer.sign(text)))
    assert answer.status == 200, answer.body
    lines = parse_note(f"{text}\n".encode() + answer.body).signatures
    message = f"cosignature/v1\ntime {NOW}\n{text}".encode()
    Ed25519PublicKey.from_public_bytes(ed25519.public_key).verify(lines[0].value[8:], message)
    mldsa.verify(text, lines[1])
    assert witness.latest(hashlib.sha256(ORIGIN.encode()).hexdigest()) is not None
    assert witness.add_checkpoint(LOG.request(5, 23)).status == 200
    assert witness.add_checkpoint(LOG.request(23, 30, FORK)).status == 422


def test_what_is_refused_and_how(witness: Witness) -> None:
    """Status by status, as the specification has them."""
    assert witness.add_checkpoint(LOG.request(0, 20)).status == 200
    note = LOG.note(25)
    stranger, other_key = FakeLog(2, "log.example/other"), FakeLog(3)
    cases = [
        (404, stranger.request(0, 5)),
        (403, other_key.request(20, 25)),
        (403, LOG.request(20, 25)[:-10] + b"AAAAAAA==\n"),
        (400, encode_request(26, [], note)),
        (400, b"old 020\n\n" + note),
        (400, b"old 20\nnot base64\n\n" + note),
        (400, b"old 20\n" + encode_base64(bytes(31)).encode() + b"\n\n" + note),
        (400, b"old 20\n\n" + note + b"x" * MAX_REQUEST_BYTES),
        (400, b"old 20\n" + note),
        (400, b"old 20\n\n" + b"rubbish"),
        (400, b"old 20\n" + b"".join(b"A" * 43 + b"=\n" for _ in range(64)) + b"\n" + note),
        (409, LOG.request(0, 25)),
        (409, LOG.request(19, 25)),
        (422, encode_request(20, [], note)),
        (422, encode_request(20, [bytes(32)] * 3, note)),
        (422, LOG.request(20, 30, FORK)),
        (422, encode_request(20, [], LOG.note(20, FORK))),
        (422, encode_request(20, [bytes(32)], LOG.note(20))),
    ]
    for status, body in cases:
        answer = witness.add_checkpoint(body)
        assert answer.status == status, (status, answer)
        if status == 409:
            assert (answer.body, answer.content_type) == (b"20\n", SIZE)
    assert witness.add_checkpoint(LOG.request(20, 25)).status == 200, "none of these changed what it remembers"


def test_a_proof_from_nothing_must_be_empty_and_an_empty_tree_has_its_root(witness: Witness) -> None:
    """There is nothing to prove; and no other root of nothing."""
    assert witness.add_checkpoint(encode_request(0, [bytes(32)], LOG.note(5))).status == 422
    wrong = LOG.signer.sign(f"{ORIGIN}\n0\n{'A' * 43}=\n")
    assert witness.add_checkpoint(encode_request(0, [], wrong)).status == 422
    assert witness.add_checkpoint(LOG.request(0, 0)).status == 200


@control("3.3.8", "AU-9", "AU-9(3)")
def test_a_log_that_goes_back_is_not_cosigned(witness: Witness) -> None:
    """Neither an older tree nor a shorter one that was signed anew."""
    witness.add_checkpoint(LOG.request(0, 30))
    assert witness.add_checkpoint(LOG.request(0, 20)).status == 409
    assert witness.add_checkpoint(encode_request(30, [], LOG.note(20))).status == 400


def test_what_it_remembers_survives_and_is_shown(open_witness: Callable[..., Witness]) -> None:
    """A new life knows the last tree; anybody may read it, with the log's and the witness's signatures."""
    witness = open_witness()
    witness.add_checkpoint(LOG.request(0, 20))
    witness.close()
    again = open_witness()
    assert again.add_checkpoint(LOG.request(0, 25)).body == b"20\n"
    latest = again.latest(hashlib.sha256(ORIGIN.encode()).hexdigest())
    assert latest is not None
    assert parse_checkpoint(parse_note(latest).text).size == 20
    assert [s.name for s in parse_note(latest).signatures] == [ORIGIN, "w.example/1", "w.example/1"]
    assert again.latest("00" * 32) is None


def test_nothing_is_cosigned_that_could_not_be_remembered(open_witness: Callable[..., Witness]) -> None:
    """The state comes first; a full disk is an error, and the tree before stands."""

    class FullDisk(Disk):
        is_full = False

        def write_file(self, path: Path, data: bytes, temporary: Path) -> None:
            if self.is_full:
                raise NotDurable(f"{path}: No space left on device")
            super().write_file(path, data, temporary)

    disk = FullDisk()
    witness = open_witness(disk)
    witness.add_checkpoint(LOG.request(0, 20))
    disk.is_full = True
    with pytest.raises(NotDurable):
        witness.add_checkpoint(LOG.request(20, 25))
    disk.is_full = False
    assert witness.add_checkpoint(LOG.request(0, 25)).body == b"20\n"


def test_damaged_state_cosigns_nothing(witness: Witness, tmp_path: Path) -> None:
    """Without its memory a witness must not begin anew: that would be the rollback."""
    witness.add_checkpoint(LOG.request(0, 20))
    (path,) = (tmp_path / "witness").glob("*.checkpoint")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(StateMismatch):
        witness.add_checkpoint(LOG.request(0, 25))


def test_the_memory_of_another_log_cosigns_nothing(open_witness: Callable[..., Witness], tmp_path: Path) -> None:
    """Two files of a witness that were exchanged: what it remembers of one log says nothing of another."""
    other = FakeLog(2, "log.example/other")
    witness = open_witness(logs=[LOG.key, other.key])
    for one, size in ((LOG, 20), (other, 10)):
        assert witness.add_checkpoint(one.request(0, size)).status == 200
    first, second = (tmp_path / "witness").glob("*.checkpoint")
    held = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(held)
    for one, size in ((LOG, 10), (other, 20)):
        with pytest.raises(StateMismatch, match="is of the log"):
            witness.add_checkpoint(one.request(size, 25))


def test_requests_at_the_same_time_never_roll_back(witness: Witness) -> None:
    """The race that the specification spells out: of many requests from the same size, one is taken."""
    witness.add_checkpoint(LOG.request(0, 10))
    answers: list[Answer] = []
    threads = [
        threading.Thread(target=lambda size=size: answers.append(witness.add_checkpoint(LOG.request(10, size))))
        for size in range(11, 40)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status for answer in answers) == [200, *[409] * 28]


def test_two_witnesses_do_not_share_a_folder(witness: Witness, open_witness: Callable[..., Witness]) -> None:
    """Each would cosign what the other refused."""
    with pytest.raises(LogInUse):
        open_witness()


@given(st.binary(max_size=300))
def test_nothing_but_the_family_escapes(data: bytes) -> None:
    """Rubbish is refused by our errors."""
    for one in (data, b"old 5\n" + data, b"old 5\n\n" + data):
        try:
            request = parse_request(one)
        except AuditRejected:
            continue
        assert encode_request(request.old_size, request.proof, request.note) == one


def test_the_frontier_and_the_fake_log_agree() -> None:
    """The roots of these tests are those of the product."""
    tree = Frontier()
    for leaf in LEAVES:
        tree.append(leaf)
    assert tree.root() == root_of(LEAVES)


def test_a_real_log_is_cosigned_by_a_courier(
    open_log: OpenLog, open_witness: Callable[..., Witness], tmp_path: Path
) -> None:
    """Growing, with a wrong idea of what the witness remembers, and by a second witness for the same tree."""
    writer = open_log()
    witness = open_witness(logs=[writer.key])
    key = witness._cosigners[0].key
    for size, guess in ((300, 0), (600, 7), (700, 600)):
        writer.append([make_record(i) for i in range(writer.next_index, size)])
        writer.commit()
        writer.publish()
        cosigned = ask_witness(LogReader(tmp_path / "log"), writer.key, key, witness.add_checkpoint, guess)
        assert merge_cosigned(tmp_path, cosigned) == cosigned == load_cosigned(tmp_path)
        assert verify_cosignatures(cosigned, [key]) == {key.name: NOW}
    other = Cosigner("w.example/other", Ed25519PrivateKey.generate())
    second = add_cosignatures(LogReader(tmp_path / "log").checkpoint_note(), _lines(other, cosigned), [other.key])
    assert set(verify_cosignatures(merge_cosigned(tmp_path, second), [key, other.key])) == {key.name, other.key.name}


def _lines(cosigner: Cosigner, note: bytes) -> bytes:
    return encode_signature(cosigner.cosign(parse_note(note).text, NOW)).encode()


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, b"rubbish"),
        Answer(200, b""),
        Answer(200, b"\xff\xfe"),
        Answer(409, b"rubbish"),
        Answer(409, b"\xff"),
        Answer(409, b"99999\n"),
        Answer(500, b"\xff" * 500),
        Answer(200, "— w.example/stranger AAAAAAAAAAAAAAAA\n".encode()),
    ],
)
def test_a_witness_that_answers_with_rubbish_gives_no_cosignature(
    open_log: OpenLog, tmp_path: Path, answer: Answer
) -> None:
    """It is refused by our errors, and what was cosigned before stands."""
    writer = open_log()
    writer.append([make_record(0)])
    writer.commit()
    writer.publish()
    key = Cosigner("w.example/1", Ed25519PrivateKey.generate()).key
    with pytest.raises((MalformedNote, SignatureRejected)):
        ask_witness(LogReader(tmp_path / "log"), writer.key, key, lambda _body: answer, 0)
    with pytest.raises(EntryNotFound):
        load_cosigned(tmp_path)


def test_a_word_on_another_tree_is_not_taken_for_one_on_this(open_log: OpenLog, tmp_path: Path) -> None:
    """Of a known witness, by its name and key: it signed another checkpoint. Nor is one taken that comes with a refusal."""
    writer = open_log()
    writer.append([make_record(0)])
    writer.commit()
    writer.publish()
    reader, cosigner = LogReader(tmp_path / "log"), Cosigner("w.example/1", Ed25519PrivateKey.generate())
    other, own = (_lines(cosigner, note) for note in (LOG.note(20), reader.checkpoint_note()))
    with pytest.raises(SignatureRejected):
        ask_witness(reader, writer.key, cosigner.key, lambda _body: Answer(200, other), 0)
    with pytest.raises(MalformedNote, match=r"w\.example/1 refused with 403"):
        ask_witness(reader, writer.key, cosigner.key, lambda _body: Answer(403, own), 0)
    with pytest.raises(MalformedNote, match="at most"):
        ask_witness(reader, writer.key, cosigner.key, lambda _body: Answer(200, own + b"x" * MAX_NOTE_BYTES), 0)


def test_a_witness_that_has_this_very_tree_cosigns_it_again(
    open_log: OpenLog, open_witness: Callable[..., Witness], tmp_path: Path
) -> None:
    """Its word has a new time; without a proof, as there is nothing between."""
    writer = open_log()
    witness = open_witness(logs=[writer.key])
    writer.append([make_record(0)])
    writer.commit()
    writer.publish()
    reader, key = LogReader(tmp_path / "log"), witness._cosigners[0].key
    for known in (0, 1):
        cosigned = ask_witness(reader, writer.key, key, witness.add_checkpoint, known)
        assert verify_cosignatures(cosigned, [key]) == {key.name: NOW}


def test_a_witness_that_remembers_more_than_the_log_has_is_told_so(open_log: OpenLog, tmp_path: Path) -> None:
    """The log went back: that is no rubbish, and the message says it."""
    writer = open_log()
    writer.append([make_record(0)])
    writer.commit()
    writer.publish()
    key = Cosigner("w.example/1", Ed25519PrivateKey.generate()).key
    with pytest.raises(MalformedNote, match="has cosigned 9 records, the log has 1: the log went back"):
        ask_witness(LogReader(tmp_path / "log"), writer.key, key, lambda _body: Answer(409, b"9\n"), 0)


def test_an_older_cosigned_tree_does_not_replace_a_larger_one(tmp_path: Path) -> None:
    """A courier who is late does no harm."""
    cosigner = Cosigner("w.example/1", Ed25519PrivateKey.generate())
    large, small = (
        add_cosignatures(LOG.note(size), _lines(cosigner, LOG.note(size)), [cosigner.key]) for size in (30, 20)
    )
    merge_cosigned(tmp_path, large)
    assert merge_cosigned(tmp_path, small) == large


def test_a_note_that_is_no_checkpoint_is_not_merged_with(tmp_path: Path) -> None:
    """Whoever can write beside the log can put a note of one line there: it is refused by our errors."""
    cosigner = Cosigner("w.example/1", Ed25519PrivateKey.generate())
    cosigned = add_cosignatures(LOG.note(20), _lines(cosigner, LOG.note(20)), [cosigner.key])
    (tmp_path / COSIGNED).write_bytes(encode_note(SignedNote(f"{ORIGIN}\n", parse_note(cosigned).signatures)))
    with pytest.raises(MalformedNote):
        merge_cosigned(tmp_path, cosigned)
