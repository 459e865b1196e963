"""Exports and range proofs: whole, deterministic, and any change to any of it is found."""

import csv
import hashlib
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from appliance.cli.audit.searching import describe_record
from audit.entry import encode_canonical, parse_canonical
from audit.errors import AuditRejected, ExportRejected, MalformedProof, ProofRejected, SignatureRejected
from audit.export import VerifiedExport, encode_range_proof, parse_range_proof, verify_export, write_export
from audit.formats import COLUMNS, encode_cef, encode_csv, encode_table, flatten
from audit.merkle import inclusion_proof, leaf_hash, root_of
from audit.note import NoteSigner
from audit.range_proof import MAX_RANGE_HASHES, build_range_proof, verify_range
from audit.reader import LogReader
from audit.syslog import encode_message
from tests.support.controls import control
from tests.unit.audit.test_audit_index import Log

LEAVES = [leaf_hash(b"%d" % i) for i in range(70)]


def range_hash(low: int, high: int) -> bytes:
    return root_of(LEAVES[low:high])


@given(st.data())
def test_range_proofs_hold_for_every_range(data: st.DataObject) -> None:
    """Of every tree; and for no other place, records or hashes. (The size is what the checkpoint signs beside the root.)"""
    size = data.draw(st.integers(1, 70))
    start = data.draw(st.integers(0, size - 1))
    end = data.draw(st.integers(start + 1, size))
    root = range_hash(0, size)
    proof = build_range_proof(start, end, size, range_hash)
    verify_range(LEAVES[start:end], start, size, proof, root)
    assert parse_range_proof(encode_range_proof(start, end, proof)) == (start, end - start, proof)
    broken = [leaf_hash(b"x"), *LEAVES[start + 1 : end]]
    with pytest.raises(ProofRejected):
        verify_range(broken, start, size, proof, root)
    for other_start, other_size in ((start + 1, size), (start - 1, size)):
        with pytest.raises(ProofRejected):
            verify_range(LEAVES[start:end], other_start, other_size, proof, root)
    for other in ([*proof, bytes(32)], proof[:-1] if proof else [bytes(32)]):
        with pytest.raises(ProofRejected):
            verify_range(LEAVES[start:end], start, size, other, root)


@given(st.integers(1, 70), st.data())
def test_a_range_of_one_is_an_inclusion_proof(size: int, data: st.DataObject) -> None:
    """The same hashes, in the order of the walk."""
    index = data.draw(st.integers(0, size - 1))
    proof = build_range_proof(index, index + 1, size, range_hash)
    assert sorted(proof) == sorted(inclusion_proof(index, size, range_hash))


@given(st.binary(max_size=200))
def test_nothing_but_the_family_escapes_from_a_range_proof(data: bytes) -> None:
    """Rubbish is refused by our errors."""
    for one in (data, b"casemate range-proof v1\n" + data):
        try:
            parse_range_proof(one)
        except MalformedProof:
            continue


def test_range_proofs_have_one_form() -> None:
    """Other numbers, spaces and bits are refused."""
    good = encode_range_proof(3, 5, [bytes(32)])
    head, *rest = good.splitlines(keepends=True)
    for bad in (
        good[:-1], good + b"\n", good.replace(b"\n3\n", b"\n03\n"), good.replace(b"AA=", b"AB="), b"",
        good.replace(b"v1", b"v2"), head, head + rest[0], encode_range_proof(3, 5, [bytes(32)] * (MAX_RANGE_HASHES + 1)),
    ):  # fmt: skip
        with pytest.raises(MalformedProof):
            parse_range_proof(bad)
    assert len(parse_range_proof(encode_range_proof(3, 5, [bytes(32)] * MAX_RANGE_HASHES))[2]) == MAX_RANGE_HASHES


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    log = Log(tmp_path_factory.mktemp("exported"))
    log.grow(700)
    yield log
    log.writer.close()


