"""Verifying a pack, offline: with the folder, the log's key and the key of whoever made it.

(1) The signature over the manifest. (2) Every file is there with its digest, and no other is. (3) The checkpoint, by the
log's key, and that it is the tree which the manifest names. (4) Every extracted record, by its own proof under that
checkpoint, within the period's range, and of the kind that its file names; those at both ends of the range, inside and
outside, whose times say that it is the period's. (5) Every folder of all records, as an export; where they are there, the
counts. (6) On request the witnesses' word.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from audit.checkpoint import Checkpoint, verify_checkpoint
from audit.cosignature import CosignerKey
from audit.entry import parse_canonical, parse_sequence
from audit.errors import AuditRejected
from audit.export import RECORDS as EXPORTED
from audit.export import verify_export
from audit.note import MAX_NOTE_BYTES, VerifierKey, verify_note
from audit.permissions import kind_of
from audit.proof import verify_proof
from audit.tiles import MAX_ENTRY_BYTES
from compliance.activity import Activity, count_entries
from compliance.errors import PackRejected, PeriodRejected
from compliance.manifest import (
    CHECKPOINT,
    EDGES,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    RECORDS,
    SIGNATURE,
    PackManifest,
    parse_manifest,
    read_bounded,
    signed_text,
)
from compliance.period import Beginning, edges_of, find_beginning, make_period, parse_time, time_of
from compliance.summary import MAX_SUMMARY_BYTES, SUMMARY, encode_summary
from compliance.witnessing import CONSISTENCY, COSIGNED, MAX_CONSISTENCY_BYTES, verify_witnesses_word

_EXTRACTS, _PROOFS = "log/extracts/", "log/proofs/"


@dataclass(frozen=True, slots=True)
class VerifiedPack:
    """What was found to hold."""

    manifest: PackManifest
    digest: str
    num_proven: int
    """Records with a proof of their own."""
    num_exported: int
    """Records that all are there of the range."""
    num_witnessed: int
    """Size of the tree that the witnesses cosigned; 0 where nobody's word was asked for."""
    witnessed_at: dict[str, int]
    """When each witness said so, in seconds since 1970."""
    beginning: Beginning | None
    """Where the log itself began within the period, by its first record, which is proven."""


def verify_pack(
    folder: Path, log_key: VerifierKey, signer: VerifierKey, witnesses: Sequence[CosignerKey] = ()
) -> VerifiedPack:
    """Verify a pack.

    Args:
        witnesses: of whom at least one must have cosigned a tree that the pack's extends; none are asked for by default.
    Raises: PackRejected; SignatureRejected, ProofRejected and other AuditRejected; OSError.
    """
    data = read_bounded(folder / MANIFEST, MAX_MANIFEST_BYTES)
    digest = hashlib.sha256(data).hexdigest()
    if verify_note(read_bounded(folder / SIGNATURE, MAX_NOTE_BYTES), [signer]).text != signed_text(digest):  # (1)
        raise PackRejected(f"{folder / SIGNATURE}: is of another manifest")
    manifest = parse_manifest(data)
    _verify_files(folder, manifest)  # (2)
    note = read_bounded(folder / CHECKPOINT, MAX_NOTE_BYTES)
    checkpoint = verify_checkpoint(note, [log_key], log_key.name)  # (3)
    if (checkpoint.origin, checkpoint.size, checkpoint.root.hex()) != (
        manifest.origin,
        manifest.checkpoint_size,
        manifest.root,
    ):
        raise PackRejected(f"{folder / MANIFEST}: names another tree than the checkpoint")
    proven = _verify_extracts(folder, manifest, log_key, checkpoint)  # (4)
    beginning = _verify_edges(folder, manifest, log_key, checkpoint)
    exported = _verify_records(folder, manifest, log_key)  # (5)
    witnessed, times = _verify_witnesses(folder, manifest, checkpoint, log_key, witnesses)  # (6)
    return VerifiedPack(manifest, digest, proven, exported, witnessed, times, beginning)


def _verify_files(folder: Path, manifest: PackManifest) -> None:
    listed = {file.name for file in manifest.files} | {MANIFEST, SIGNATURE}
    found = {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()
    }
    if found != listed:
        stranger = sorted(found - listed) or sorted(listed - found)
        state = "is not in the manifest" if found - listed else "is missing"
        raise PackRejected(f"{folder / stranger[0]}: {state}")
    for file in manifest.files:
        path = folder / file.name
        if path.is_symlink() or not path.is_file():
            raise PackRejected(f"{path}: is a link, or no plain file")
        if path.stat().st_size != file.bytes or _hash(path) != file.sha256:
            raise PackRejected(f"{path}: is not what the manifest says")


