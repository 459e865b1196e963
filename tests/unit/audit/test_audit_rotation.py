"""Rotation of the log's key and of the log: what verifies before, between and after, and what is refused."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.append import LogWriter
from audit.checkpoint import Checkpoint, verify_checkpoint
from audit.cosignature import Cosigner, verify_cosignatures
from audit.courier import COSIGNED, add_cosignatures, load_cosigned, merge_cosigned
from audit.entry import encode_event, parse_canonical
from audit.errors import AuditRejected, KeyUnusable, LogInUse, RotationRefused, SignatureRejected
from audit.fsck import verify_log
from audit.note import NoteSigner, encode_signature, parse_note
from audit.reader import LogReader
from audit.rotation import (
    finish_key,
    load_predecessor,
    predecessor_event,
    rotate_log,
    stage_key,
    verify_continues,
)
from audit.signing_key import create_signer, load_signer, open_cosigners
from audit.storage import Disk
from tests.support.controls import control
from tests.unit.audit.conftest import ORIGIN, OpenLog, make_record


@pytest.fixture
def home(open_log: OpenLog, tmp_path: Path) -> Iterator[Path]:
    """A stopped log of ten records."""
    writer = open_log()
    append(writer, 10)
    writer.close()
    return tmp_path


def append(writer: LogWriter, count: int) -> None:
    writer.append([make_record(writer.next_index + i) for i in range(count)])
    writer.commit()
    writer.publish()


@control("3.13.10", "CM-3(6)", "SC-12")
def test_between_the_steps_either_key_verifies(home: Path, open_log: OpenLog) -> None:
    """From the next start on both sign; a verifier with one of them is satisfied."""
    old, new = stage_key(home / "log.key", ORIGIN)
    writer = open_log()
    append(writer, 5)
    writer.close()
    note = LogReader(home / "log").checkpoint_note()
    assert [signature.key_id for signature in parse_note(note).signatures] == [old.key_id, new.key_id]
    for key in (old, new):
        assert verify_log(home / "log", key).checkpoint.size == 15


def test_after_the_last_step_the_new_key_signs_alone(home: Path, open_log: OpenLog) -> None:
    """The log goes on; what both signed verifies with the old key still, what comes then does not."""
    old, new = stage_key(home / "log.key", ORIGIN)
    writer = open_log()
    append(writer, 5)
    writer.close()
    both = LogReader(home / "log").checkpoint_note()
    assert finish_key(home / "log", home / "log.key", ORIGIN) == (old, new)
    writer = open_log()
    assert (writer.key, writer.size) == (new, 15)
    append(writer, 5)
    writer.close()
    assert verify_log(home / "log", new, since=both).checkpoint.size == 20
    assert verify_checkpoint(both, [old], ORIGIN).size == 15
    with pytest.raises(SignatureRejected):
        verify_log(home / "log", old)
    assert (home / "log.vkey").read_text().strip() == new.encode()
    assert (home / f"log-retired-{old.key_id:08x}.vkey").read_text().strip() == old.encode()
    assert sorted(path.name for path in home.glob("*.key")) == ["log.key"]


def test_a_key_that_has_not_signed_does_not_take_the_first_place(home: Path, open_log: OpenLog) -> None:
    """Verifiers that know only it would see nothing they can verify."""
    with pytest.raises(KeyUnusable, match="there is no next key; `casemate audit rotate-key` makes it"):
        finish_key(home / "log", home / "log.key", ORIGIN)
    stage_key(home / "log.key", ORIGIN)
    with pytest.raises(RotationRefused, match="not signed by the next key"):
        finish_key(home / "log", home / "log.key", ORIGIN)
    with pytest.raises(KeyUnusable, match=r"is the next key already\. Give verifiers log-next\.vkey"):
        stage_key(home / "log.key", ORIGIN)
    assert load_signer(home / "log.key", ORIGIN)


@control("AU-9", "AU-10")
def test_the_witnesses_last_word_must_be_under_the_next_key(home: Path, open_log: OpenLog) -> None:
    """Else it says nothing to the next start, and an older state of the log would be written on."""

    def cosign() -> None:
        note = LogReader(home / "log").checkpoint_note()
        signature = witness.cosign(parse_note(note).text, 1_795_411_388)
        (home / COSIGNED).write_bytes(note + encode_signature(signature).encode())

    witness = Cosigner("witness.example/w", Ed25519PrivateKey.generate())
    cosign()
    stage_key(home / "log.key", ORIGIN)
    writer = open_log()
    append(writer, 5)
    writer.close()
    with pytest.raises(RotationRefused, match="cosign once more"):
        finish_key(home / "log", home / "log.key", ORIGIN)
    cosign()
    finish_key(home / "log", home / "log.key", ORIGIN)


def test_nothing_is_rotated_under_a_running_auditor(home: Path, open_log: OpenLog) -> None:
    """The lock says who writes."""
    stage_key(home / "log.key", ORIGIN)
    writer = open_log()
    append(writer, 1)
    for rotate in (
        lambda: finish_key(home / "log", home / "log.key", ORIGIN),
        lambda: rotate_log(home / "log", home / "log.key"),
    ):
        with pytest.raises(LogInUse):
            rotate()
    writer.close()


@control("AU-11", "SI-12", "Article 19(1)", "Article 26(6)")
def test_a_new_log_continues_the_old_one(home: Path, open_log: OpenLog) -> None:
    """Its first leaf names the other's end; the old folder stays verifiable."""
    predecessor, old = rotate_log(home / "log", home / "log.key")
    note = LogReader(old).checkpoint_note()
    assert verify_log(old, predecessor.key).checkpoint == predecessor.checkpoint
    assert not (home / "log.key").exists()
    assert load_predecessor(home / "log") == predecessor
    first = parse_canonical(encode_event(predecessor_event(predecessor, "log.example/second")))
    assert verify_continues(first, note) == predecessor
    writer = LogWriter(home / "log", home / "log.key", origin="log.example/second")
    assert (writer.size, writer.key == predecessor.key) == (0, False)
    writer.close()