@control("3.3.6", "AU-7", "AU-7(1)", "AU-9(2)", "AU-11", "Article 19(1)", "Article 26(6)")
@pytest.mark.parametrize(("start", "end"), [(0, None), (0, 1), (255, 257), (300, 700), (699, 700), (17, 530)])
def test_an_export_is_whole_and_verifies(log: Log, tmp_path: Path, start: int, end: int | None) -> None:
    """Every record as it is, in every form, with nothing but the log's key."""
    reader = LogReader(log.home / "log")
    made = write_export(reader, log.writer.key, tmp_path / "out", start, end, forms=["cef", "csv", "parquet"])
    verified = verify_export(tmp_path / "out", log.writer.key)
    assert (verified.manifest, verified.digest) == (made.manifest, made.digest)
    lines = (tmp_path / "out" / "records.jsonl").read_bytes().splitlines()
    assert lines == [encode_canonical(event) for event in log.events[start:end]]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "records.csv").read_text())))
    assert [int(row["index"]) for row in rows] == list(range(start, end or 700))
    assert len((tmp_path / "out" / "records.cef").read_bytes().splitlines()) == len(lines)


def test_the_same_export_has_the_same_bytes(log: Log, tmp_path: Path) -> None:
    """Of every file."""
    reader = LogReader(log.home / "log")
    for name in ("one", "two"):
        write_export(reader, log.writer.key, tmp_path / name, 20, 400, forms=["csv"])
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two


def test_an_export_of_which_nobody_could_be_told_is_none(log: Log, tmp_path: Path) -> None:
    """Whoever is told is told before it verifies; where that fails, or the command ends meanwhile, there is nothing that does."""
    reader = LogReader(log.home / "log")

    def refuse(made: VerifiedExport) -> None:
        assert made.manifest.end == 10
        with pytest.raises(FileNotFoundError):
            verify_export(tmp_path / "out", log.writer.key)
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        write_export(reader, log.writer.key, tmp_path / "out", 0, 10, announce=refuse)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_signed_export_names_its_exporter(log: Log, tmp_path: Path) -> None:
    """Another's signature, another manifest and none at all are refused where one is asked for."""
    signer = NoteSigner("exporter.example", Ed25519PrivateKey.generate())
    reader = LogReader(log.home / "log")
    write_export(reader, log.writer.key, tmp_path / "a", 0, 10, signer=signer)
    write_export(reader, log.writer.key, tmp_path / "b", 0, 11, signer=signer)
    assert verify_export(tmp_path / "a", log.writer.key, signer.key).is_signed
    stranger = NoteSigner("exporter.example", Ed25519PrivateKey.generate())
    with pytest.raises(SignatureRejected):
        verify_export(tmp_path / "a", log.writer.key, stranger.key)
    shutil.copy(tmp_path / "b" / "manifest.sig", tmp_path / "a" / "manifest.sig")
    with pytest.raises(ExportRejected, match="another manifest"):
        verify_export(tmp_path / "a", log.writer.key, signer.key)


