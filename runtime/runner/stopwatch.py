"""How long parts of a step take on a device, without waiting for it: two events around each part, read after the step."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Stopwatch:
    """The sum over the parts of one step. On a CPU, where a call returns when its work is done, the clock's time."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """What is enqueued in here counts. Outside of captures."""
        if not self._on_gpu:
            started = time.perf_counter()
            yield
            self._seconds += time.perf_counter() - started
            return
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        yield
        end.record()
        self._events.append((begin, end))

    def seconds(self) -> float:
        """Of all parts; their work MUST have run."""
        milliseconds: float = sum(begin.elapsed_time(end) for begin, end in self._events)
        return self._seconds + milliseconds / 1000
