"""What a start of the appliance costs, process by process: `python -m tests.bench.appliance_start [--runs N]`.

Starts `casemate serve` with the demo model on a new state folder, and when `/ready` says yes tells of each process how much
processor time it has used (user and system, its launcher included), how much memory is its own alone, and how long after the
supervisor it began. Processor time is what a start costs where others compute beside it; `chrt -r 1` before the command shows how
long it takes where nobody does. Medians of the runs.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import psutil

from tests.support.appliance import Appliance


class Cost(NamedTuple):
    """Of one process, up to `/ready`."""

    processor_s: float
    own_mb: float
    """Memory that would be free without it (USS); root alone sees that of confined processes."""
    began_s: float


class Start(NamedTuple):
    """One start."""

    ready_s: float
    costs: dict[str, Cost]


def measure_start() -> Start:
    """Start an appliance, and end it."""
    with tempfile.TemporaryDirectory() as folder:
        appliance = Appliance(Path(folder))
        try:
            began = time.monotonic()
            appliance.start()
            ready_s = time.monotonic() - began
            processes = {name: psutil.Process(pid) for name, pid in appliance.pids().items()}
            first = processes["supervisor"].create_time()
            costs = {name: _cost_of(process, first) for name, process in processes.items()}
        finally:
            appliance.stop()
    return Start(ready_s, costs)


def _cost_of(process: psutil.Process, first: float) -> Cost:
    times = process.cpu_times()
    return Cost(times.user + times.system, process.memory_full_info().uss / 1e6, process.create_time() - first)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.appliance_start", description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    starts = [measure_start() for _ in range(parser.parse_args().runs)]
    totals = [sum(cost.processor_s for cost in start.costs.values()) for start in starts]
    ready_s = statistics.median(start.ready_s for start in starts)
    print(f"ready after {ready_s:.2f} s, processor time {statistics.median(totals):.2f} s")
    print("process          s     MB  began at")
    for name in starts[0].costs:
        costs = [start.costs[name] for start in starts]
        processor_s, own_mb, began_s = (statistics.median(column) for column in zip(*costs, strict=True))
        print(f"{name:12} {processor_s:6.2f} {own_mb:6.1f} {began_s:6.2f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
