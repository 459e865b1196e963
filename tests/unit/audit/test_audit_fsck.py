"""What verification finds: every kind of tampering and damage, each named with its place."""

import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from audit.append import LogWriter
from audit.checkpoint import Checkpoint
from audit.errors import AuditRejected, EntryNotFound, LogCorrupted, SignatureRejected
from audit.fsck import verify_log
from audit.merkle import leaf_hash, root_of
from audit.note import VerifierKey
from audit.reader import LogReader
from audit.tiles import encode_bundle
from tests.support.controls import control
from tests.unit.audit.conftest import ORIGIN, make_record

SIZE = 600
BEHIND = 7


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, VerifierKey, bytes]:
    """A log of 600 published and 7 unsigned records; its key; its checkpoint at 300."""
    home = tmp_path_factory.mktemp("original")
    writer = LogWriter(home / "log", home / "log.key", origin=ORIGIN)
    early = b""
    for size in (300, SIZE):
        while writer.size < size:
            writer.append([make_record(writer.size + i) for i in range(50)])
            writer.commit()
        writer.publish()
        early = early or (home / "log" / "checkpoint").read_bytes()
    writer.append([make_record(SIZE + i) for i in range(BEHIND)])
    writer.commit()
    writer.close()
    return home, writer.key, early


@pytest.fixture
def log(original: tuple[Path, VerifierKey, bytes], tmp_path: Path) -> Path:
    """A copy of it that the test may damage."""
    return shutil.copytree(original[0] / "log", tmp_path / "log")


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 4
    path.write_bytes(data)


def entries(first: int, end: int) -> list[bytes]:
    return [make_record(index) for index in range(first, end)]


def test_a_whole_log_is_consistent(log: Path, original: tuple[Path, VerifierKey, bytes]) -> None:
    """Everything is counted, and the earlier checkpoint is a prefix."""
    _, key, early = original
    verified = verify_log(log, key, early)
    assert (verified.checkpoint.size, verified.num_unsigned, verified.torn_bytes) == (SIZE, BEHIND, 0)
    assert verified.since is not None
    assert verified.since.size == 300
    assert verified.num_files == len([path for path in (log / "tile").rglob("*") if path.is_file()])
    assert (verified.has_state, verified.is_live) == (True, False)


@pytest.mark.parametrize(("since", "cosigned"), [(9, 16), (16, 9), (9, 9), (255, 256), (256, 255)])
def test_earlier_trees_that_end_within_one_bundle_are_prefixes(tmp_path: Path, since: int, cosigned: int) -> None:
    """Whichever is the larger, and at the bundle's end."""
    writer = LogWriter(tmp_path / "log", tmp_path / "log.key", origin=ORIGIN)
    notes = {}
    for size in sorted({since, cosigned, 300}):
        writer.append([make_record(index) for index in range(writer.size, size)])
        writer.commit()
        writer.publish()
        notes[size] = (tmp_path / "log" / "checkpoint").read_bytes()
    writer.close()
    verified = verify_log(tmp_path / "log", writer.key, notes[since], cosigned=notes[cosigned])
    assert verified.since is not None
    assert verified.cosigned is not None
    assert (verified.since.size, verified.cosigned.size) == (since, cosigned)


def test_a_mirror_without_private_state_is_verified(log: Path, original: tuple[Path, VerifierKey, bytes]) -> None:
    """Whoever copies only what is published verifies that."""
    shutil.rmtree(log / ".state")
    verified = verify_log(log, original[1])
    assert (verified.checkpoint.size, verified.num_unsigned, verified.has_state) == (SIZE, 0, False)


def test_progress_is_told(log: Path, original: tuple[Path, VerifierKey, bytes]) -> None:
    """After every bundle, up to the end."""
    seen: list[tuple[int, int]] = []
    verify_log(log, original[1], None, lambda done, total: seen.append((done, total)))
    assert seen == [(256, SIZE), (512, SIZE), (600, SIZE)]


def swap_entries(log: Path) -> None:
    changed = entries(0, 256)
    changed[3], changed[4] = changed[4], changed[3]
    (log / "tile/entries/000").write_bytes(encode_bundle(changed))


def swap_bundles(log: Path) -> None:
    one, other = log / "tile/entries/000", log / "tile/entries/001"
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def remove_a_record(log: Path) -> None:
    (log / "tile/entries/001").write_bytes(encode_bundle(entries(256, 400) + entries(401, 513)))


