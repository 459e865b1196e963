"""Records themselves, with a proof each: the newest of every kind that is evidence for something.

log/extracts/KIND.jsonl           the records, each the leaf's very bytes and a newline, oldest first
log/proofs/INDEX.tlog-proof       C2SP tlog-proof: with the record and the log's key, all that it takes
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from audit.checkpoint import Checkpoint
from audit.reader import LogReader
from compliance.activity import CHANGES, FAULTS, Activity
from compliance.period import format_time, time_of


@dataclass(frozen=True, slots=True)
class Happening:
    """A change or fault, for the report."""

    index: int
    time: str
    kind: str
    actor: str
    target: str


def choose_kinds(activity: Activity, wanted: Iterable[str]) -> list[str]:
    """Kinds of which records are put into the pack: those that controls name, changes and faults."""
    return sorted((set(wanted) | CHANGES | FAULTS) & set(activity.newest))


def extract_records(
    reader: LogReader, checkpoint: Checkpoint, note: bytes, activity: Activity, kinds: Iterable[str]
) -> Iterator[tuple[str, bytes]]:
    """The files, by path.

    Args:
        checkpoint, note: the signed tree, whose signature was verified.
    """
    for kind in kinds:
        indices = activity.newest[kind]
        entries = [reader.read_entry(index, checkpoint.size) for index in indices]
        yield f"log/extracts/{kind}.jsonl", b"".join(entry + b"\n" for entry in entries)
        for index in indices:
            yield f"log/proofs/{index}.tlog-proof", reader.prove(index, checkpoint, note)


def list_happenings(
    reader: LogReader, size: int, activity: Activity, kinds: Iterable[str], limit: int
) -> list[Happening]:
    """The newest records of these kinds, newest first."""
    indices = sorted((index for kind in kinds for index in activity.newest.get(kind, ())), reverse=True)[:limit]
    return [_describe(index, reader.read_entry(index, size)) for index in indices]


def _describe(index: int, entry: bytes) -> Happening:
    event = json.loads(entry)
    own = event.get("unmapped", {}).get("casemate", {})
    actor = event.get("actor", {})
    who = (
        actor.get("user", {}).get("name")
        or actor.get("user", {}).get("uid")
        or own.get("actor")
        or actor.get("app_uid")
    )
    what = (
        event.get("entity", {}).get("name")
        or event.get("entity", {}).get("uid")
        or event.get("user", {}).get("uid")
        or event.get("app", {}).get("name")
        or event.get("log_name", "")
    )
    return Happening(index, format_time(time_of(entry)), str(own.get("kind", "")), str(who or ""), str(what))
