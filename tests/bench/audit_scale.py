"""The log at scale: `python -m tests.bench.audit_scale verify|memory|search [--records N] [--dir DIR]`.

`verify` writes a log of so many records of 700 bytes and times `verify_log` over its folder. `memory` makes the right edge of a log
of so many records (the subtrees to the left of it are random hashes, which nobody reads again; the last RECENT records are an
ordinary day's, whose end a start reads back), starts a real auditor on it, asks it what policy asks at its start, loads it, and
says how much memory the auditor took at most. `search` fills an index with so many rows of 10,000 actors and times searches by
actor, for the last hundred records of each.
"""

import argparse
import json
import os
import random
import select
import tempfile
import time
from pathlib import Path

from appliance.messages.audit import FetchUsage
from audit.append import LogWriter
from audit.checkpoint import Checkpoint
from audit.entry import complete_entry, encode_event, parse_canonical
from audit.events import log_event
from audit.frontier import Frontier
from audit.fsck import verify_log
from audit.index import LogIndex, Query
from audit.permissions import kind_of
from audit.publish import TEMPORARY, write_signed
from audit.reader import WAL
from audit.settings import DEFAULT_ORIGIN
from audit.signing_key import create_signer
from audit.storage import Disk
from audit.tiles import TILE_WIDTH
from audit.wal import create_segment
from tests.bench.audit_appends import NUM_LINKS, make_event, run
from tests.bench.auditor_process import AuditorProcess
from tests.bench.latencies import percentile
from tests.support.synthetic_logs import make_events

NUM_ACTORS = 10_000
SUBTREE = TILE_WIDTH * TILE_WIDTH
RECENT = 500_000
"""As many as a start reads back of one day."""


