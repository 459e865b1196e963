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
from pathlib import Path

from tests.bench.audit_appends import percentile, settle

COMMIT_BYTES = 16_384
FILE_BYTES = 32 << 20
BUNDLE_BYTES = 256 * 702
IDLE_S = 0.0001
RECORDS_PER_S = 20_000
RECORD_BYTES = 702
FILES_PER_S = RECORDS_PER_S / 256
BOUND_MS = 3.0


def measure(folder: Path, seconds: float) -> dict[str, float]:
    """The distribution of one fdatasync after another, in milliseconds."""
    descriptor = os.open(folder / "probe", os.O_RDWR | os.O_CREAT, 0o600)
    os.pwrite(descriptor, bytes(FILE_BYTES), 0)
    os.fsync(descriptor)
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


def measure_log(folder: Path, seconds: float) -> dict[str, float]:
    """What records wait for that come evenly, in the simplest log that there can be, in milliseconds."""
    descriptor = os.open(folder / "probe", os.O_RDWR)
    waited_ms: list[float] = []
    started_s = time.monotonic() + 0.01
    position = 0
    while len(waited_ms) < RECORDS_PER_S * seconds:
        num_due = int((time.monotonic() - started_s) * RECORDS_PER_S) - len(waited_ms)
        if num_due <= 0:
            time.sleep(IDLE_S)
            continue
        batch = bytes(num_due * RECORD_BYTES)
        if position + len(batch) > FILE_BYTES:
            position = 0
        os.pwrite(descriptor, batch, position)
        os.fdatasync(descriptor)
        position += len(batch)
        ended_s, done = time.monotonic(), len(waited_ms)
        waited_ms += [1e3 * (ended_s - started_s - (done + n) / RECORDS_PER_S) for n in range(num_due)]
    os.close(descriptor)
    return {
        "log_p50_ms": round(percentile(waited_ms, 0.5), 2),
        "log_p99_ms": round(percentile(waited_ms, 0.99), 2),
        "log_max_ms": round(max(waited_ms), 2),
    }


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


def main() -> None:
    """Measure alone, then beside files being published, and print one line of JSON each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--dir", type=Path, help="a folder on the disk to be measured; default: a temporary one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.dir) as name:
        folder, seconds = Path(name), arguments.seconds
        settle()
        print(json.dumps({"beside": "nothing"} | measure(folder, seconds) | measure_log(folder, seconds)), flush=True)
        stop = threading.Event()
        publisher = threading.Thread(target=publish, args=(folder, stop))
        publisher.start()
        try:
            print(json.dumps({"beside": "files"} | measure(folder, seconds) | measure_log(folder, seconds)), flush=True)
        finally:
            stop.set()
            publisher.join()


if __name__ == "__main__":
    main()
