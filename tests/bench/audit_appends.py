"""Durable appends over the socket, open loop: `python -m tests.bench.audit_appends [--rate N] [--seconds N]`.

64 writers on 4 links send events whose leaves have 700 bytes, each at its time whatever the answers do. The latency of an append is
from the time at which it was due until its index was read: a generator or an auditor that is late shows. Nothing passes or
fails here.
"""

import argparse
import gc
import json
import os
import resource
import select
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from appliance.ipc.framed_socket import FramedSocket
from appliance.messages.audit import AppendEvent, AppendRefused, Recorded
from audit.entry import encode_event
from audit.events import token_rejected_event
from audit.reader import LogReader
from tests.bench.auditor_process import AuditorProcess

NUM_LINKS = 4
NUM_WRITERS = 64
LEAF_BYTES = 700
OWN_BYTES = 190
"""What the auditor adds to an event, about."""
TICK_S = 0.0002
SETTLE_S = 2.0


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


def settle() -> None:
    """Let the device finish what was asked of it before, so that it is not measured as ours.

    The log of an earlier run that was removed is given back to a device that discards blocks with the next commits of the file
    system's journal, and every sync waits for that: p99 of 40 to 130 ms were seen in the first seconds after it.
    """
    os.sync()
    time.sleep(SETTLE_S)
    os.sync()


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which so large a share lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def main() -> None:
    """Measure, and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=20_000, help="appends a second")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--dir", type=Path, help="a folder on the disk to be measured; default: a temporary one")
    arguments = parser.parse_args()
    gc.disable()  # A pause of the generator would be counted as the auditor's.
    with tempfile.TemporaryDirectory(dir=arguments.dir) as folder:
        auditor = AuditorProcess(Path(folder), NUM_LINKS)
        event = make_event()
        settle()
        run(auditor.links, 2_000, 1.0, event)
        latencies, took_s = run(auditor.links, arguments.rate, arguments.seconds, event)
        auditor.drain()
        reader = LogReader(Path(folder) / "audit" / "log")
        leaf = reader.read_entry(10, 256)
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        json.dumps(
            {
                "appends_per_s": round(len(latencies) / took_s),
                "leaf_bytes": len(leaf),
                "p50_ms": round(1e3 * percentile(latencies, 0.5), 2),
                "p99_ms": round(1e3 * percentile(latencies, 0.99), 2),
                "p999_ms": round(1e3 * percentile(latencies, 0.999), 2),
                "max_ms": round(1e3 * max(latencies), 2),
                "auditor_cpu_s": round(usage.ru_utime + usage.ru_stime, 2),
                "auditor_max_rss_mb": usage.ru_maxrss // 1024,
            }
        )
    )


if __name__ == "__main__":
    main()
