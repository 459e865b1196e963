"""`python -m appliance.bench.load_process`: one of a fleet's processes. An order comes on standard input, answers leave on
standard output. Not for people.

The process says `ready` when everything is prepared, and begins at the first byte that follows the order: all processes of a
fleet begin together, and none of them prepares while another measures.
"""

import gc
import resource
import sys
import time
from collections.abc import Iterator
from typing import BinaryIO

import msgspec

from appliance.bench.connection import Answer
from appliance.bench.load import Load
from appliance.bench.target import Target
from appliance.bench.workloads import Planned
from appliance.ipc.frames import encode_frame

_PROGRESS_INTERVAL_S = 0.1
_MAX_ARRIVALS = 500_000
"""In one batch, of nine bytes each."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What one process does."""

    target: Target
    plan: list[Planned]
    concurrency: int
    due_s: list[float] | None
    timeout_s: float = 300.0
    opens_ahead: bool = False


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """Waiting for the start."""


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """So many answers have ended."""

    num_answers: int
    num_errors: int


class Batch(msgspec.Struct, frozen=True, tag="batch"):
    """Some of the answers."""

    answers: list[Answer]


class Report(msgspec.Struct, frozen=True, tag="report"):
    """All answers were told. `cpu_s` is the time that this process computed between the start and the end."""

    began_at: float
    ended_at: float
    cpu_s: float


Message = Ready | Progress | Batch | Report


def main() -> int:
    """Read an order, carry it out."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    length = int.from_bytes(source.read(4), "little")
    order = msgspec.msgpack.decode(source.read(length), type=Order)
    told_at, num_errors = 0.0, 0

    def on_progress(answers: list[Answer]) -> None:
        nonlocal told_at, num_errors
        num_errors += bool(answers[-1].error)
        now = time.monotonic()
        if now - told_at > _PROGRESS_INTERVAL_S:
            told_at = now
            _write(sink, Progress(len(answers), num_errors))

    load = Load(
        order.target,
        order.plan,
        concurrency=order.concurrency,
        due_s=order.due_s,
        timeout_s=order.timeout_s,
        on_progress=on_progress,
    )
    if order.opens_ahead:
        load.open_ahead()
    _write(sink, Ready())
    source.read(1)
    gc.disable()  # A collection would stop the clock of every stream for tens of milliseconds.
    began_at, began_cpu = time.perf_counter(), time.process_time()
    answers = load.run()
    cpu_s, ended_at = time.process_time() - began_cpu, time.perf_counter()
    for batch in _batches(answers):
        _write(sink, batch)
    _write(sink, Report(began_at, ended_at, cpu_s))
    return 0


def _batches(answers: list[Answer]) -> Iterator[Batch]:
    """Parts that fit into frames."""
    part: list[Answer] = []
    num_arrivals = 0
    for answer in answers:
        answer.texts, answer.body = [], b""
        part.append(answer)
        num_arrivals += len(answer.arrivals) + 100
        if num_arrivals > _MAX_ARRIVALS:
            yield Batch(part)
            part, num_arrivals = [], 0
    yield Batch(part)


def _write(sink: BinaryIO, message: Message) -> None:
    sink.write(encode_frame(msgspec.msgpack.encode(message)))
    sink.flush()


if __name__ == "__main__":
    sys.exit(main())
