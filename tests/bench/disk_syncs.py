"""How long the disk itself takes to sync: `python -m tests.bench.disk_syncs [--dir DIR] [--seconds N]`, beside `audit_appends`.

Nothing of the product runs here. A file of 32 MiB is overwritten in pieces as large as a commit and synced with fdatasync(2), as a
write-ahead log is: first alone, then while a thread writes, syncs and renames files as a log that takes 20,000 records a second is
published. What is slow here is slow for every program on this disk. An open loop feels the share of time that passes within long
syncs, not their number: whoever comes while a sync of 80 ms runs waits for its end. `log_p50_ms` and `log_p99_ms` are what
records that come 20,000 a second wait for in a log that does nothing but write and sync, whatever has come, again and
again: no log with one sync at a time waits for less on this disk.
"""

import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.latencies import percentile, settle

COMMIT_BYTES = 16_384
FILE_BYTES = 32 << 20
BUNDLE_BYTES = 256 * 702
IDLE_S = 0.0001
RECORDS_PER_S = 20_000
RECORD_BYTES = 702
FILES_PER_S = RECORDS_PER_S / 256
BOUND_MS = 3.0


def make_probe(folder: Path) -> None:
    """The file to overwrite, with its blocks on the disk."""
    with open(folder / "probe", "wb") as file:
        file.write(bytes(FILE_BYTES))
        file.flush()
        os.fsync(file.fileno())


def measure(folder: Path, seconds: float) -> dict[str, float]:
    """The distribution of one fdatasync after another, in milliseconds."""
    descriptor = os.open(folder / "probe", os.O_RDWR)
    taken_ms: list[float] = []
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        os.pwrite(descriptor, b"x" * COMMIT_BYTES, len(taken_ms) * COMMIT_BYTES % FILE_BYTES)
        started_s = time.perf_counter()
        os.fdatasync(descriptor)
        taken_ms.append(1e3 * (time.perf_counter() - started_s))
    os.close(descriptor)
    slow_ms = sum(taken for taken in taken_ms if taken > BOUND_MS)
    return {
        "syncs": len(taken_ms),
        "p50_ms": round(percentile(taken_ms, 0.5), 2),
        "p99_ms": round(percentile(taken_ms, 0.99), 2),
        "p999_ms": round(percentile(taken_ms, 0.999), 2),
        "max_ms": round(max(taken_ms), 2),
        "time_in_syncs_over_3_ms": round(slow_ms / (1e3 * seconds), 4),
    }


def simplest_log(folder: Path, seconds: float) -> list[float]:
    """What records that come evenly wait for in the simplest log that there can be, in seconds."""
    descriptor = os.open(folder / "probe", os.O_RDWR)
    waited_s: list[float] = []
    started_s = time.monotonic() + 0.01
    position = 0
    while len(waited_s) < RECORDS_PER_S * seconds:
        num_due = int((time.monotonic() - started_s) * RECORDS_PER_S) - len(waited_s)
        if num_due <= 0:
            time.sleep(IDLE_S)
            continue
        batch = bytes(num_due * RECORD_BYTES)
        if position + len(batch) > FILE_BYTES:
            position = 0
        os.pwrite(descriptor, batch, position)
        os.fdatasync(descriptor)
        position += len(batch)
        ended_s, done = time.monotonic(), len(waited_s)
        waited_s += [ended_s - started_s - (done + n) / RECORDS_PER_S for n in range(num_due)]
    os.close(descriptor)
    return waited_s


@contextmanager
def files_published(folder: Path) -> Iterator[None]:
    """A thread publishes files meanwhile, as many as a log that takes so many records."""
    stop = threading.Event()
    publisher = threading.Thread(target=publish, args=(folder, stop))
    publisher.start()
    try:
        yield
    finally:
        stop.set()
        publisher.join()


def publish(folder: Path, stop: threading.Event) -> None:
    """Write, sync and rename files of the size and at the rate of entry bundles, until told to stop."""
    count, started_s = 0, time.monotonic()
    while not stop.wait(max(0.0, started_s + count / FILES_PER_S - time.monotonic())):
        temporary = folder / "temporary"
        with open(temporary, "wb") as file:
            file.write(bytes(BUNDLE_BYTES))
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(folder / f"bundle-{count}")
        count += 1


def describe(folder: Path, seconds: float) -> dict[str, float]:
    """Both measurements, in milliseconds."""
    syncs = measure(folder, seconds)
    waited_s = simplest_log(folder, seconds)
    return syncs | {
        "log_p50_ms": round(1e3 * percentile(waited_s, 0.5), 2),
        "log_p99_ms": round(1e3 * percentile(waited_s, 0.99), 2),
        "log_max_ms": round(1e3 * max(waited_s), 2),
    }


def main() -> None:
    """Measure alone, then beside files being published, and print one line of JSON each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--dir", type=Path, help="a folder on the disk to be measured; default: a temporary one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.dir) as name:
        folder, seconds = Path(name), arguments.seconds
        make_probe(folder)
        settle()
        print(json.dumps({"beside": "nothing"} | describe(folder, seconds)), flush=True)
        with files_published(folder):
            print(json.dumps({"beside": "files"} | describe(folder, seconds)), flush=True)


if __name__ == "__main__":
    main()