def test_what_verifiers_of_the_old_log_need_goes_with_it(tmp_path: Path) -> None:
    """Its post-quantum public key and the witnesses' last word; the next log has keys of its own, and no word yet."""
    writer = LogWriter(tmp_path / "log", tmp_path / "log.key", origin=ORIGIN, with_mldsa=True)
    append(writer, 10)
    writer.publish()
    writer.close()
    mldsa = (tmp_path / "log-mldsa.vkey").read_text()
    (witness,) = open_cosigners(tmp_path / "w", "witness.example/w", with_mldsa=False)
    text = parse_note(writer.note).text
    merge_cosigned(
        tmp_path, add_cosignatures(writer.note, encode_signature(witness.cosign(text, 5)).encode(), [witness.key])
    )
    _, old = rotate_log(tmp_path / "log", tmp_path / "log.key")
    assert old.with_name(f"{old.name}-mldsa.vkey").read_text() == mldsa
    assert verify_cosignatures(old.with_suffix(".cosigned").read_bytes(), [witness.key]) == {"witness.example/w": 5}
    left = ("log.key", "log.vkey", "log-mldsa.key", "log-mldsa.vkey", COSIGNED)
    assert not any((tmp_path / name).exists() for name in left)
    writer = LogWriter(tmp_path / "log", tmp_path / "log.key", origin="log.example/second", with_mldsa=True)
    writer.close()
    assert (tmp_path / "log-mldsa.vkey").read_text().split("+", 2)[2] != mldsa.split("+", 2)[2]


def test_the_word_about_an_old_log_does_not_stand_before_the_next(tmp_path: Path) -> None:
    """Of one log the larger tree stays; of two, the one that is brought."""
    old, new = (
        NoteSigner(name, Ed25519PrivateKey.generate()).sign(Checkpoint(name, size, bytes(32)).encode())
        for name, size in (("log.example/first", 900), ("log.example/second", 3))
    )
    assert merge_cosigned(tmp_path, old) == old
    assert merge_cosigned(tmp_path, new) == new
    assert load_cosigned(tmp_path) == new


