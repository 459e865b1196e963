"""Evidence packs: whole, signed, the same twice, and nothing of them can be changed unnoticed."""

import csv
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.append import LogWriter
from audit.checkpoint import Checkpoint, verify_checkpoint
from audit.cosignature import Cosigner
from audit.entry import encode_canonical, parse_sequence
from audit.errors import AuditRejected, ProofRejected, SignatureRejected
from audit.export import write_export
from audit.note import NoteSigner, SignedNote, VerifierKey, encode_note, parse_note
from audit.reader import LogReader
from audit.signing_key import load_signer
from compliance.again import load_earlier
from compliance.errors import ComplianceFault, PackRejected, PeriodRejected, ResultsRejected
from compliance.extracts import extract_edges
from compliance.manifest import PackedFile, encode_manifest, parse_manifest, signed_text
from compliance.pack import WrittenPack
from compliance.period import make_period, time_of
from compliance.verification import verify_pack
from tests.support.controls import control
from tests.support.evidence import (
    FIRST_MS,
    MONTH_MS,
    SIGNER,
    make_installation,
    make_results,
    order_pack,
    write_made_up_pack,
)
from tests.unit.compliance.conftest import NUM_RECORDS


@pytest.fixture
def pack(month: Path, made: WrittenPack, tmp_path: Path) -> Path:
    """A copy of the pack, to be changed."""
    shutil.copytree(month / "shared", tmp_path / "pack")
    return tmp_path / "pack"


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file with its content."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_pack_is_whole_and_verifies(pack: Path, made: WrittenPack, log_key: VerifierKey) -> None:
    """With two public keys and nothing else."""
    verified = verify_pack(pack, log_key, SIGNER.key)
    assert verified.digest == made.digest
    assert (verified.manifest.start, verified.manifest.end) == (0, NUM_RECORDS)
    assert verified.num_proven == len(list((pack / "log" / "proofs").iterdir())) > 20
    assert {"report.html", "report.pdf", "score.json", "objectives.csv", "oscal/assessment-results.json"} <= set(
        files_of(pack)
    )


def test_two_packs_of_the_same_facts_have_the_same_bytes(month: Path, made: WrittenPack, tmp_path: Path) -> None:
    """Every file, the signature too."""
    shutil.copytree(month / "log", tmp_path / "log")
    shutil.copy(month / "log.vkey", tmp_path)
    write_made_up_pack(order_pack(), tmp_path, "second")
    assert files_of(tmp_path / "second") == files_of(month / "shared")


def test_another_time_is_all_that_differs_in_facts(month: Path, made: WrittenPack, tmp_path: Path) -> None:
    """What is said about the installation and the log does not depend on when it was said."""
    shutil.copytree(month / "log", tmp_path / "log")
    shutil.copy(month / "log.vkey", tmp_path)
    write_made_up_pack(order_pack(made_at_ms=made.content.made_at_ms + 1000), tmp_path, "later")
    before, after = files_of(month / "shared"), files_of(tmp_path / "later")
    same = {name for name in before if before[name] == after.get(name)}
    assert {name for name in before if name not in same} == {
        "manifest.json",
        "manifest.sig",
        "report.html",
        "report.pdf",
        *(name for name in before if name.startswith("oscal/")),
    }


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