def main() -> None:
    """Measure one of the two, and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["verify", "memory", "search"])
    parser.add_argument("--records", type=int)
    parser.add_argument("--dir", type=Path, help="where the log is made; default: a temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.dir) as folder:
        measure, default = MEASURES[arguments.what]
        num_records = arguments.records or default
        print(json.dumps({"records": num_records} | measure(Path(folder), num_records)))


def measure_verify(home: Path, num_records: int) -> dict[str, float]:
    """Seconds to verify a log of so many records, its files being in the page cache."""
    writer = LogWriter(home / "log", home / "log.key", origin=DEFAULT_ORIGIN)
    write_records(writer, num_records)
    writer.close()
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    verified = verify_log(home / "log", writer.key)
    took_s, took_cpu_s = time.perf_counter() - started_s, time.process_time() - started_cpu_s
    assert verified.checkpoint.size == num_records
    files = [path for path in (home / "log" / "tile").rglob("*") if path.is_file()]
    num_bytes = sum(path.stat().st_size for path in files)
    return {
        "verify_s": round(took_s, 2),
        "verify_cpu_s": round(took_cpu_s, 2),
        "files_per_1000_records": round(1000 * len(files) / num_records, 2),
        "bytes_per_record": round(num_bytes / num_records, 1),
    }


def measure_memory(home: Path, num_records: int) -> dict[str, float]:
    """Largest resident set of an auditor whose log has so many records, under load."""
    audit = home / "audit"
    make_right_edge(audit / "log", audit / "log.key", (num_records - RECENT) // SUBTREE)
    writer = LogWriter(audit / "log", audit / "log.key", origin=DEFAULT_ORIGIN)
    write_day(writer, num_records)
    writer.close()
    auditor = AuditorProcess(home, NUM_LINKS)
    started_mb = auditor.max_rss_mb
    num_rows = fetch_usage(auditor)
    run(auditor.links, 5_000, 10.0, make_event())
    most_mb = auditor.max_rss_mb
    auditor.drain()
    return {"at_start_mb": round(started_mb, 1), "auditor_max_rss_mb": round(most_mb, 1), "usage_rows": num_rows}


def fetch_usage(auditor: AuditorProcess) -> int:
    """Ask what policy asks at its start. Gives the number of rows."""
    link, num_rows, is_last = auditor.connect("policy", 0), 0, False
    link.queue(FetchUsage(1, 0))
    link.flush()
    while not is_last:
        select.select([link.sock], [], [])
        messages, ended = link.receive()
        assert not ended, "the auditor ended"
        for message in messages:
            num_rows, is_last = num_rows + len(message.rows), message.is_last
    link.close()
    return num_rows


def measure_search(home: Path, num_records: int) -> dict[str, float]:
    """Milliseconds of a search by actor in an index of so many records, the file being in the page cache."""
    writer = LogWriter(home / "log", home / "log.key", origin=DEFAULT_ORIGIN)
    index = LogIndex(home / "index.sqlite", home / "log", writer.key)
    database, chance = index._database, random.Random(1)
    database.execute("BEGIN")
    database.executemany("INSERT INTO terms VALUES (?, ?)", ((n, f"user-{n}") for n in range(1, NUM_ACTORS + 1)))
    names = "idx, time, status, actor, client, model, kind, outcome, tenant, request"
    rows = (
        (
            n,
            1_000 * n,
            1,
            chance.randint(1, NUM_ACTORS),
            chance.randint(1, 100),
            n % 3 + 1,
            n % 5 + 1,
            n % 4 + 1,
            n % 9 + 1,
            n,
        )
        for n in range(num_records)
    )
    database.executemany(f"INSERT INTO records ({names}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
    database.execute("COMMIT")
    taken_ms = []
    for _ in range(500):
        started_s = time.perf_counter()
        found = index.find(Query(actor=f"user-{chance.randint(1, NUM_ACTORS)}"), limit=100)
        taken_ms.append(1e3 * (time.perf_counter() - started_s))
        assert found
    index.close()
    writer.close()
    size_bytes = sum(path.stat().st_size for path in home.glob("index.sqlite*"))
    return {
        "search_p50_ms": round(percentile(taken_ms, 0.5), 3),
        "search_max_ms": round(max(taken_ms), 3),
        "index_bytes_per_record": round(size_bytes / num_records, 1),
    }


def make_right_edge(folder: Path, key: Path, num_subtrees: int) -> None:
    """A log of so many subtrees of 65,536 leaves, as far as a writer needs it: random hashes, tiles of the edge, an empty WAL."""
    disk = Disk()
    for name in (TEMPORARY, WAL):
        disk.make_folder(folder / name)
    levels: list[list[bytes]] = [[], []]
    left = num_subtrees
    while left:
        levels.append([os.urandom(32) for _ in range(left % TILE_WIDTH)])
        left //= TILE_WIDTH
    tree = Frontier(num_subtrees * SUBTREE, levels)
    for tile, data in tree.partial_tiles():
        disk.make_folder((folder / tile.path).parent)
        disk.write_file(folder / tile.path, data, folder / TEMPORARY / "tile")
    create_signer(key, DEFAULT_ORIGIN, disk)
    create_segment(disk, folder / WAL, tree.size, folder / TEMPORARY / "segment")
    write_signed(folder, Checkpoint(DEFAULT_ORIGIN, tree.size, tree.root()), disk)


def write_records(writer: LogWriter, size: int) -> None:
    """Append until the log has so many records, and publish. The first says that nothing is open before it."""
    event = make_event()
    facts: dict[str, str | int] = {"scan_from": writer.size}
    append_record(writer, encode_event(log_event("log_marked", log_name=DEFAULT_ORIGIN, facts=facts)))
    while writer.size < size:
        count = min(5_000, size - writer.next_index)
        for _ in range(count):
            append_record(writer, event)
        writer.commit()
        writer.publish()


def write_day(writer: LogWriter, size: int) -> None:
    """Append an ordinary day, up to now, until the log has so many records, and publish."""
    facts: dict[str, str | int] = {"scan_from": writer.size}
    append_record(writer, encode_event(log_event("log_marked", log_name=DEFAULT_ORIGIN, facts=facts)))
    for number, event in enumerate(make_events(size - writer.next_index, seed=1), 1):
        if event["unmapped"]["casemate"]["kind"] == "inference_outcome":
            event["unmapped"]["casemate"] |= {"intent_index": writer.next_index - 1, "counts": "unreported"}
        append_record(writer, encode_event(event))
        if number % 5_000 == 0:
            writer.commit()
            writer.publish()
    writer.commit()
    writer.publish()


def append_record(writer: LogWriter, event: bytes) -> None:
    """Append an event as the auditor would complete it."""
    parsed = parse_canonical(event)
    entry = complete_entry(
        parsed,
        index=writer.next_index,
        time_ms=time.time_ns() // 1_000_000,
        reporter="auditor/0" if kind_of(parsed).startswith("log_") else "gateway/0",
        log_name=DEFAULT_ORIGIN,
        random=os.urandom(16),
    )
    writer.append([entry])


MEASURES = {
    "verify": (measure_verify, 1_000_000),
    "memory": (measure_memory, 100_000_000),
    "search": (measure_search, 10_000_000),
}

if __name__ == "__main__":
    main()