FILES = ["records.jsonl", "records.csv", "records.cef", "records.parquet", "checkpoint", "range.proof", "manifest.json"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flip", "cut", "grow", "remove"])
def test_any_damage_to_any_file_is_found(log: Log, tmp_path: Path, name: str, damage: str) -> None:
    """One bit, one byte less, one more, the file gone."""
    out = tmp_path / "out"
    write_export(LogReader(log.home / "log"), log.writer.key, out, 5, 300, forms=["csv", "cef", "parquet"])
    path = out / name
    data = path.read_bytes()
    middle = len(data) // 2
    match damage:
        case "flip":
            path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
        case "cut":
            path.write_bytes(data[:-1])
        case "grow":
            path.write_bytes(data + b"\n")
        case _:
            path.unlink()
    with pytest.raises((AuditRejected, OSError)):
        verify_export(out, log.writer.key)


def test_a_manifest_made_to_fit_is_not_enough(log: Log, tmp_path: Path) -> None:
    """Somebody who leaves a record out and writes a new manifest still lacks the root."""
    reader = LogReader(log.home / "log")
    write_export(reader, log.writer.key, tmp_path / "out", 5, 300)
    write_export(reader, log.writer.key, tmp_path / "less", 5, 299)
    for name in ("records.jsonl", "manifest.json"):
        shutil.copy(tmp_path / "less" / name, tmp_path / "out" / name)
    with pytest.raises(ExportRejected):
        verify_export(tmp_path / "out", log.writer.key)
    for swapped in ("records.jsonl",):
        lines = (tmp_path / "less" / swapped).read_bytes().splitlines(keepends=True)
        (tmp_path / "less" / swapped).write_bytes(b"".join([lines[1], lines[0], *lines[2:]]))
    manifest = json.loads((tmp_path / "less" / "manifest.json").read_bytes())
    changed = (tmp_path / "less" / "records.jsonl").read_bytes()
    for file in manifest["files"]:
        if file["name"] == "records.jsonl":
            file["sha256"] = hashlib.sha256(changed).hexdigest()
    (tmp_path / "less" / "manifest.json").write_bytes(encode_canonical(manifest))
    with pytest.raises(ExportRejected, match="says that it is"):
        verify_export(tmp_path / "less", log.writer.key)


def refit(out: Path, contents: dict[str, bytes], **said: Any) -> None:
    """Put these files into an export, and a manifest that fits them: what somebody does who owns the folder."""
    manifest = json.loads((out / "manifest.json").read_bytes()) | said
    for name, data in contents.items():
        (out / name).write_bytes(data)
        for file in manifest["files"]:
            if file["name"] == name:
                file |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (out / "manifest.json").write_bytes(encode_canonical(manifest))


@control("AU-9", "AU-10", "3.3.8")
def test_a_changed_record_is_not_under_the_root(log: Log, tmp_path: Path) -> None:
    """In the right form and place, with its tables made from it and a manifest to fit."""
    out = tmp_path / "out"
    write_export(LogReader(log.home / "log"), log.writer.key, out, 5, 300)
    refit(out, {})
    verify_export(out, log.writer.key)
    refit(out, {"records.jsonl": (out / "records.jsonl").read_bytes().replace(b"client-ada", b"client-eve", 1)})
    with pytest.raises(ProofRejected):
        verify_export(out, log.writer.key)


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({"checkpoint_size": 701}, "another tree"),
        ({"origin": "log.example/other"}, "another tree"),
        ({"root": "0" * 64}, "another tree"),
        ({"format": "casemate-audit-export/2"}, "format"),
        ({"files": []}, "format"),
        ({"start": 6}, "does not hold 294"),
    ],
    ids=str,
)
def test_a_manifest_says_what_the_files_say(log: Log, tmp_path: Path, said: dict[str, Any], match: str) -> None:
    """Its digest is what a record of the export names: it stands for all of them."""
    out = tmp_path / "out"
    write_export(LogReader(log.home / "log"), log.writer.key, out, 5, 300)
    refit(out, {}, **said)
    with pytest.raises(ExportRejected, match=match):
        verify_export(out, log.writer.key)


def test_a_manifest_names_each_file_once_and_none_but_those_of_an_export(log: Log, tmp_path: Path) -> None:
    """A path, a stranger, the same file twice, another order: refused before a file is read."""
    out = tmp_path / "out"
    write_export(LogReader(log.home / "log"), log.writer.key, out, 5, 300)
    (out / "notes.txt").write_bytes(b"")
    files = json.loads((out / "manifest.json").read_bytes())["files"]
    stranger = {"bytes": 0, "name": "notes.txt", "sha256": hashlib.sha256(b"").hexdigest()}
    for others in (
        [stranger, *files],
        [{**stranger, "name": "../x"}, *files],
        [files[0], *files],
        files[::-1],
        files[1:],
    ):
        refit(out, {}, files=others)
        with pytest.raises(ExportRejected, match="format"):
            verify_export(out, log.writer.key)


