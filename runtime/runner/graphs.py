"""Decode steps as captured CUDA graphs: what a step costs the host no longer grows with the model's layers.

One graph a batch size, captured largest first, so that the smaller ones live in the memory of the largest (one pool). A
step takes the smallest graph that holds it; the rows left over are padding, which reads and writes page 0 only.
On a device without graphs (a CPU, in tests) a replay runs the captured function again, over the same buffers.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

Pool: TypeAlias = Any
"""torch's handle of a memory pool that graphs share; it has no public type."""

_NUM_WARMUP_RUNS = 2


class Replay(Protocol):
    """A captured function."""

    @property
    def output(self) -> Tensor:
        """What the function returned; a replay writes it again."""
        ...

    def replay(self) -> None:
        """Enqueue it on the current stream."""
        ...


class CudaReplay:
    """A function of the device alone, captured in a CUDA graph."""

    def __init__(self, run: Callable[[], Tensor], pool: Pool) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_NUM_WARMUP_RUNS):  # compiles, loads and chooses whatever a capture may not
                run()
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool):
            self.output = run()

    def replay(self) -> None:
        """See `Replay.replay`."""
        self._graph.replay()


class RepeatedCall:
    """The same function called again, where there are no graphs."""

    def __init__(self, run: Callable[[], Tensor]) -> None:
        self._run = run
        self.output = run()

    def replay(self) -> None:
        """See `Replay.replay`."""
        self.output.copy_(self._run())


def capture(run: Callable[[], Tensor], device: torch.device, pool: Pool | None) -> Replay:
    """Capture a function that reads and writes fixed addresses of `device`."""
    if device.type != "cuda":
        return RepeatedCall(run)
    assert pool is not None
    return CudaReplay(run, pool)


def graph_sizes(max_batch_size: int) -> list[int]:
    """Batch sizes to capture, ascending, the largest being `max_batch_size`; empty for 0.

    Every size up to 8, where a row more costs a kernel variant more; then steps of 8 up to 128 and of 16 beyond, so that
    padding stays below an eighth.
    """
    steps = (*range(1, 9), *range(16, 129, 8), *range(144, max_batch_size + 1, 16))
    sizes = [size for size in steps if size < max_batch_size]
    return [*sizes, max_batch_size] if max_batch_size else []


def smallest_holding(sizes: list[int], count: int) -> int | None:
    """The smallest of the ascending `sizes` that is at least `count`; None if all are smaller."""
    place = bisect_left(sizes, count)
    return sizes[place] if place < len(sizes) else None


def capture_order(sizes: Iterable[int]) -> list[int]:
    """Largest first."""
    return sorted(sizes, reverse=True)