def test_private_keys_are_overwritten_where_they_lay(home: Path, open_log: OpenLog) -> None:
    """The first when the next takes its place; that, and one that waits, when the log is closed: an open file reads zeroes."""
    old_key, next_key = home / "log.key", home / "log-next.key"
    stage_key(old_key, ORIGIN)
    writer = open_log()
    append(writer, 1)
    writer.close()
    with old_key.open("rb") as kept:
        finish_key(home / "log", old_key, ORIGIN)
        assert not any(kept.read())
    stage_key(old_key, ORIGIN)
    with old_key.open("rb") as first, next_key.open("rb") as second:
        rotate_log(home / "log", old_key)
        assert not any(first.read() + second.read())
    assert not list(home.glob("*.key"))
    assert not next_key.with_suffix(".vkey").exists()


def test_a_log_behind_its_witnesses_word_is_not_closed(home: Path, tmp_path: Path) -> None:
    """Closed, nobody would ask them about it any more: it was cut, or put back."""
    signer = load_signer(home / "log.key", ORIGIN)
    longer = signer.sign(Checkpoint(ORIGIN, 20, bytes(32)).encode())
    cosigner = Cosigner("w.example/1", Ed25519PrivateKey.generate())
    line = encode_signature(cosigner.cosign(parse_note(longer).text, 1)).encode()
    merge_cosigned(home, add_cosignatures(longer, line, [cosigner.key]))
    with pytest.raises(AuditRejected, match="records were taken away"):
        rotate_log(home / "log", home / "log.key")
    assert (home / "log").is_dir()
    assert (home / "log.key").exists()


def test_an_interrupted_rotation_does_not_destroy_another_logs_key(home: Path) -> None:
    """Where the next log has begun meanwhile, the key that lies there is its own."""
    rotate_log(home / "log", home / "log.key")
    create_signer(home / "log.key", ORIGIN, Disk())
    with pytest.raises(RotationRefused, match="is of another log than the one that was closed"):
        rotate_log(home / "log", home / "log.key")
    assert load_signer(home / "log.key", ORIGIN)


def test_a_first_leaf_that_names_another_end_does_not_continue(home: Path) -> None:
    """Shorter, or of another log."""
    predecessor, old = rotate_log(home / "log", home / "log.key")
    note = LogReader(old).checkpoint_note()
    first = parse_canonical(encode_event(predecessor_event(predecessor, "log.example/second")))
    for name, value in (
        ("previous_size", 9),
        ("previous_root", "00"),
        ("previous_origin", "x"),
        ("previous_vkey", None),
        ("kind", "log_started"),
    ):
        own = first["unmapped"]["casemate"]
        changed = {**first, "unmapped": {"casemate": {**own, name: value}}}
        with pytest.raises(AuditRejected):
            verify_continues(changed, note)


def test_a_log_with_records_behind_its_checkpoint_is_not_closed(open_log: OpenLog, tmp_path: Path) -> None:
    """They would be in no signed tree."""
    writer = open_log()
    append(writer, 10)
    writer.append([make_record(10)])
    writer.commit()
    writer.close()
    with pytest.raises(RotationRefused, match="1 records are not under the checkpoint"):
        rotate_log(tmp_path / "log", tmp_path / "log.key")


def test_a_damaged_word_of_the_predecessor_is_refused(home: Path) -> None:
    """It is what the first leaf will say."""
    rotate_log(home / "log", home / "log.key")
    path = home / "predecessor"
    data = path.read_bytes()
    for broken in (b"", data[:-20], data.replace(b"\n10\n", b"\n11\n"), b"\xff" + data):
        path.write_bytes(broken)
        with pytest.raises(KeyUnusable, match="damaged"):
            load_predecessor(home / "log")