@pytest.mark.parametrize("form", ["csv", "cef", "parquet"])
def test_a_table_is_what_its_records_give(log: Log, tmp_path: Path, form: str) -> None:
    """A name that was changed in a table alone."""
    out = tmp_path / "out"
    write_export(LogReader(log.home / "log"), log.writer.key, out, 5, 300, forms=["cef", "csv", "parquet"])
    name = f"records.{form}"
    refit(out, {name: (out / name).read_bytes().replace(b"client-ada", b"client-eve", 1)})
    with pytest.raises(ExportRejected, match="is not what the records give"):
        verify_export(out, log.writer.key)


def test_a_proof_of_another_range_is_refused(log: Log, tmp_path: Path) -> None:
    """By its own first line, before any hash is computed."""
    out = tmp_path / "out"
    write_export(LogReader(log.home / "log"), log.writer.key, out, 5, 300)
    refit(out, {"range.proof": (out / "range.proof").read_bytes().replace(b"\n295\n", b"\n294\n")})
    with pytest.raises(ExportRejected, match="is of records 5 to 298"):
        verify_export(out, log.writer.key)


def test_a_log_that_was_changed_on_the_disk_gives_no_export(log: Log, tmp_path: Path) -> None:
    """The records are led to the signed root before a file is written that somebody would take for an export."""
    shutil.copytree(log.home / "log", tmp_path / "log")
    bundle = tmp_path / "log" / "tile" / "entries" / "001"
    bundle.write_bytes(bundle.read_bytes().replace(b"client-ada", b"client-eve", 1))
    told: list[VerifiedExport] = []
    with pytest.raises(ProofRejected):
        write_export(LogReader(tmp_path / "log"), log.writer.key, tmp_path / "out", 0, None, announce=told.append)
    assert not told
    assert not list((tmp_path / "out").iterdir())


def test_a_stranger_in_the_folder_is_found(log: Log, tmp_path: Path) -> None:
    """What the manifest does not name is not part of what was proven."""
    write_export(LogReader(log.home / "log"), log.writer.key, tmp_path / "out", 0, 3)
    (tmp_path / "out" / "note.txt").write_text("by the way")
    with pytest.raises(ExportRejected, match="not in the manifest"):
        verify_export(tmp_path / "out", log.writer.key)


@pytest.mark.parametrize(("start", "end"), [(0, 701), (5, 5), (700, None), (-1, 5)])
def test_a_range_that_is_none_is_refused(log: Log, tmp_path: Path, start: int, end: int | None) -> None:
    """Before anything is written."""
    with pytest.raises(ExportRejected):
        write_export(LogReader(log.home / "log"), log.writer.key, tmp_path / "out", start, end)
    assert not (tmp_path / "out").exists()


HOSTILE = {
    "actor": {"app_uid": "=cmd|'/c calc'!A0", "user": {"uid": "a|b=c\\d\ne"}},
    "class_uid": 6003,
    "metadata": {"sequence": 7, "uid": 'x"]y', "reporter": {"name": "gateway/0 \u00e9"}, "product": {"version": "1|2"}},
    "time": 1_795_411_388_337,
    "unmapped": {"casemate": {"kind": "inference_intent"}},
}


VALUES = st.recursive(
    st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(("uid", "name", "casemate")), inner),
    max_leaves=4,
)
MEMBERS = (
    "actor",
    "ai_model",
    "app",
    "entity",
    "message_context",
    "metadata",
    "severity_id",
    "src_endpoint",
    "status_code",
)
OTHERS = ("status_id", "time", "trace", "unmapped", "user", "class_uid", "activity_id")