def rewrite_a_record_with_its_tile(log: Path) -> None:
    forged = make_record(300, "forged")
    changed = entries(256, 512)
    changed[44] = forged
    (log / "tile/entries/001").write_bytes(encode_bundle(changed))
    tile = log / "tile/0/001"
    data = tile.read_bytes()
    tile.write_bytes(data[: 44 * 32] + leaf_hash(forged) + data[45 * 32 :])


def change_the_origin(log: Path) -> None:
    signed = (log / ".state/signed").read_text()
    (log / ".state/signed").write_text(signed.replace(ORIGIN, "log.example/other"))


def damage_a_committed_batch(log: Path) -> None:
    segment = next((log / ".state/wal").iterdir())
    flip(segment, 28 + 28 + 10)


def rewrite_a_record_of_the_wal(log: Path) -> None:
    import zlib

    segment = next((log / ".state/wal").iterdir())
    data = segment.read_bytes()
    payload = encode_bundle([make_record(i, "forged" if i == 3 else "") for i in range(50)])
    old = encode_bundle(entries(0, 50))
    start = 28 + 28
    head = struct.pack(">4sQIII", b"\xffCB\xfe", 0, 50, len(payload), zlib.crc32(payload))
    segment.write_bytes(data[:28] + head + struct.pack(">I", zlib.crc32(head)) + payload + data[start + len(old) :])


def put_the_signed_state_back(log: Path) -> None:
    root = root_of([leaf_hash(entry) for entry in entries(0, 300)])
    (log / ".state/signed").write_text(Checkpoint(ORIGIN, 300, root).encode())


def remove_the_segments(log: Path) -> None:
    for segment in (log / ".state/wal").iterdir():
        segment.unlink()


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped bit in a bundle": (lambda log: flip(log / "tile/entries/001", 700), r"tile/entries/001.*entry 27\d does not hash"),
    "flipped bit in a length": (lambda log: flip(log / "tile/entries/001", 0), r"tile/entries/001"),
    "flipped bit in a full tile": (lambda log: flip(log / "tile/0/000", 33), r"entry 1 does not hash to what tile/0/000"),
    "flipped bit in a partial tile": (lambda log: flip(log / "tile/0/002.p/88", 5 * 32), r"entry 517 does not hash"),
    "flipped bit in a tile above": (lambda log: flip(log / "tile/1/000.p/2", 40), r"tile/1/000\.p/2: does not hold the hashes"),
    "flipped bit in an older partial tile": (lambda log: flip(log / "tile/1/000.p/1", 3), r"tile/1/000\.p/1: does not hold what"),
    "truncated tile": (lambda log: (log / "tile/0/001").write_bytes(b"x" * 8191), r"tile/0/001: has 8191 bytes"),
    "truncated bundle": (
        lambda log: (log / "tile/entries/001").write_bytes((log / "tile/entries/001").read_bytes()[:-1]),
        r"tile/entries/001: ends within entry 255",
    ),
    "empty bundle": (lambda log: (log / "tile/entries/000").write_bytes(b""), r"tile/entries/000: has 0 entries"),
    "missing bundle": (lambda log: (log / "tile/entries/001").unlink(), r"tile/entries/001: is missing"),
    "missing tile": (lambda log: (log / "tile/0/000").unlink(), r"tile/0/000: is missing"),
    "missing partial tile": (lambda log: shutil.rmtree(log / "tile/0/002.p"), r"tile/0/002\.p/88: is missing"),
    "reordered entries": (swap_entries, r"entry 3 does not hash"),
    "reordered bundles": (swap_bundles, r"tile/entries/000: entry 0 does not hash"),
    "removed record": (remove_a_record, r"entry 400 does not hash"),
    "rewritten record and tile": (rewrite_a_record_with_its_tile, r"tile/1/000\.p/2: does not hold the hashes"),
    "stray tile beyond the log": (
        lambda log: (log / "tile/0/003").write_bytes(bytes(8192)),
        r"tile/0/003: holds more than the 607 entries",
    ),
    "stray file": (lambda log: (log / "tile/0/backup").write_bytes(b""), r"'tile/0/backup' is not"),
    "wider partial tile than records": (
        lambda log: (log / "tile/0/002.p/200").write_bytes(bytes(200 * 32)),
        r"002\.p/200: holds more",
    ),
    "partial tile of unsigned records that is wrong": (
        lambda log: (log / "tile/0/002.p/90").write_bytes(bytes(90 * 32)),
        r"002\.p/90: does not hold what",
    ),
    "partial bundle of unsigned records that is wrong": (
        lambda log: (log / "tile/entries/002.p/90").write_bytes(encode_bundle([*entries(512, 601), make_record(602)])),
        r"entries/002\.p/90: does not hold what",
    ),
    "checkpoint with another root": (lambda log: flip(log / "checkpoint", 40), r"checkpoint"),
    "no signed state": (lambda log: (log / ".state/signed").unlink(), r"\.state/signed: is missing"),
    "signed state of another log": (change_the_origin, r"log\.example/other"),
    "signed state that is rubbish": (lambda log: (log / ".state/signed").write_bytes(b"\xff"), r"\.state/signed"),
    "signed state of an earlier day": (put_the_signed_state_back, r"\.state/signed: of size 300, though a checkpoint of 600"),
    "no segment of the write-ahead log": (remove_the_segments, r"\.state/wal: does not hold the records from 600 on"),
    "no write-ahead log": (lambda log: shutil.rmtree(log / ".state/wal"), r"\.state/wal: is missing"),
    "damage in the write-ahead log": (damage_a_committed_batch, r"\.wal: damaged at byte 28"),
    "rewritten record in the write-ahead log": (rewrite_a_record_of_the_wal, r"record 3 is not entry 3"),
}  # fmt: skip


