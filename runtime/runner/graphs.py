"""Captured CUDA graphs, and the sizes at which steps are captured: what a step costs the host then is a launch for many kernels.

Graphs are captured largest first, so that the smaller ones live in the memory of the largest (one pool). A step takes the
smallest graph that holds it; the rows left over are padding, which reads and writes page 0 only. What a graph computes
lies in memory that the captured function was given, and not in the pool, where another graph may write over it.
On a device without graphs (a CPU, in tests) a replay runs the captured function again, over the same buffers.
"""

from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeAlias

import torch

from runtime.step_sizes import STEP_SIZES

Pool: TypeAlias = Any
"""torch's handle of a memory pool that graphs share; it has no public type."""

Run: TypeAlias = Callable[[], None]
"""Enqueues the same kernels over the same memory whenever it is called."""


class Replay(Protocol):
    """A captured function."""

    def replay(self) -> None:
        """Enqueue it on the current stream."""
        ...


class CudaReplay:
    """A function of the device alone, captured in a CUDA graph."""

    def __init__(self, run: Run, pool: Pool, stream: torch.cuda.Stream) -> None:
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool, stream=stream):
            run()

    def replay(self) -> None:
        """See `Replay.replay`."""
        self._graph.replay()


class RepeatedCall:
    """The same function called again, where there are no graphs."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def replay(self) -> None:
        """See `Replay.replay`."""
        self._run()


class Capture:
    """Captures functions for one device, into one pool, on one stream beside the current one.

    One stream for all, as cuBLAS keeps a workspace of its own for every stream that it ever ran on.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._pool: Pool = torch.cuda.graph_pool_handle() if self._on_gpu else None
        self._stream = torch.cuda.Stream() if self._on_gpu else None

    def warm_up(self, run: Run) -> None:
        """Run what is about to be captured: this compiles, loads and chooses whatever a capture may not."""
        if self._stream is None:
            run()
            return
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            run()
        torch.cuda.current_stream().wait_stream(self._stream)

    def capture(self, run: Run) -> Replay:
        """Capture a function that was warmed up, alone or as a part of another."""
        return RepeatedCall(run) if self._stream is None else CudaReplay(run, self._pool, self._stream)


def graph_sizes(max_batch_size: int) -> list[int]:
    """Batch sizes to capture, ascending, the largest being `max_batch_size`; empty for 0.

    Every size up to 8, where a row more costs a kernel variant more; then steps of 8 up to 128 and of 16 beyond, so that
    padding stays below an eighth.
    """
    steps = (*range(1, 9), *range(16, 129, 8), *range(144, max_batch_size + 1, 16))
    sizes = [size for size in steps if size < max_batch_size]
    return [*sizes, max_batch_size] if max_batch_size else []


def shared_sizes(sizes: list[int]) -> list[int]:
    """Of ascending `graph_sizes` those at which steps are captured once more, with beginnings that are read for several decodes.

    Fewer, as each takes a tenth of a second at the start; up to 31 rows of padding cost less than what sharing saves.
    """
    return [size for size in sizes if size == 16 or size % 32 == 0 or size == sizes[-1]]


def piece_sizes(max_tokens: int) -> list[int]:
    """Numbers of rows for which steps with prompt chunks are captured, ascending, the largest being `max_tokens`.

    Up to 192 rows a product takes as long as its weights take to read, whatever the padding. Beyond, time grows with the
    rows; what a step is padded with mostly costs what the last tile would cost anyway.
    """
    sizes = [size for size in STEP_SIZES if size < max_tokens]
    return [*sizes, max_tokens] if max_tokens else []


def capture_order(sizes: Iterable[int]) -> list[int]:
    """Largest first."""
    return sorted(sizes, reverse=True)