@control("3.3.6", "AU-7")
@given(st.dictionaries(st.sampled_from(MEMBERS + OTHERS), VALUES))
def test_there_is_no_record_that_keeps_others_from_being_read(event: dict[str, Any]) -> None:
    """Whatever stands in its members: all forms can be made of it, and a line for a terminal."""
    (head, row) = csv.reader(io.StringIO(encode_csv([event]).decode(), newline=""))
    assert len(head) == len(row)
    assert encode_table([event]).endswith(b"PAR1")
    assert len(f"{encode_cef(event).decode()}x".splitlines()) == 1
    length, _, rest = encode_message(encode_canonical(event), "log.example/x").partition(b" ")
    assert int(length) == len(rest)
    assert describe_record(event).isascii()


def test_hostile_texts_stay_within_their_fields() -> None:
    """No formula, no field and no line of their own."""
    client, model = COLUMNS.index("client"), COLUMNS.index("model")
    (_, row) = csv.reader(io.StringIO(encode_csv([HOSTILE]).decode()))
    assert row[client] == "'=cmd|'/c calc'!A0"
    for formula in ("+1", "-1", "@A1", "\uff1d1", "\uff0b1"):
        (_, row) = csv.reader(io.StringIO(encode_csv([{"ai_model": {"name": formula}}]).decode(), newline=""))
        assert row[model] == f"'{formula}"
    for separator in "\t\n\r":  # A line break ends the row where the quotes before it are no quotes.
        for text, kept in ((f"{separator}=1", f"'{separator}'=1"), (f"a{separator}=1;x", f"a{separator}'=1;x")):
            (_, row) = csv.reader(io.StringIO(encode_csv([{"ai_model": {"name": text}}]).decode(), newline=""))
            assert row[model] == kept
    for text, kept in (("a;=1;b", "a;'=1;b"), ('a; "+1"', 'a;\' "+1"'), ("a;b", "a;b"), ("a-b;c", "a-b;c")):
        (_, row) = csv.reader(io.StringIO(encode_csv([{"ai_model": {"name": text}}]).decode()))
        assert row[model] == kept  # Where the semicolon separates, quotes for commas keep nothing together.
    line = encode_cef(HOSTILE).decode()
    assert "\n" not in line
    assert line.startswith("CEF:0|Casemate|Casemate|1\\|2|6003|inference_intent|0|")
    assert "suser=a|b\\=c\\\\d\\ne " in line
    for text, kept in (
        ("a\u2028CEF:0|", "a\\nCEF:0|"), ("a\x85b\x0bc", "a\\nb\\nc"), ("a\r\n", "a\\r\\n"),
        ("\x00\x9b\u202e", r"\\x00\\x9b\\u202e"), ("名\u3000前 é", "名\u3000前 é"),
    ):  # fmt: skip
        line = encode_cef({"ai_model": {"name": text}}).decode()
        assert line.endswith(f" cs2={kept}"), line
    message = encode_message(encode_canonical(HOSTILE), "log.example/x")
    length, _, rest = message.partition(b" ")
    assert int(length) == len(rest)
    assert b'uid="x\\"\\]y"' in rest


def test_a_cef_line_labels_what_the_record_has_and_nothing_else() -> None:
    """A label without its field would be a custom field of its own to a collector; IPv6 has another key than IPv4."""
    line = encode_cef({"metadata": {"sequence": 1, "uid": "u"}, "src_endpoint": {"ip": "10.0.0.1"}}).decode()
    assert line.partition("|0|")[2] == "externalId=1 src=10.0.0.1 cs4Label=uid cs4=u"
    line = encode_cef({"src_endpoint": {"ip": "fd00::1"}, "ai_model": {"name": "m"}}).decode()
    assert line.partition("|0|")[2] == "c6a2Label=Source IPv6 Address c6a2=fd00::1 cs2Label=model cs2=m"