@control("3.3.8", "AU-9", "AU-9(3)", "SC-24", "SI-7", "SI-7(2)", "A.6.2.8")
@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found_and_named(log: Path, original: tuple[Path, VerifierKey, bytes], name: str) -> None:
    """Each kind is found, and the message says what and where."""
    damage, expected = DAMAGES[name]
    damage(log)
    with pytest.raises(AuditRejected, match=expected):
        verify_log(log, original[1])


def test_a_first_entry_that_is_cut_off_is_none(log: Path) -> None:
    """Who reads it alone, without the rest of its bundle, gets all of it."""
    bundle = log / "tile/entries/001"
    whole = bundle.read_bytes()
    assert LogReader(log).read_first(1, SIZE) == make_record(256)
    for length in (0, 1, 2, 1 + len(make_record(256))):
        bundle.write_bytes(whole[:length])
        with pytest.raises(LogCorrupted, match="ends within its first entry"):
            LogReader(log).read_first(1, SIZE)


def forge(home: Path, stolen_key: Path, records: list[bytes]) -> None:
    """Make another log from nothing and sign it with a stolen key."""
    writer = LogWriter(home / "log", home / "log.key", origin=ORIGIN)
    writer.close()
    shutil.copy(stolen_key, home / "log.key")
    writer = LogWriter(home / "log", home / "log.key", origin=ORIGIN)
    writer.append(records)
    writer.commit()
    writer.publish()
    writer.close()


@control("3.3.8", "AU-9", "AU-9(3)")
def test_a_shorter_tree_signed_again_is_found_by_an_earlier_checkpoint(
    original: tuple[Path, VerifierKey, bytes], tmp_path: Path
) -> None:
    """Whoever has the key can make a consistent shorter log; only a checkpoint kept elsewhere shows it."""
    home, key, early = original
    forge(tmp_path, home / "log.key", entries(0, 200))
    assert verify_log(tmp_path / "log", key).checkpoint.size == 200
    with pytest.raises(LogCorrupted, match="records were taken away"):
        verify_log(tmp_path / "log", key, early)


@control("3.3.8", "AU-9", "AU-9(3)")
def test_a_rewritten_log_is_found_by_an_earlier_checkpoint(
    original: tuple[Path, VerifierKey, bytes], tmp_path: Path
) -> None:
    """One record changed, everything signed again with the stolen key: the early checkpoint has another root."""
    home, key, early = original
    forge(tmp_path, home / "log.key", [make_record(0, "forged"), *entries(1, 700)])
    assert verify_log(tmp_path / "log", key).checkpoint.size == 700
    with pytest.raises(LogCorrupted, match="first 300 entries"):
        verify_log(tmp_path / "log", key, early)


def test_an_old_checkpoint_put_back_is_no_damage_but_the_rest_is_still_verified(
    log: Path, original: tuple[Path, VerifierKey, bytes]
) -> None:
    """As after a crash between signing and publishing: the last signed tree must be there in full."""
    _, key, early = original
    (log / "checkpoint").write_bytes(early)
    verified = verify_log(log, key)
    assert (verified.checkpoint.size, verified.num_unsigned) == (300, SIZE + BEHIND - 300)
    (log / "tile/entries/002.p/88").unlink()
    with pytest.raises(LogCorrupted, match=r"entries/002\.p/88: is missing"):
        verify_log(log, key)


