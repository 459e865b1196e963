"""Whether every record is at hand that must be kept: in the log, or in the logs before it that it names.

The product deletes no record. What can be missing is a log that was closed by a rotation and then taken away, or files of one: a
new log's first record names the old one's size and root, and the old folder lies beside it under a name made of that root. The
first record of each is led to that root, as its time says how far back the log goes; of all others it is looked whether their
files are there. That they hold what was signed is for `casemate audit verify` to show.
"""

import json
from pathlib import Path

from audit.errors import AuditFault
from audit.merkle import leaf_hash, verify_inclusion
from audit.reader import LogReader
from compliance.activity import DAY_MS
from compliance.facts import Answer
from compliance.period import format_time, time_of


def answer_retention(folder: Path, size: int, *, days: int, now_ms: int) -> Answer:
    """Follow the logs backwards until one is old enough, or the first of all.

    Args:
        folder, size: the log, whose checkpoint was verified.
        days: how long records must be kept.
    Raises: LogCorrupted where the log itself cannot be read.
    """
    reader = LogReader(folder)
    first = reader.read_entry(0, size)
    while True:
        since_ms = time_of(first)
        if (missing := reader.find_missing_bundle(size)) is not None:
            return Answer(
                False, f"the log that begins on {format_time(since_ms)} lacks records: {missing} is not there"
            )
        if since_ms <= now_ms - days * DAY_MS:
            return Answer(True, f"the records go back to {format_time(since_ms)}, {days} days and more")
        own = json.loads(first).get("unmapped", {}).get("casemate", {})
        if own.get("kind") != "log_rotated":
            return Answer(True, f"the records go back to {format_time(since_ms)}, when the first log began")
        name = f"log-{str(own.get('previous_root'))[:16]}"
        before = _first_of(folder.with_name(name), own)
        if before is None:
            words = f"the log begins on {format_time(since_ms)}, and the one before it ({name}) is not beside it"
            return Answer(False, words)
        reader, size, first = before


def _first_of(folder: Path, named: dict[str, object]) -> tuple[LogReader, int, bytes] | None:
    """The log that a later one names, with its size and first record, if this folder holds that very tree."""
    size, root = named.get("previous_size"), named.get("previous_root")
    if not isinstance(size, int) or size <= 0:
        return None
    reader = LogReader(folder)
    try:
        first = reader.read_entry(0, size)
        verify_inclusion(leaf_hash(first), 0, size, reader.prove_inclusion(0, size), bytes.fromhex(str(root)))
    except (AuditFault, ValueError):
        return None
    return reader, size, first
