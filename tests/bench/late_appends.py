"""What late appends waited for, by the kernel's own events: `python -m tests.bench.late_appends [--dir DIR] [--runs N]`, as root.

The load is that of `audit_appends`. Meanwhile the kernel tells when the device was given a request and when it answered, when the
auditor's appending thread ran, could have run or slept, and when its syncs began and ended. What comes at a moment is read when
the commit under way has ended, and acknowledged with the next; where that takes more than LATE_S, the moment is late. Late moments
that follow each other closely are one *spell*, and all of it is laid to what the first of them waited for most:

| cause | what it is |
|---|---|
| device | the device had a request, of whomever, and answered none |
| kernel's worker | within a sync, nothing was asked of the device: the worker that sends the flush had no core |
| no core | the thread could have run |
| Python | it ran |
| elsewhere | it slept outside a sync: nothing came, another thread had the interpreter, or a segment was begun |

Recording costs some microseconds a commit. Nothing passes or fails here.
"""

import argparse
import bisect
import gc
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.audit_appends import measure_auditor
from tests.bench.latencies import percentile

LATE_S = 0.003
STEP_S = 0.0001
SPELL_S = 0.001
STALL_S = 0.002
BUFFER_KB = 64_000
TRACING = Path("/sys/kernel/tracing/instances/late_appends")
EVENTS = (
    "block/block_rq_issue",
    "block/block_rq_complete",
    "sched/sched_switch",
    "sched/sched_wakeup",
    "syscalls/sys_enter_fdatasync",
    "syscalls/sys_exit_fdatasync",
)
CAUSES = ("device", "kernel's worker", "no core", "Python", "elsewhere")
HEADER = (
    "| p50 ms | p99 ms | syncs: p50 ms | p99 ms | longest ms | device in answers over 2 ms % | late % | "
    + " | ".join(CAUSES)
    + " |\n|"
    + "---|" * (7 + len(CAUSES))
)
_LINE = re.compile(r"-(\d+) +\[\d+\] \S+ +([\d.]+): (.*)$")
_REQUEST = re.compile(r"block_rq_(issue|complete): \S+ (\S+) (?:\d+ )?\(\S*\) (\d+) \+ \d+")

Span = tuple[float, float]


@dataclass(slots=True)
class Timeline:
    """What happened, as spans in seconds, each list in order."""

    syncs: list[Span] = field(default_factory=list)
    """Of the appending thread."""
    states: list[tuple[float, float, str]] = field(default_factory=list)
    """Of the appending thread: `runs`, `ready` or `sleeps`."""
    services: list[Span] = field(default_factory=list)
    """From when the device could begin with the oldest request it had until it answered one."""


@dataclass(slots=True)
class Recording:
    """What the kernel told while an auditor was loaded."""

    pid: int = 0
    """Of the auditor, and so of its first thread, which appends."""
    lines: list[str] = field(default_factory=list)

    @contextmanager
    def of(self, pid: int) -> Iterator[None]:
        """Record meanwhile."""
        self.pid = pid
        TRACING.mkdir()
        try:
            (TRACING / "trace_clock").write_text("mono")
            (TRACING / "buffer_size_kb").write_text(str(BUFFER_KB))
            for event in EVENTS:
                (TRACING / "events" / event / "enable").write_text("1")
            yield
            (TRACING / "tracing_on").write_text("0")
            self.lines = (TRACING / "trace").read_text().splitlines()
        finally:
            TRACING.rmdir()


def read_timeline(recording: Recording) -> Timeline:
    """Take the spans out of the kernel's lines."""
    timeline, thread = Timeline(), recording.pid
    device = _Device(timeline.services)
    state, since_s, sync_s = "", 0.0, 0.0
    for line in recording.lines:
        match = _LINE.search(line)
        if match is None:
            continue
        now_s, told = float(match[2]), match[3]
        if told.startswith("block_rq_"):
            device.note(told, now_s)
        elif "fdatasync" in told and int(match[1]) == thread:
            if "->" not in told:
                sync_s = now_s
            elif sync_s:
                timeline.syncs.append((sync_s, now_s))
        elif new := _state_of(told, thread, state):
            if state:
                timeline.states.append((since_s, now_s, state))
            state, since_s = new, now_s
    return timeline


def _state_of(told: str, thread: int, state: str) -> str:
    """The state that an event of the scheduler puts the thread into; empty where it is about others."""
    if told.startswith("sched_switch") and f"prev_pid={thread} " in told:
        return "ready" if "prev_state=R" in told else "sleeps"
    if told.startswith("sched_switch") and f"next_pid={thread} " in told:
        return "runs"
    if told.startswith("sched_wakeup") and f" pid={thread} " in told and state == "sleeps":
        return "ready"
    return ""