ADA = {"user": {"name": "os:ada", "type_id": 1}}
ACTS = [
    ("client_disabled", {"actor": ADA, "user": {"uid": "shop-1"}}, ("os:ada", "shop-1", "")),
    ("limits_changed", {"actor": ADA, "entity": {"name": "client:*", "type": "limits"}}, ("os:ada", "client:*", "")),
    ("key_rotated", {"actor": ADA, "entity": {"uid": "k1", "name": "the log's key"}}, ("os:ada", "k1", "")),
    ("process_crashed", {"app": {"name": "casemate-engine", "uid": "engine/1"}}, ("", "engine/1", "")),
    ("model_loaded", {"app": {"name": "large", "uid": "build"}}, ("", "build", "large")),
    ("user_signed_in", {"user": {"name": "ada", "uid": "user-1"}}, ("user-1", "", "")),
]


@pytest.mark.parametrize(("kind", "event", "expected"), ACTS, ids=[kind for kind, _, _ in ACTS])
def test_tables_and_collectors_learn_what_was_acted_on(
    kind: str, event: dict[str, Any], expected: tuple[str, ...]
) -> None:
    """Which client was disabled, which process crashed: else a row says that somebody did something."""
    event = {**event, "unmapped": {"casemate": {"kind": kind}}}
    row = flatten(event)
    assert (row["actor"], row["object"], row["model"]) == expected
    acted_on = expected[1].replace("=", r"\=")
    assert (f"cs5Label=object cs5={acted_on}" in encode_cef(event).decode()) == bool(acted_on)
    told = [word for word in (kind, expected[0], expected[2] or expected[1]) if word]
    assert describe_record(event) == " ".join(["? ?", *told]), "a line of `casemate audit tail`"


def test_a_syslog_message_has_the_form_of_the_standard() -> None:
    """Priority, time, host, program, reporter, kind, index, record."""
    event = encode_canonical(
        {**HOSTILE, "metadata": {"sequence": 7, "uid": "u", "reporter": {"name": "gateway/0"}}, "severity_id": 3}
    )
    message = encode_message(event, "log.example/x").partition(b" ")[2]
    head = (
        b"<108>1 2026-11-23T05:23:08.337Z log.example casemate gateway/0 inference_intent "
        b'[casemate@32473 index="7" origin="log.example/x" uid="u"] '
    )
    assert message == head + event
    assert b"CEF:0|" in encode_message(event, "log.example/x", as_cef=True)


@pytest.mark.parametrize(
    ("time_ms", "told"),
    [(-1, "1970-01-01T00:00:00.000Z"), (1, "1970-01-01T00:00:00.001Z"), (2**53 - 1, "9999-12-31T23:59:59.999Z")],
)
def test_a_syslog_header_has_a_time_and_a_dash_for_what_is_not_there(time_ms: int, told: str) -> None:
    """RFC 5424's nil value; and no time that RFC 3339 cannot tell."""
    message = encode_message(encode_canonical({"time": time_ms}), "").partition(b" ")[2]
    assert message.startswith(f'<110>1 {told} - casemate - - [casemate@32473 index="" origin="" uid=""] '.encode())


@pytest.mark.parametrize("as_cef", [False, True])
def test_a_syslog_message_that_is_not_ascii_begins_with_the_byte_order_mark(as_cef: bool) -> None:
    """RFC 5424 section 6.4, and the frame counts it; behind it are the record's very bytes. ASCII has none."""
    for name, mark in (("Zoe", b""), ("Zoë", b"\xef\xbb\xbf")):
        event = encode_canonical({"actor": {"user": {"name": name}}, "metadata": {"sequence": 7, "uid": "u"}})
        length, _, message = encode_message(event, "log.example/x", as_cef=as_cef).partition(b" ")
        _, _, text = message.partition(b'uid="u"] ')
        expected = encode_cef(parse_canonical(event)) if as_cef else event
        assert text == mark + expected
        assert int(length) == len(message)


@given(
    st.recursive(
        st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10
    )
)
def test_any_record_has_a_row(value: object) -> None:
    """Members of other types than theirs are empty."""
    for event in (
        {"metadata": value, "actor": value, "unmapped": value, "user": value},
        {"unmapped": {"casemate": value}},
    ):
        assert all(isinstance(cell, str | int) for cell in flatten(event).values())