def _hash(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _verify_extracts(folder: Path, manifest: PackManifest, key: VerifierKey, checkpoint: Checkpoint) -> int:
    proven = set()
    for path, entry in _extracted(folder, manifest):
        try:
            index, kind = parse_sequence(entry), kind_of(parse_canonical(entry))
        except AuditRejected as error:
            raise PackRejected(f"{path}: {error}") from error
        name = f"{_PROOFS}{index}.tlog-proof"
        _verify_record(folder / name, path, entry, index, key, checkpoint)
        if not manifest.start <= index < manifest.end or kind != path.stem:
            raise PackRejected(f"{path}: record {index} is of another period or kind")
        proven.add(name)
    if idle := {file.name for file in manifest.files if file.name.startswith(_PROOFS)} - proven:
        raise PackRejected(f"{folder / min(idle)}: proves no record of this pack")
    return len(proven)


def _verify_record(
    proof_path: Path, path: Path, entry: bytes, index: int, key: VerifierKey, checkpoint: Checkpoint
) -> None:
    """Raises: PackRejected where a record is not proven to be the one of its index under the pack's tree."""
    try:
        shown, under = verify_proof(read_bounded(proof_path, 2 * MAX_NOTE_BYTES), entry, [key], key.name)
    except AuditRejected as error:
        raise PackRejected(f"{path}: {error}") from error
    if shown != index or under != checkpoint:
        raise PackRejected(f"{path}: record {index} is proven for another place or tree")


def _verify_edges(folder: Path, manifest: PackManifest, key: VerifierKey, checkpoint: Checkpoint) -> Beginning | None:
    """That the range is what of the log lies in the period, as far as its ends tell: who made the pack left nothing out there.

    Returns: that the log itself began within the period, where it did.
    """
    beginning = None
    try:
        period = make_period(parse_time(manifest.period_start), parse_time(manifest.period_end))
    except PeriodRejected as error:
        raise PackRejected(f"{folder / MANIFEST}: {error}") from error
    for index in edges_of(manifest.start, manifest.end, checkpoint.size):
        path = folder / EDGES / f"{index}.json"
        entry = read_bounded(path, MAX_ENTRY_BYTES)
        _verify_record(path.with_suffix(".tlog-proof"), path, entry, index, key, checkpoint)
        is_inside = period.start_ms <= time_of(entry) < period.end_ms
        if is_inside != (manifest.start <= index < manifest.end):
            state = "lies in the period, and was left out" if is_inside else "does not lie in the period"
            raise PackRejected(f"{path}: record {index} {state}")
        if index == 0:
            beginning = find_beginning(entry, period)
    return beginning


def _extracted(folder: Path, manifest: PackManifest) -> Iterator[tuple[Path, bytes]]:
    for file in manifest.files:
        if file.name.startswith(_EXTRACTS):
            path = folder / file.name
            for entry in path.read_bytes().splitlines():
                yield path, entry


def _verify_records(folder: Path, manifest: PackManifest, key: VerifierKey) -> int:
    """Every record of the range, in exports that follow each other without a gap, and as many as were counted; or none at all."""
    names = {file.name.split("/")[2] for file in manifest.files if file.name.startswith(RECORDS)}
    expected, activity = manifest.start, Activity(manifest.start, manifest.end)
    for name in sorted(names, key=lambda text: int(text.partition("-")[0]) if text.partition("-")[0].isdigit() else -1):
        export = verify_export(folder / RECORDS / name, key).manifest
        if export.start != expected or export.root != manifest.root:
            raise PackRejected(f"{folder / RECORDS / name}: does not follow record {expected - 1} of the tree")
        count_entries(activity, (folder / RECORDS / name / EXPORTED).read_bytes().split(b"\n")[:-1], export.start)
        expected = export.end
    if names and expected != manifest.end:
        raise PackRejected(f"{folder / RECORDS}: ends before record {manifest.end - 1}")
    if names and encode_summary(activity) != read_bounded(folder / SUMMARY, MAX_SUMMARY_BYTES):
        raise PackRejected(f"{folder / SUMMARY}: is not what the records give")
    return expected - manifest.start


def _verify_witnesses(
    folder: Path, manifest: PackManifest, checkpoint: Checkpoint, key: VerifierKey, witnesses: Sequence[CosignerKey]
) -> tuple[int, dict[str, int]]:
    if not witnesses:
        return 0, {}
    if COSIGNED not in {file.name for file in manifest.files}:
        raise PackRejected(f"{folder}: holds no word of a witness")
    cosigned, proof = (
        read_bounded(folder / COSIGNED, MAX_NOTE_BYTES),
        read_bounded(folder / CONSISTENCY, MAX_CONSISTENCY_BYTES),
    )
    size, times = verify_witnesses_word(cosigned, proof, checkpoint, key, witnesses)
    if not times:
        raise PackRejected(f"{folder / COSIGNED}: none of the witnesses given has cosigned it")
    return size, times