class _Device:
    """A device that answers one request after the other, as its requests and answers show it."""

    def __init__(self, services: list[Span]) -> None:
        self._services = services
        self._open: dict[tuple[str, str], float] = {}
        self._answered_s = 0.0

    def note(self, told: str, now_s: float) -> None:
        match = _REQUEST.match(told)
        if match is None:
            return
        key = (match[2], "" if match[2].startswith("F") else match[3])  # The answer to a flush names no sector.
        if match[1] == "issue":
            self._open[key] = now_s
        elif key in self._open:
            self._services.append((max(min(self._open.values()), self._answered_s), now_s))
            self._answered_s = now_s
            del self._open[key]


def find_late(timeline: Timeline) -> tuple[int, Counter[str]]:
    """Number of all moments, and of late ones by cause."""
    causes: Counter[str] = Counter()
    num_moments, following, cause, last_late_s = 0, 1, "", 0.0
    now_s, end_s = timeline.syncs[0][1], timeline.syncs[-2][1]
    while now_s < end_s:
        while (
            timeline.syncs[following - 1][1] < now_s
        ):  # When this one ends what came until then is read, for the next.
            following += 1
        answered_s = timeline.syncs[following][1]
        if answered_s - now_s > LATE_S:
            if now_s - last_late_s > SPELL_S:
                waited = _wait(timeline, now_s, answered_s)
                cause = max(waited, key=waited.__getitem__)
            causes[cause] += 1
            last_late_s = now_s
        num_moments += 1
        now_s += STEP_S
    return num_moments, causes


def _wait(timeline: Timeline, start_s: float, end_s: float) -> dict[str, float]:
    """How long each cause held up what came at `start_s`, in seconds."""
    waited = dict.fromkeys(CAUSES, 0.0)
    first = max(0, bisect.bisect_right(timeline.states, (start_s,)) - 1)
    for since_s, until_s, state in timeline.states[first:]:
        low_s, high_s = max(since_s, start_s), min(until_s, end_s)
        if low_s >= end_s:
            break
        if state != "sleeps":
            waited["Python" if state == "runs" else "no core"] += max(0.0, high_s - low_s)
            continue
        in_sync_s = _covered(timeline.syncs, low_s, high_s)
        in_device_s = min(in_sync_s, _covered(timeline.services, low_s, high_s))
        waited["device"] += in_device_s
        waited["kernel's worker"] += in_sync_s - in_device_s
        waited["elsewhere"] += max(0.0, high_s - low_s - in_sync_s)
    return waited


def _covered(spans: Sequence[Span], low_s: float, high_s: float) -> float:
    """How much of [low_s, high_s) lies within the spans."""
    total_s = 0.0
    for since_s, until_s in spans[max(0, bisect.bisect_right(spans, (low_s,)) - 1) :]:
        if since_s >= high_s:
            break
        total_s += max(0.0, min(until_s, high_s) - max(since_s, low_s))
    return total_s


def describe(latencies: Sequence[float], timeline: Timeline) -> str:
    """A row below HEADER."""
    syncs = [until_s - since_s for since_s, until_s in timeline.syncs]
    took_s = timeline.syncs[-1][1] - timeline.syncs[0][0]
    stalled_s = sum(until_s - since_s for since_s, until_s in timeline.services if until_s - since_s > STALL_S)
    num_moments, causes = find_late(timeline)
    times = (percentile(latencies, 0.5), percentile(latencies, 0.99), percentile(syncs, 0.5), percentile(syncs, 0.99))
    shares = (causes.total(), *(causes[cause] for cause in CAUSES))
    cells = [f"{1e3 * time_s:.2f}" for time_s in (*times, max(syncs))]
    cells += [f"{100 * stalled_s / took_s:.2f}", *(f"{100 * share / num_moments:.2f}" for share in shares)]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure, and print a row of a table for each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=20_000, help="appends a second")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each run")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--dir", type=Path, help="a folder on the disk to be measured; default: a temporary one")
    arguments = parser.parse_args()
    if not TRACING.parent.is_dir():
        parser.error(f"{TRACING.parent} is not there: as root, mount -t tracefs none /sys/kernel/tracing")
    gc.disable()  # A pause of the generator would be counted as the auditor's.
    print(HEADER, flush=True)
    for _ in range(arguments.runs):
        recording = Recording()
        with tempfile.TemporaryDirectory(dir=arguments.dir) as folder:
            measured = measure_auditor(Path(folder), arguments.rate, arguments.seconds, recording.of)
        print(describe(measured.latencies, read_timeline(recording)), flush=True)


if __name__ == "__main__":
    main()
