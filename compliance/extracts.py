"""Records themselves, with a proof each: the newest of every kind.

log/extracts/KIND.jsonl           the records, each the leaf's very bytes and a newline, oldest first; among those of
                                  `log_reconciled` also the newest minutes whose counts differed
log/edges/INDEX.json              a record at an end of the period, the leaf's very bytes; INDEX.tlog-proof its proof
log/proofs/INDEX.tlog-proof       C2SP tlog-proof: with the record and the log's key, all that it takes
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from audit.checkpoint import Checkpoint
from audit.permissions import KINDS
from audit.reader import LogReader
from compliance.activity import Activity
from compliance.manifest import EDGES
from compliance.period import edges_of, format_time, time_of


@dataclass(frozen=True, slots=True)
class Happening:
    """A change or fault, for the report."""

    index: int
    time: str
    kind: str
    actor: str
    target: str


def choose_kinds(activity: Activity) -> list[str]:
    """Kinds of which records are put into the pack: all that there are, and none by a name that a record made up."""
    return sorted(KINDS.keys() & activity.newest.keys())


def extract_records(
    reader: LogReader, checkpoint: Checkpoint, note: bytes, activity: Activity, kinds: Iterable[str]
) -> Iterator[tuple[str, bytes]]:
    """The files, by path.

    Args:
        checkpoint, note: the signed tree, whose signature was verified.
    """
    for kind in kinds:
        indices = sorted({*activity.newest[kind], *(activity.differing if kind == "log_reconciled" else ())})
        entries = [reader.read_entry(index, checkpoint.size) for index in indices]
        yield f"log/extracts/{kind}.jsonl", b"".join(entry + b"\n" for entry in entries)
        for index in indices:
            yield f"log/proofs/{index}.tlog-proof", reader.prove(index, checkpoint, note)


def extract_edges(
    reader: LogReader, checkpoint: Checkpoint, note: bytes, start: int, end: int
) -> Iterator[tuple[str, bytes]]:
    """What shows where the period's records begin and end, by path, so that whoever verifies sees that none was left out there."""
    for index in edges_of(start, end, checkpoint.size):
        yield f"{EDGES}{index}.json", reader.read_entry(index, checkpoint.size)
        yield f"{EDGES}{index}.tlog-proof", reader.prove(index, checkpoint, note)


def list_happenings(
    reader: LogReader, size: int, activity: Activity, kinds: Iterable[str], limit: int, more: Iterable[int] = ()
) -> list[Happening]:
    """The newest records of these kinds, and of some more, newest first."""
    found = {*more, *(index for kind in kinds for index in activity.newest.get(kind, ()))}
    indices = sorted(found, reverse=True)[:limit]
    return [_describe(index, reader.read_entry(index, size)) for index in indices]


def _describe(index: int, entry: bytes) -> Happening:
    """What a record is about, from wherever its kind says it; a record of another form is told by its kind and time."""
    event = json.loads(entry)
    own = ("unmapped", "casemate")
    who = _first_text(event, ("actor", "user", "name"), ("actor", "user", "uid"), (*own, "actor"), ("actor", "app_uid"))
    about = (("entity", "name"), ("entity", "uid"), ("user", "uid"), ("user", "name"), ("app", "name"), ("log_name",))
    return Happening(
        index, format_time(time_of(entry)), _first_text(event, (*own, "kind")), who, _first_text(event, *about)
    )


def _first_text(event: object, *paths: tuple[str, ...]) -> str:
    """The first text that is there; records are checked when they are made, and read as if they were not."""
    for path in paths:
        found = event
        for name in path:
            found = found.get(name) if isinstance(found, dict) else None
        if isinstance(found, str) and found:
            return found
    return ""