@pytest.fixture
def early_copy(log: Path, original: tuple[Path, VerifierKey, bytes], tmp_path: Path) -> Path:
    """As the documents say: `checkpoint` first, then `tile`; records came in between, and one more tile became full."""
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "checkpoint").write_bytes(original[2])
    return Path(shutil.copytree(log / "tile", copy / "tile")).parent


def test_a_copy_taken_while_the_log_was_written_to_is_verified(
    early_copy: Path, original: tuple[Path, VerifierKey, bytes]
) -> None:
    """What is newer than its checkpoint is counted, and must continue what the checkpoint covers."""
    verified = verify_log(early_copy, original[1])
    assert (verified.checkpoint.size, verified.has_state) == (300, False)
    newer = ["0/001", "0/002.p/88", "1/000.p/2", "entries/001", "entries/002.p/88"]
    assert verified.num_newer == len(newer)
    assert all((early_copy / "tile" / name).exists() for name in newer)


@pytest.mark.parametrize("name", ["0/001", "entries/001", "1/000.p/2"])
def test_a_newer_tile_that_is_of_another_history_is_found(
    early_copy: Path, original: tuple[Path, VerifierKey, bytes], name: str
) -> None:
    """A copy is no excuse: what the checkpoint covers is the same in it."""
    flip(early_copy / "tile" / name, 9)
    with pytest.raises(LogCorrupted, match=name):
        verify_log(early_copy, original[1])


@pytest.mark.parametrize("name", ["checkpoint", "tile/0/001", "tile/entries/001", "tile/0/000.p/5", ".state/signed"])
def test_a_pipe_in_the_place_of_a_file_is_found(
    log: Path, original: tuple[Path, VerifierKey, bytes], name: str
) -> None:
    """Whoever reads it waits for ever."""
    path = log / name
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    os.mkfifo(path)
    with pytest.raises((LogCorrupted, OSError), match="no regular file"):
        verify_log(log, original[1])


def test_an_entry_that_is_not_canonical_is_found(tmp_path: Path) -> None:
    """Even when it was signed: the form is part of what is promised."""
    writer = LogWriter(tmp_path / "log", tmp_path / "log.key", origin=ORIGIN)
    writer.append([make_record(0), b'{"metadata": {"sequence": 1}}'])
    writer.commit()
    writer.publish()
    writer.close()
    with pytest.raises(LogCorrupted, match=r"entry 1: .*canonical"):
        verify_log(tmp_path / "log", writer.key)


def test_an_entry_that_says_another_index_is_found(tmp_path: Path) -> None:
    """The index stands in the record as well as in the tree."""
    writer = LogWriter(tmp_path / "log", tmp_path / "log.key", origin=ORIGIN)
    writer.append([make_record(0), make_record(2)])
    writer.commit()
    writer.publish()
    writer.close()
    with pytest.raises(LogCorrupted, match="entry 1 says that it is entry 2"):
        verify_log(tmp_path / "log", writer.key)


def test_another_key_verifies_nothing(log: Path, tmp_path: Path) -> None:
    """The key decides what log it is."""
    other = LogWriter(tmp_path / "other", tmp_path / "other.key", origin=ORIGIN)
    other.close()
    with pytest.raises(SignatureRejected, match="checkpoint"):
        verify_log(log, other.key)


def test_a_log_without_a_checkpoint_is_told(tmp_path: Path) -> None:
    """There is nothing to verify yet."""
    writer = LogWriter(tmp_path / "log", tmp_path / "log.key", origin=ORIGIN)
    writer.close()
    with pytest.raises(EntryNotFound, match="no checkpoint"):
        verify_log(tmp_path / "log", writer.key)


def test_a_live_log_is_verified(tmp_path: Path) -> None:
    """While a writer has it, with records and tiles newer than the checkpoint."""
    writer = LogWriter(tmp_path / "log", tmp_path / "log.key", origin=ORIGIN, segment_bytes=1)
    for index in range(0, 900, 100):
        writer.append([make_record(index + i) for i in range(100)])
        writer.commit()
        writer.publish()
        verified = verify_log(tmp_path / "log", writer.key)
        assert verified.is_live
        assert verified.checkpoint.size == index + 100
    early = (tmp_path / "log" / "checkpoint").read_bytes()
    writer.append([make_record(900 + i) for i in range(200)])
    writer.commit()
    writer.publish()
    (tmp_path / "log" / "checkpoint").write_bytes(early)  # As if it had been read before the publication.
    assert verify_log(tmp_path / "log", writer.key).checkpoint.size == 900
    writer.close()
