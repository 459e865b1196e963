"""Exports: a run of records in a folder that is verified offline, with the log's key and nothing of Casemate's.

| file | what it is |
|---|---|
| `records.jsonl` | the records, each the leaf's very bytes and a newline: OCSF JSON lines |
| `records.csv`, `records.cef`, `records.parquet` | made from them, where asked for |
| `checkpoint` | the signed tree that they are in |
| `range.proof` | `casemate range-proof v1`, first index, number of records, then hashes in base64, a line each |
| `manifest.json` | canonical JSON: what, from which tree, every file with its length and SHA-256 |
| `manifest.sig` | a signed note over the manifest's digest by whoever exported, where a key was given |

The same range under the same checkpoint gives the same bytes. The files are written first and the manifest last, so that a
folder with a manifest is whole; and whoever must know of an export is told between the two, so that none verifies of which nobody
was told.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from audit.canonical_text import decode_base64, encode_base64, parse_decimal
from audit.checkpoint import Checkpoint, verify_checkpoint
from audit.entry import Json, encode_canonical, parse_canonical, parse_sequence
from audit.errors import AuditRejected, ExportRejected, MalformedProof
from audit.formats import encode_cef, encode_csv, encode_table, parse_json
from audit.merkle import HASH_BYTES, leaf_hash
from audit.note import MAX_NOTE_BYTES, NoteSigner, VerifierKey, verify_note
from audit.range_proof import MAX_RANGE_HASHES, build_range_proof, verify_range
from audit.reader import LogReader
from audit.tiles import TILE_WIDTH

RECORDS, CHECKPOINT, PROOF, MANIFEST, SIGNATURE = (
    "records.jsonl", "checkpoint", "range.proof", "manifest.json", "manifest.sig",
)  # fmt: skip
EXPORT_FORMAT = "casemate-audit-export/1"
PROOF_HEADER = "casemate range-proof v1"
MAX_MANIFEST_BYTES = 1 << 20

Encode = Callable[[Sequence[Json]], bytes]
DERIVED: dict[str, Encode] = {
    "csv": encode_csv,
    "parquet": encode_table,
    "cef": lambda events: b"".join(encode_cef(event) + b"\n" for event in events),
}
"""Forms that are made from the records; each is the file `records.NAME`."""


class ExportedFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of an export."""

    bytes: int
    name: str
    sha256: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an export holds."""

    checkpoint_size: int
    end: int
    """Behind the last index."""
    files: list[ExportedFile]
    format: str
    origin: str
    root: str
    start: int


@dataclass(frozen=True, slots=True)
class VerifiedExport:
    """What was found to hold."""

    manifest: Manifest
    digest: str
    """SHA-256 of the manifest: it names the whole export."""
    is_signed: bool


def write_export(
    reader: LogReader,
    key: VerifierKey,
    folder: Path,
    start: int,
    end: int | None,
    *,
    forms: Sequence[str] = (),
    signer: NoteSigner | None = None,
    note: bytes | None = None,
    announce: Callable[[VerifiedExport], None] = lambda _made: None,
) -> VerifiedExport:
    """Export the records [start, end) under a checkpoint of the log.

    Args:
        folder: made by this; MUST not exist.
        end: None for all that the checkpoint covers.
        forms: of DERIVED.
        signer: of whoever exports.
        note: the checkpoint; the log's last one by default.
        announce: told of it before the manifest is written; what it raises leaves a folder that is no export.
    Raises: ExportRejected for a range that is none; SignatureRejected, LogCorrupted, EntryNotFound, OSError.
    """
    note = reader.checkpoint_note() if note is None else note
    checkpoint = verify_checkpoint(note, [key], key.name)
    end = checkpoint.size if end is None else end
    if not 0 <= start < end <= checkpoint.size:
        raise ExportRejected(
            f"export: records {start} to {end - 1} are no range of the {checkpoint.size} under the checkpoint"
        )
    folder.mkdir(mode=0o750)
    entries = list(_read_range(reader, start, end, checkpoint.size))
    proof = build_range_proof(
        start, end, checkpoint.size, lambda low, high: reader.range_hash(low, high, checkpoint.size)
    )
    verify_range([leaf_hash(entry) for entry in entries], start, checkpoint.size, proof, checkpoint.root)
    contents = {CHECKPOINT: note, PROOF: encode_range_proof(start, end, proof), RECORDS: _encode_lines(entries)}
    events = [parse_json(entry) for entry in entries] if forms else []
    contents |= {f"records.{form}": DERIVED[form](events) for form in forms}
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    manifest = _build_manifest(checkpoint, start, end, contents)
    data = encode_canonical(msgspec.to_builtins(manifest))
    digest = hashlib.sha256(data).hexdigest()
    made = VerifiedExport(manifest, digest, signer is not None)
    announce(made)
    if signer is not None:
        (folder / SIGNATURE).write_bytes(signer.sign(_signed_text(digest)))
    (folder / MANIFEST).write_bytes(data)
    return made


def _build_manifest(checkpoint: Checkpoint, start: int, end: int, contents: dict[str, bytes]) -> Manifest:
    files = [ExportedFile(len(data), name, hashlib.sha256(data).hexdigest()) for name, data in sorted(contents.items())]
    return Manifest(
        checkpoint_size=checkpoint.size,
        end=end,
        files=files,
        format=EXPORT_FORMAT,
        origin=checkpoint.origin,
        root=checkpoint.root.hex(),
        start=start,
    )


def verify_export(folder: Path, key: VerifierKey, exporter: VerifierKey | None = None) -> VerifiedExport:
    """Verify an export: every file, every record's form and index, the range under the signed checkpoint, every derived form.

    Args:
        exporter: whoever must have signed it; without, a signature is not looked at.
    Raises: ExportRejected, SignatureRejected, ProofRejected, MalformedEntry and other AuditRejected; OSError.
    """
    data = _read(folder / MANIFEST, MAX_MANIFEST_BYTES)
    manifest = _parse_manifest(data)
    digest = hashlib.sha256(data).hexdigest()
    if exporter is not None:
        text = verify_note(_read(folder / SIGNATURE, MAX_NOTE_BYTES), [exporter]).text
        if text != _signed_text(digest):
            raise ExportRejected(f"{folder / SIGNATURE}: is of another manifest")
    contents = _read_files(folder, manifest)
    checkpoint = verify_checkpoint(contents[CHECKPOINT], [key], key.name)
    _verify_heads(folder, manifest, checkpoint)
    entries = _verify_records(folder, manifest, contents[RECORDS])
    start, count, proof = parse_range_proof(contents[PROOF])
    if (start, start + count) != (manifest.start, manifest.end):
        raise ExportRejected(f"{folder / PROOF}: is of records {start} to {start + count - 1}")
    verify_range([leaf_hash(entry) for entry in entries], start, checkpoint.size, proof, checkpoint.root)
    for form, encode in DERIVED.items():
        if (made := contents.get(f"records.{form}")) is not None and made != encode([parse_json(e) for e in entries]):
            raise ExportRejected(f"{folder / f'records.{form}'}: is not what the records give")
    return VerifiedExport(manifest, digest, exporter is not None)


def encode_range_proof(start: int, end: int, proof: Sequence[bytes]) -> bytes:
    """The text of a range proof."""
    lines = [PROOF_HEADER, str(start), str(end - start), *map(encode_base64, proof)]
    return ("\n".join(lines) + "\n").encode("ascii")


def parse_range_proof(data: bytes) -> tuple[int, int, list[bytes]]:
    """First index, number of records and hashes of an untrusted range proof, in canonical form.

    Raises: MalformedProof.
    """
    try:
        lines = data.decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise MalformedProof("range proof: is not ASCII") from error
    if len(lines) < 4 or lines[0] != PROOF_HEADER or lines[-1] or len(lines) - 4 > MAX_RANGE_HASHES:
        raise MalformedProof(f"range proof: does not have the form of {PROOF_HEADER}")
    start = parse_decimal(lines[1], "range proof: the first index", MalformedProof)
    count = parse_decimal(lines[2], "range proof: the number of records", MalformedProof)
    proof = [decode_base64(line, "range proof: a hash", MalformedProof) for line in lines[3:-1]]
    if any(len(node) != HASH_BYTES for node in proof):
        raise MalformedProof(f"range proof: a hash has not {HASH_BYTES} bytes")
    return start, count, proof


def _read_range(reader: LogReader, start: int, end: int, size: int) -> Iterator[bytes]:
    for number in range(start // TILE_WIDTH, -(-end // TILE_WIDTH)):
        first = number * TILE_WIDTH
        yield from reader.read_bundle(number, size)[max(0, start - first) : end - first]


def _encode_lines(entries: Sequence[bytes]) -> bytes:
    return b"".join(entry + b"\n" for entry in entries)


def _signed_text(digest: str) -> str:
    return f"{EXPORT_FORMAT}\nsha256:{digest}\n"


def _parse_manifest(data: bytes) -> Manifest:
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ExportRejected(f"{MANIFEST}: {error}") from error
    parse_canonical(data)
    names = [file.name for file in manifest.files]
    allowed = {CHECKPOINT, PROOF, RECORDS, *(f"records.{form}" for form in DERIVED)}
    if (
        manifest.format != EXPORT_FORMAT
        or names != sorted(set(names))
        or not {CHECKPOINT, PROOF, RECORDS} <= set(names) <= allowed
    ):
        raise ExportRejected(f"{MANIFEST}: is not of the format {EXPORT_FORMAT}")
    return manifest


def _read_files(folder: Path, manifest: Manifest) -> dict[str, bytes]:
    listed = {MANIFEST, SIGNATURE, *(file.name for file in manifest.files)}
    if strangers := sorted({path.name for path in folder.iterdir()} - listed):
        raise ExportRejected(f"{folder / strangers[0]}: is not in the manifest")
    contents = {}
    for file in manifest.files:
        data = _read(folder / file.name, file.bytes)
        if len(data) != file.bytes or hashlib.sha256(data).hexdigest() != file.sha256:
            raise ExportRejected(f"{folder / file.name}: is not what the manifest says")
        contents[file.name] = data
    return contents


def _verify_heads(folder: Path, manifest: Manifest, checkpoint: Checkpoint) -> None:
    said = (manifest.origin, manifest.checkpoint_size, manifest.root)
    if said != (checkpoint.origin, checkpoint.size, checkpoint.root.hex()):
        raise ExportRejected(f"{folder / MANIFEST}: names another tree than the checkpoint")


def _verify_records(folder: Path, manifest: Manifest, data: bytes) -> list[bytes]:
    entries = data.split(b"\n")
    if entries.pop() or len(entries) != manifest.end - manifest.start:
        raise ExportRejected(f"{folder / RECORDS}: does not hold {manifest.end - manifest.start} records")
    for index, entry in enumerate(entries, manifest.start):
        try:
            parse_canonical(entry)
            sequence = parse_sequence(entry)
        except AuditRejected as error:
            raise ExportRejected(f"{folder / RECORDS}: record {index}: {error}") from error
        if sequence != index:
            raise ExportRejected(f"{folder / RECORDS}: record {index} says that it is {sequence}")
    return entries


def _read(path: Path, max_bytes: int) -> bytes:
    with path.open("rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise ExportRejected(f"{path}: has more than {max_bytes} bytes")
    return data