HARM: dict[str, Callable[[Path], object]] = {
    "one bit": flip,
    "one byte less": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "one byte more": lambda path: path.write_bytes(path.read_bytes() + b"\n"),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("harm", HARM)
def test_any_damage_to_any_file_is_found(pack: Path, log_key: VerifierKey, harm: str) -> None:
    """Each file of the pack in turn."""
    for name, data in files_of(pack).items():
        HARM[harm](pack / name)
        with pytest.raises((ComplianceFault, AuditRejected)):
            verify_pack(pack, log_key, SIGNER.key)
        (pack / name).write_bytes(data)
    verify_pack(pack, log_key, SIGNER.key)


def test_a_stranger_in_the_folder_is_found(pack: Path, log_key: VerifierKey) -> None:
    """A file, in whatever folder; a link in place of a file."""
    (pack / "log" / "more.txt").write_text("x")
    with pytest.raises(PackRejected, match=r"more\.txt: is not in the manifest"):
        verify_pack(pack, log_key, SIGNER.key)
    (pack / "log" / "more.txt").unlink()
    (pack / "poam.csv").rename(pack.parent / "poam.csv")
    (pack / "poam.csv").symlink_to(pack.parent / "poam.csv")
    with pytest.raises(PackRejected, match="is a link"):
        verify_pack(pack, log_key, SIGNER.key)
    (pack / "poam.csv").unlink()
    os.mkfifo(pack / "poam.csv")  # Opening it would wait for ever.
    with pytest.raises(PackRejected, match="no plain file"):
        verify_pack(pack, log_key, SIGNER.key)


def test_a_pack_that_somebody_else_signed_is_refused(pack: Path, log_key: VerifierKey) -> None:
    """Under the same name, even."""
    other = NoteSigner(SIGNER.key.name, Ed25519PrivateKey.generate())
    (pack / "manifest.sig").write_bytes(other.sign(signed_text("0" * 64)))
    with pytest.raises(SignatureRejected):
        verify_pack(pack, log_key, SIGNER.key)
    (pack / "manifest.sig").write_bytes(SIGNER.sign(signed_text("0" * 64)))
    with pytest.raises(PackRejected, match="another manifest"):
        verify_pack(pack, log_key, SIGNER.key)


def resign(pack: Path) -> None:
    """What whoever holds the pack's key can do: a manifest that fits what lies there."""
    manifest = parse_manifest((pack / "manifest.json").read_bytes())
    files = [
        PackedFile(len(data), name, hashlib.sha256(data).hexdigest())
        for name, data in sorted(files_of(pack).items())
        if not name.startswith("manifest.")
    ]
    data = encode_canonical(msgspec.to_builtins(manifest) | {"files": msgspec.to_builtins(files)})
    (pack / "manifest.json").write_bytes(data)
    (pack / "manifest.sig").write_bytes(SIGNER.sign(signed_text(hashlib.sha256(data).hexdigest())))


def shortened(pack: Path, *, start: int, end: int) -> None:
    """Another range for the same period, signed. Records and proofs beyond it are left out."""
    manifest = parse_manifest((pack / "manifest.json").read_bytes())
    for extract in (pack / "log" / "extracts").iterdir():
        entries = extract.read_bytes().splitlines()
        kept = [entry for entry in entries if start <= parse_sequence(entry) < end]
        extract.write_bytes(b"".join(entry + b"\n" for entry in kept))
        for entry in set(entries) - set(kept):
            (pack / "log" / "proofs" / f"{parse_sequence(entry)}.tlog-proof").unlink()
    (pack / "manifest.json").write_bytes(encode_manifest(msgspec.structs.replace(manifest, start=start, end=end)))
    resign(pack)


def test_whoever_signs_the_pack_cannot_make_records_up(pack: Path, log_key: VerifierKey) -> None:
    """A changed record, one without a proof, a proof without a record: found by the log's key alone."""
    resign(pack)
    verify_pack(pack, log_key, SIGNER.key)
    extract = pack / "log" / "extracts" / "client_created.jsonl"
    good = extract.read_bytes()
    extract.write_bytes(good.replace(b"os:operator", b"os:somebody"))
    resign(pack)
    with pytest.raises(PackRejected, match="client_created"):
        verify_pack(pack, log_key, SIGNER.key)
    extract.write_bytes(b"")
    resign(pack)
    with pytest.raises(PackRejected, match="proves no record"):
        verify_pack(pack, log_key, SIGNER.key)
    extract.write_bytes(good)
    next((pack / "log" / "proofs").iterdir()).unlink()
    resign(pack)
    with pytest.raises(PackRejected):
        verify_pack(pack, log_key, SIGNER.key)


@pytest.mark.parametrize(
    "other", [{"root": "00" * 32}, {"checkpoint_size": NUM_RECORDS + 1}, {"origin": "log.example/other"}]
)
def test_whoever_signs_the_pack_cannot_name_another_tree(
    pack: Path, log_key: VerifierKey, other: dict[str, Any]
) -> None:
    """Report, manifest and command tell what the checkpoint says that lies beside them."""
    manifest = parse_manifest((pack / "manifest.json").read_bytes())
    (pack / "manifest.json").write_bytes(encode_manifest(msgspec.structs.replace(manifest, **other)))
    resign(pack)
    with pytest.raises(PackRejected, match="names another tree than the checkpoint"):
        verify_pack(pack, log_key, SIGNER.key)


def test_records_are_proven_under_the_packs_own_tree(month: Path, pack: Path, log_key: VerifierKey) -> None:
    """A proof under an earlier checkpoint of the log holds, and does not say that this tree has the record."""
    index = parse_sequence((pack / "log" / "extracts" / "log_started.jsonl").read_bytes().splitlines()[0])
    reader = LogReader(month / "log")
    earlier = Checkpoint(log_key.name, 700, reader.root(700, NUM_RECORDS))
    note = load_signer(month / "log.key", log_key.name).sign(earlier.encode())
    proof = reader.prove(index, earlier, note, NUM_RECORDS)
    (pack / "log" / "proofs" / f"{index}.tlog-proof").write_bytes(proof)
    resign(pack)
    with pytest.raises(PackRejected, match=f"record {index} is proven for another place or tree"):
        verify_pack(pack, log_key, SIGNER.key)


def test_the_witnesses_word_is_carried_and_asked_for(
    month: Path, pack: Path, log_key: VerifierKey, tmp_path: Path
) -> None:
    """On a smaller tree that the pack's extends; a stranger's word, another tree, and none are refused."""
    witness, other = (Cosigner(f"witness.example/{name}", Ed25519PrivateKey.generate()) for name in ("w", "o"))
    with pytest.raises(PackRejected, match="holds no word of a witness"):
        verify_pack(pack, log_key, SIGNER.key, [witness.key])
    reader = LogReader(month / "log")
    signer = load_signer(month / "log.key", log_key.name)
    text = Checkpoint(log_key.name, 700, reader.root(700, NUM_RECORDS)).encode()
    note = parse_note(signer.sign(text))
    cosigned = encode_note(SignedNote(text, (*note.signatures, witness.cosign(text, 1_767_300_000))))
    shutil.copytree(month / "log", tmp_path / "log")
    shutil.copy(month / "log.vkey", tmp_path)
    write_made_up_pack(order_pack(installation=replace(make_installation(), cosigned=cosigned)), tmp_path, "witnessed")
    verified = verify_pack(tmp_path / "witnessed", log_key, SIGNER.key, [witness.key])
    assert (verified.num_witnessed, verified.witnessed_at) == (700, {"witness.example/w": 1_767_300_000})
    with pytest.raises(PackRejected, match="none of the witnesses given"):
        verify_pack(tmp_path / "witnessed", log_key, SIGNER.key, [other.key])
    forged = Checkpoint(log_key.name, 700, bytes(32)).encode()
    note = parse_note(signer.sign(forged))
    lie = encode_note(SignedNote(forged, (*note.signatures, witness.cosign(forged, 1_767_300_000))))
    (tmp_path / "witnessed" / "log" / "cosigned").write_bytes(lie)
    resign(tmp_path / "witnessed")
    with pytest.raises(ProofRejected):
        verify_pack(tmp_path / "witnessed", log_key, SIGNER.key, [witness.key])


@pytest.fixture
def growing(month: Path, tmp_path: Path) -> Path:
    """A copy of the log that can be written to, with its key."""
    shutil.copytree(month / "log", tmp_path / "log")
    for name in ("log.key", "log.vkey"):
        shutil.copy(month / name, tmp_path)
    return tmp_path


def append_one(home: Path, origin: str) -> bytes:
    """One more record, published; gives the checkpoint of before."""
    before = LogReader(home / "log").checkpoint_note()
    writer = LogWriter(home / "log", home / "log.key", origin=origin)
    writer.append([b'{"time":%d}' % (FIRST_MS + 2 * MONTH_MS)])
    writer.commit()
    writer.publish()
    writer.close()
    return before


def test_a_pack_can_be_made_again_after_the_log_went_on(growing: Path, log_key: VerifierKey) -> None:
    """Under the tree of before: the same bytes, all records in them too. Under the newest the bytes differ."""
    order = order_pack(with_records=True)
    write_made_up_pack(order, growing, "first")
    before = append_one(growing, log_key.name)
    again = replace(order, checkpoint=load_earlier(growing / "first").checkpoint)
    assert again.checkpoint == before
    write_made_up_pack(again, growing, "again")
    assert files_of(growing / "again") == files_of(growing / "first")
    assert verify_pack(growing / "again", log_key, SIGNER.key).num_exported == NUM_RECORDS
    write_made_up_pack(order, growing, "newest")
    assert files_of(growing / "newest")["log/checkpoint"] != before


def test_while_a_pack_is_made_the_log_may_go_on(
    growing: Path, log_key: VerifierKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its records are exported under the tree that it names, not under whichever is the newest by then."""

    def write_later(*arguments: Any, **named: Any) -> Any:
        append_one(growing, log_key.name)
        return write_export(*arguments, **named)

    monkeypatch.setattr("compliance.pack.write_export", write_later)
    write_made_up_pack(order_pack(with_records=True), growing)
    assert verify_pack(growing / "pack", log_key, SIGNER.key).num_exported == NUM_RECORDS


def test_records_of_a_pack_are_under_its_own_tree(growing: Path, log_key: VerifierKey) -> None:
    """An export of the same range under a later tree verifies by itself, and is not what the pack's checkpoint names."""
    write_made_up_pack(order_pack("eu-ai-act", with_records=True), growing)
    (export,) = (growing / "pack" / "log" / "records").iterdir()
    append_one(growing, log_key.name)
    shutil.rmtree(export)
    write_export(LogReader(growing / "log"), log_key, export, 0, NUM_RECORDS)
    resign(growing / "pack")
    with pytest.raises(PackRejected, match="does not follow record -1 of the tree"):
        verify_pack(growing / "pack", log_key, SIGNER.key)


def test_a_log_that_does_not_continue_the_tree_is_found(growing: Path, log_key: VerifierKey) -> None:
    """A tree that it never had, and one that is longer than what is left of it."""
    signer = load_signer(growing / "log.key", log_key.name)
    root = LogReader(growing / "log").root(NUM_RECORDS)
    for size, other in ((NUM_RECORDS, bytes(32)), (NUM_RECORDS + 1, root)):
        note = signer.sign(Checkpoint(log_key.name, size, other).encode())
        with pytest.raises(PackRejected, match="do not continue the signed tree"):
            write_made_up_pack(order_pack(checkpoint=note), growing)
    assert not (growing / "pack").exists()


def test_a_record_that_is_dated_out_of_the_period_by_hand_makes_no_pack(growing: Path) -> None:
    """Who can write into the log's folder has not its key: the first record of the period says another time, and is beside it."""
    index = 600
    entry = LogReader(growing / "log").read_entry(index, NUM_RECORDS)
    time_ms = time_of(entry)
    period = make_period(time_ms - time_ms % 1000, FIRST_MS + MONTH_MS)
    assert write_made_up_pack(order_pack(period=period), growing, "whole").manifest.start == index
    dated = f'"time":{time_ms}'.encode()
    (bundle,) = (path for path in (growing / "log" / "tile" / "entries").rglob("002*") if path.is_file())
    assert bundle.read_bytes().count(dated) == 1
    bundle.write_bytes(bundle.read_bytes().replace(dated, f'"time":{time_ms - 1000}'.encode()))
    with pytest.raises(ProofRejected):
        write_made_up_pack(order_pack(period=period), growing, "cut")
    assert not (growing / "cut").exists()


@pytest.mark.parametrize("ends", [(1, 0), (0, 1)])
def test_a_period_of_broken_seconds_makes_no_pack(month: Path, ends: tuple[int, int]) -> None:
    """It would be told without its milliseconds, and a record between would lie on the wrong side when the pack is verified."""
    period = make_period(FIRST_MS + ends[0], FIRST_MS + MONTH_MS + ends[1])
    with pytest.raises(PeriodRejected, match="whole seconds"):
        write_made_up_pack(order_pack(period=period), month, "broken")
    assert not (month / "broken").exists()


def test_what_is_no_pack_cannot_be_made_again(pack: Path) -> None:
    """A folder without a manifest, and one without a tree."""
    (pack / "log" / "checkpoint").unlink()
    with pytest.raises(PackRejected, match="checkpoint: is missing"):
        load_earlier(pack)
    with pytest.raises(PackRejected, match="json: is missing"):
        load_earlier(pack / "log")


def test_all_records_are_there_where_they_are_asked_for(
    month: Path, log_key: VerifierKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In exports that follow each other; one that is missing is a gap, whoever signs."""
    monkeypatch.setattr("compliance.pack.RECORDS_A_FOLDER", 400)
    shutil.copytree(month / "log", tmp_path / "log")
    shutil.copy(month / "log.vkey", tmp_path)
    write_made_up_pack(order_pack("eu-ai-act", with_records=True), tmp_path)
    pack = tmp_path / "pack"
    assert sorted(path.name for path in (pack / "log" / "records").iterdir()) == ["0-399", "400-799", "800-999"]
    assert verify_pack(pack, log_key, SIGNER.key).num_exported == NUM_RECORDS
    shutil.rmtree(pack / "log" / "records" / "400-799")
    resign(pack)
    with pytest.raises(PackRejected, match="does not follow record 399"):
        verify_pack(pack, log_key, SIGNER.key)
    shutil.rmtree(pack / "log" / "records" / "800-999")
    resign(pack)
    with pytest.raises(PackRejected, match="ends before record 999"):
        verify_pack(pack, log_key, SIGNER.key)


@control("AU-7", "3.3.6")
def test_whoever_signs_the_pack_cannot_leave_records_out_at_its_ends(
    month: Path, pack: Path, log_key: VerifierKey
) -> None:
    """A range that is shorter than the period: its neighbour lies in it. The neighbours cannot be left out either."""
    manifest = parse_manifest((pack / "manifest.json").read_bytes())
    assert (manifest.start, manifest.end) == (0, NUM_RECORDS)
    shortened(pack, start=0, end=NUM_RECORDS - 1)
    with pytest.raises(PackRejected, match=f"edges/{NUM_RECORDS - 2}.json: is missing"):
        verify_pack(pack, log_key, SIGNER.key)
    reader, note = LogReader(month / "log"), (pack / "log" / "checkpoint").read_bytes()
    checkpoint = verify_checkpoint(note, [log_key], log_key.name)
    for name, data in extract_edges(reader, checkpoint, note, 0, NUM_RECORDS - 1):
        (pack / name).write_bytes(data)
    resign(pack)
    with pytest.raises(
        PackRejected, match=rf"edges/{NUM_RECORDS - 1}\.json: record {NUM_RECORDS - 1} lies in the period"
    ):
        verify_pack(pack, log_key, SIGNER.key)


def test_whoever_signs_the_pack_cannot_call_a_record_another_kind(pack: Path, log_key: VerifierKey) -> None:
    """A record under the name of a kind that would be evidence of something."""
    extracts = pack / "log" / "extracts"
    (extracts / "client_created.jsonl").rename(extracts / "role_approved.jsonl")
    resign(pack)
    with pytest.raises(PackRejected, match="is of another period or kind"):
        verify_pack(pack, log_key, SIGNER.key)


@pytest.mark.parametrize("end", ["start", "end"])
def test_whoever_signs_the_pack_cannot_show_records_of_another_period(
    pack: Path, log_key: VerifierKey, end: str
) -> None:
    """The range that the manifest tells is that of every record shown: the first and the last of it among them."""
    manifest = parse_manifest((pack / "manifest.json").read_bytes())
    shown = [
        parse_sequence(entry)
        for extract in (pack / "log" / "extracts").iterdir()
        for entry in extract.read_bytes().splitlines()
    ]
    bound = {"start": min(shown) + 1} if end == "start" else {"end": max(shown)}
    (pack / "manifest.json").write_bytes(encode_manifest(msgspec.structs.replace(manifest, **bound)))
    resign(pack)
    with pytest.raises(PackRejected, match="is of another period or kind"):
        verify_pack(pack, log_key, SIGNER.key)


def test_counts_are_counted_again_where_all_records_are_there(
    month: Path, log_key: VerifierKey, tmp_path: Path
) -> None:
    """Who signs the pack can say of them what they like only where the records are left out."""
    shutil.copytree(month / "log", tmp_path / "log")
    shutil.copy(month / "log.vkey", tmp_path)
    for name, with_records in (("all", True), ("some", False)):
        write_made_up_pack(order_pack(with_records=with_records), tmp_path, name)
        summary = tmp_path / name / "log" / "summary.json"
        counts = json.loads(summary.read_bytes())
        counts["kinds"]["inference_outcome"] -= 1
        summary.write_bytes(json.dumps(counts, indent=1, sort_keys=True).encode() + b"\n")
        resign(tmp_path / name)
    verify_pack(tmp_path / "some", log_key, SIGNER.key)
    with pytest.raises(PackRejected, match="is not what the records give"):
        verify_pack(tmp_path / "all", log_key, SIGNER.key)


def test_results_of_another_build_count_for_nothing(month: Path, tmp_path: Path) -> None:
    """They go into the pack, and no verdict rests on them."""
    shutil.copytree(month / "log", tmp_path / "log")
    shutil.copy(month / "log.vkey", tmp_path)
    other = make_results(software="sha256:" + "00" * 32)
    made = write_made_up_pack(order_pack(test_results=other), tmp_path)
    assert not made.content.has_results
    assert not [one for one in made.content.judgements if one.verdict in ("met", "shared")]
    assert b"No test results of this build" in (tmp_path / "pack" / "report.html").read_bytes()


def test_results_that_are_none_stop_the_pack(month: Path, tmp_path: Path) -> None:
    """Before anything is written."""
    shutil.copytree(month / "log", tmp_path / "log")
    shutil.copy(month / "log.vkey", tmp_path)
    with pytest.raises(ResultsRejected):
        write_made_up_pack(order_pack(test_results=b"{}"), tmp_path)
    assert not (tmp_path / "pack").exists()


def test_tables_tell_every_control_and_objective(pack: Path, made: WrittenPack) -> None:
    """In the framework's order, with what is open in the plan."""
    rows = list(csv.reader(io.StringIO((pack / "responsibility-matrix.csv").read_text())))
    assert [row[0] for row in rows[1:]] == [
        made.content.framework.label_of(one.control) for one in made.content.judgements
    ]
    assert len(list(csv.reader(io.StringIO((pack / "objectives.csv").read_text())))) == 321
    plan = list(csv.reader(io.StringIO((pack / "poam.csv").read_text())))
    assert len(plan) - 1 == made.content.num_open
    assert json.loads((pack / "score.json").read_text())["now"] == made.content.score.now  # type: ignore[union-attr]


def test_no_cell_is_a_formula(pack: Path) -> None:
    """A program that somebody called `=cmd()` is text to a spreadsheet."""
    assert b"'=cmd()" in (pack / "identity" / "programs.csv").read_bytes()


def test_the_logs_own_answers_outweigh_what_was_made_up(month: Path, made: WrittenPack) -> None:
    """How far the records go back is found in the log."""
    assert "when the first log began" in made.content.answers["records_retained"].words
    assert made.content.answers["records_present"].holds is True


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b'{"format":"casemate-evidence-pack/2"}'])
def test_manifests_of_another_form_are_refused(data: bytes) -> None:
    """By the family."""
    with pytest.raises(PackRejected):
        parse_manifest(data)


def test_a_manifest_has_one_form(pack: Path) -> None:
    """Spaces make it another."""
    data = (pack / "manifest.json").read_bytes()
    assert parse_manifest(data)
    with pytest.raises(PackRejected):
        parse_manifest(data.replace(b",", b", ", 1))


def test_an_installation_without_anything_gives_a_pack_too(month: Path, tmp_path: Path, log_key: VerifierKey) -> None:
    """No people, no keys, no statement, no results: it says so, and verifies."""
    shutil.copytree(month / "log", tmp_path / "log")
    shutil.copy(month / "log.vkey", tmp_path)
    bare = replace(
        make_installation(),
        people=(),
        programs=(),
        static_keys=(),
        keys=(),
        statement=b"",
        answers={},
        mode="development",
    )
    made = write_made_up_pack(order_pack("800-53-moderate", installation=bare, test_results=None), tmp_path)
    assert made.content.score is None
    assert {one.verdict for one in made.content.judgements} == {
        "customer",
        "not-evidenced",
        "not-met",
        "not-applicable",
    }
    verify_pack(tmp_path / "pack", log_key, SIGNER.key)
