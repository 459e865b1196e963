"""The evidence pack: a folder with everything that an assessor is given about one framework and one period, signed.

| file | what it is |
|---|---|
| `README.txt` | what is what, and how to verify it by hand |
| `report.html`, `report.pdf` | for people |
| `responsibility-matrix.csv`, `.html`, `objectives.csv`, `poam.csv`, `score.json` | who does what, what is open, the SPRS score |
| `oscal/*.json` | profile, catalog, component definition, system security plan, assessment plan and results, plan of action |
| `facts.json`, `statements.toml` | what was found about the installation, and what the customer stated |
| `configuration.json` | the effective configuration, secrets hidden, and the digest of its file |
| `software/*` | bill of materials, running statement, version, results of tests |
| `identity/*.csv`, `keys.csv` | people, programs, static keys; keys on the host, without themselves |
| `log/*` | the signed checkpoint, the witnesses' word, counts, records with proofs, the period's ends among them; on request all |
| `manifest.json`, `manifest.sig` | canonical JSON that names every file by its SHA-256; a signed note over its digest |

(1) Verify the log's checkpoint. (2) Walk and verify the records of the period. (3) Judge. (4) Write the documents. (5) Tell whoever
must know of a pack, and write the manifest and its signature last, so that a folder with both is whole. The same installation,
period and time give the same bytes.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from audit.checkpoint import Checkpoint, verify_checkpoint
from audit.export import write_export
from audit.note import NoteSigner, VerifierKey
from audit.reader import LogReader
from compliance.activity import CHANGES, FAULTS, Activity, measure_activity
from compliance.documents import write_documents
from compliance.errors import PackRejected, PeriodRejected
from compliance.extracts import choose_kinds, extract_edges, extract_records, list_happenings
from compliance.facts import QUESTIONS, UNKNOWN, Answer
from compliance.frameworks import Framework
from compliance.installation import Installation
from compliance.judgement import judge
from compliance.manifest import MANIFEST, PACK_FORMAT, SIGNATURE, PackedFile, PackManifest, encode_manifest, signed_text
from compliance.period import Period, find_beginning, find_records, format_instant, format_time, time_of, verify_edges
from compliance.report.content import Content
from compliance.report.pictures import choose_bucket
from compliance.results import NO_RESULTS, parse_results
from compliance.retention import answer_retention
from compliance.scoring import compute_score
from compliance.statements import parse_statements
from compliance.witnessing import write_witnesses_word

RECORDS_A_FOLDER = 100_000
_HAPPENINGS = 50
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PackOrder:
    """What is asked for.

    Attributes:
        test_results: the file's bytes; None where there is none.
        statements: the customer's file; empty for none.
        with_records: also every record of the period, as `audit.export` writes them.
        checkpoint: the signed tree under which everything is proven; empty for the newest. Of an older one the log must still
            be a continuation.
        is_closed: another log continues this one, and has what came later.
    """

    framework: Framework
    period: Period
    made_at_ms: int
    installation: Installation
    test_results: bytes | None = None
    statements: bytes = b""
    with_records: bool = False
    checkpoint: bytes = b""
    is_closed: bool = False


@dataclass(frozen=True, slots=True)
class WrittenPack:
    """What was written."""

    manifest: PackManifest
    digest: str
    content: Content


def write_pack(
    order: PackOrder,
    reader: LogReader,
    log_key: VerifierKey,
    folder: Path,
    signer: NoteSigner,
    progress: Progress = lambda _what, _done, _all: None,
    announce: Callable[[WrittenPack], None] = lambda _made: None,
) -> WrittenPack:
    """Write a pack.

    Args:
        folder: made by this; MUST not exist.
        announce: told of it before the manifest is written; what it raises leaves a folder that is no pack.
    Raises: PackRejected, PeriodRejected, StatementsRejected, ResultsRejected; SignatureRejected, ProofRejected, LogCorrupted,
    EntryNotFound; OSError.
    """
    if order.period.start_ms % 1000 or order.period.end_ms % 1000:
        raise PeriodRejected("a pack tells its period in whole seconds, and its ends are verified by what it tells")
    note = order.checkpoint or reader.checkpoint_note()
    checkpoint = verify_checkpoint(note, [log_key], log_key.name)  # (1)
    if order.checkpoint:
        _verify_continued(reader, checkpoint, log_key)
    start, end = find_records(reader, checkpoint.size, order.period)
    verify_edges(reader, checkpoint, start, end)
    activity = measure_activity(  # (2)
        reader,
        checkpoint,
        start,
        end,
        bucket_ms=choose_bucket(*(time_of(reader.read_entry(at, checkpoint.size)) for at in (start, end - 1))),
        progress=lambda done, all_: progress("records", done, all_),
    )
    content = build_content(order, reader, checkpoint, log_key, activity)  # (3)
    folder.mkdir(mode=0o750)
    writer = _Writer(folder)
    for name, data in write_documents(content, note, order.test_results, order.statements).items():  # (4)
        writer.write(name, data)
    for name, data in write_witnesses_word(reader, checkpoint, log_key, order.installation.cosigned).items():
        writer.write(name, data)
    for name, data in extract_records(reader, checkpoint, note, activity, choose_kinds(activity)):
        writer.write(name, data)
    for name, data in extract_edges(reader, checkpoint, note, start, end):
        writer.write(name, data)
    if order.with_records:
        _write_records(reader, log_key, note, folder, start, end, writer, progress)
    manifest = PackManifest(  # (5)
        checkpoint_size=checkpoint.size,
        end=end,
        files=sorted(writer.files, key=lambda file: file.name),
        format=PACK_FORMAT,
        framework=order.framework.name,
        made_at=format_instant(order.made_at_ms),
        origin=checkpoint.origin,
        period_end=format_instant(order.period.end_ms),
        period_start=format_instant(order.period.start_ms),
        root=checkpoint.root.hex(),
        software=order.installation.software,
        start=start,
    )
    data = encode_manifest(manifest)
    digest = hashlib.sha256(data).hexdigest()
    made = WrittenPack(manifest, digest, content)
    announce(made)
    (folder / SIGNATURE).write_bytes(signer.sign(signed_text(digest)))
    (folder / MANIFEST).write_bytes(data)
    return made


def _verify_continued(reader: LogReader, old: Checkpoint, log_key: VerifierKey) -> None:
    """The log's newest tree begins with an older one.

    Raises: PackRejected where it does not: the log was told anew.
    """
    newest = verify_checkpoint(reader.checkpoint_note(), [log_key], log_key.name)
    if old.size > newest.size or reader.root(old.size, newest.size) != old.root:
        raise PackRejected(
            f"{reader.folder}: its {newest.size} records do not continue the signed tree of {old.size} with root {old.root.hex()}"
        )


def build_content(
    order: PackOrder, reader: LogReader, checkpoint: Checkpoint, log_key: VerifierKey, activity: Activity
) -> Content:
    """Judge the controls, and gather what the documents tell.

    Raises: StatementsRejected, ResultsRejected, LogCorrupted.
    """
    controls = order.framework.controls
    statements = parse_statements(order.statements, controls, order.made_at_ms)
    results = NO_RESULTS if order.test_results is None else parse_results(order.test_results)
    is_ours = results.software == order.installation.software
    answers = dict(order.installation.answers)
    answers["records_present"] = Answer(True, f"{activity.num_records:,} records, verified against the signed tree")
    answers["records_retained"] = answer_retention(
        reader.folder, checkpoint.size, days=order.installation.retention_days, now_ms=order.made_at_ms
    )
    for name in QUESTIONS:
        answers.setdefault(name, UNKNOWN)
    judgements = judge(controls, answers, results if is_ours else NO_RESULTS, statements, activity.kinds)
    return Content(
        framework=order.framework,
        period=order.period,
        made_at_ms=order.made_at_ms,
        installation=replace(order.installation, answers=answers),
        checkpoint=checkpoint,
        log_key=log_key.encode(),
        activity=activity,
        judgements=judgements,
        score=compute_score(judgements, answers) if order.framework.is_scored else None,
        changes=list_happenings(reader, checkpoint.size, activity, CHANGES, _HAPPENINGS),
        faults=list_happenings(reader, checkpoint.size, activity, FAULTS, _HAPPENINGS, activity.differing),
        has_results=is_ours,
        answers=answers,
        limits=_find_limits(order, reader, checkpoint.size, activity),
    )


def _find_limits(order: PackOrder, reader: LogReader, size: int, activity: Activity) -> str:
    """Sentences about what of the period is in another log, or in none."""
    found = []
    if not activity.start and (beginning := find_beginning(reader.read_entry(0, size), order.period)) is not None:
        found.append(beginning.words)
    if order.is_closed and activity.end == size:
        closed_ms = time_of(reader.read_entry(size - 1, size))
        found.append(
            f"The log was closed behind its last record, of {format_time(closed_ms)}: what came later is in the log that continues "
            "it, and neither counted nor proven here."
        )
    return " ".join(found)


class _Writer:
    """Writes files below a folder, and remembers them for the manifest."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.files: list[PackedFile] = []

    def write(self, name: str, data: bytes) -> None:
        path = self._folder / name
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        path.write_bytes(data)
        self.files.append(PackedFile(len(data), name, hashlib.sha256(data).hexdigest()))

    def take(self, name: str) -> None:
        """A file that somebody else wrote below the folder."""
        with (self._folder / name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            self.files.append(PackedFile(file.tell(), name, digest))


def _write_records(
    reader: LogReader,
    key: VerifierKey,
    note: bytes,
    folder: Path,
    start: int,
    end: int,
    writer: _Writer,
    progress: Progress,
) -> None:
    """Every record, in exports of a bounded size: each is held in memory while it is written. All are under the pack's tree."""
    (folder / "log" / "records").mkdir(parents=True)
    for low in range(start, end, RECORDS_A_FOLDER):
        behind = min(low + RECORDS_A_FOLDER, end)
        name = f"log/records/{low}-{behind - 1}"
        write_export(reader, key, folder / name, low, behind, note=note)
        for path in sorted((folder / name).iterdir()):
            writer.take(f"{name}/{path.name}")
        progress("export", behind - start, end - start)
