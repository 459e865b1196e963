"""Durable appends over the socket, open loop: `python -m tests.bench.audit_appends [--dir DIR] [--runs N] [--seconds N]`.

64 writers on 4 links send events whose leaves have 700 bytes, each at its time whatever the answers do. The latency of an append is
from the time at which it was due until its index was read: a generator or an auditor that is late shows. Before each run the
simplest log that there can be (`disk_syncs`) takes as many records on the same disk, in a program of its own and with nothing to
check, hash or answer: what it waits for, the disk makes every log wait for. Two rows a run, as Markdown; nothing passes or fails
here.

It needs a clone and what Casemate needs at run time. Auditor and generator share two cores of a larger machine with:

    taskset -c 0,1 python -m tests.bench.audit_appends --dir /var/lib/casemate --runs 3
"""

import argparse
import gc
import select
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from appliance.ipc.framed_socket import FramedSocket
from appliance.messages.audit import AppendEvent, AppendRefused, Recorded
from audit.entry import encode_event
from audit.events import token_rejected_event
from audit.reader import LogReader
from tests.bench.auditor_process import AuditorProcess
from tests.bench.disk_syncs import files_published, make_probe, simplest_log
from tests.bench.latencies import percentile, settle

NUM_LINKS = 4
NUM_WRITERS = 64
LEAF_BYTES = 700
OWN_BYTES = 173
"""What the auditor adds to an event, about."""
TICK_S = 0.0002
WARM_RATE = 2_000
WARM_S = 1.0
HEADER = """\
| what | appends/s | p50 ms | p99 ms | p99.9 ms | longest ms | CPU us an append |
|---|---|---|---|---|---|---|"""


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of one log."""

    what: str
    latencies: list[float]
    took_s: float
    cpu_s: float
    """Of the process that writes, all threads."""

    @property
    def row(self) -> str:
        """A row below HEADER."""
        shares = (percentile(self.latencies, share) for share in (0.5, 0.99, 0.999))
        times = " | ".join(f"{1e3 * wait_s:.2f}" for wait_s in (*shares, max(self.latencies)))
        count = len(self.latencies)
        return f"| {self.what} | {count / self.took_s:,.0f} | {times} | {1e6 * self.cpu_s / count:.1f} |"


def make_event(leaf_bytes: int = LEAF_BYTES) -> bytes:
    """An event whose leaf has about so many bytes."""

    def build(detail: str) -> bytes:
        event = token_rejected_event(
            address="10.0.0.1", port=4711, route="/generate", code="token_expired", detail=detail
        )
        return encode_event(event)

    return build("y" * (leaf_bytes - OWN_BYTES - len(build(""))))


def run(links: Sequence[FramedSocket], rate: int, seconds: float, event: bytes) -> tuple[list[float], float]:
    """Latencies in seconds of every append, and how long it took until the last answer."""
    total = int(rate * seconds)
    latencies: list[float] = []
    sent = 0
    start = time.monotonic() + 0.01
    while len(latencies) < total:
        now = time.monotonic()
        due = min(total, int((now - start) * rate))
        while sent < due:
            # The writer's number chooses the link; the correlation says when the append was due.
            links[sent % NUM_WRITERS % len(links)].queue(AppendEvent(sent, event))
            sent += 1
        for link in links:
            if link.wants_write:
                link.flush()
        wait_s = TICK_S if sent < total else 0.05
        ready, _, _ = select.select([link.sock for link in links], [], [], wait_s)
        for link in links:
            if link.sock not in ready:
                continue
            messages, ended = link.receive()
            now = time.monotonic()
            assert not ended, "the auditor ended"
            for message in messages:
                match message:
                    case Recorded():
                        latencies.append(now - (start + message.correlation / rate))
                    case AppendRefused():
                        raise AssertionError(message)
    return latencies, time.monotonic() - start


def measure_auditor(
    folder: Path,
    rate: int,
    seconds: float,
    watched: Callable[[int], AbstractContextManager[None]] = nullcontext,
) -> Measured:
    """Start an auditor over a folder on the disk to be measured, and load it.

    Args:
        watched: of the auditor's process id: surrounds the load.
    """
    auditor = AuditorProcess(folder, NUM_LINKS)
    event = make_event()
    settle()
    run(auditor.links, WARM_RATE, WARM_S, event)
    started_cpu_s = auditor.cpu_s
    with watched(auditor.process.pid):
        latencies, took_s = run(auditor.links, rate, seconds, event)
    cpu_s = auditor.cpu_s - started_cpu_s
    auditor.drain()
    leaf = LogReader(folder / "audit" / "log").read_entry(10, 256)
    return Measured(f"the auditor, records of {len(leaf)} bytes", latencies, took_s, cpu_s)


def measure_simplest(folder: Path, seconds: float) -> Measured:
    """The simplest log that there can be on the same disk, beside files that are published as ours are."""
    make_probe(folder)
    settle()
    started_s, started_cpu_s = time.monotonic(), time.process_time()
    with files_published(folder):
        latencies = simplest_log(folder, seconds)
    return Measured(
        "the simplest log there can be", latencies, time.monotonic() - started_s, time.process_time() - started_cpu_s
    )


def main() -> None:
    """Measure in turns, and print a row of a table for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=20_000, help="appends a second")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each run")
    parser.add_argument("--runs", type=int, default=1, help="of the auditor, with the simplest log before each")
    parser.add_argument("--dir", type=Path, help="a folder on the disk to be measured; default: a temporary one")
    parser.add_argument("--alone", action="store_true", help="leave the simplest log out")
    arguments = parser.parse_args()
    gc.disable()  # A pause of the generator would be counted as the auditor's.
    print(HEADER, flush=True)
    for _ in range(arguments.runs):
        if not arguments.alone:
            with tempfile.TemporaryDirectory(dir=arguments.dir) as folder:
                print(measure_simplest(Path(folder), arguments.seconds).row, flush=True)
        with tempfile.TemporaryDirectory(dir=arguments.dir) as folder:
            print(measure_auditor(Path(folder), arguments.rate, arguments.seconds).row, flush=True)


if __name__ == "__main__":
    main()
