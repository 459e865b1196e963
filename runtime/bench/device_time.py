"""Time of kernels on a GPU: device events around replayed graphs, over more memory than the L2 cache holds."""

from collections.abc import Callable, Sequence
from statistics import median

import torch
from torch import Tensor

Call = Callable[[], None]

_COPIED_BYTES = 1 << 31
_PRODUCT_SIZE = 8192
ROTATED_BYTES = 400_000_000
"""Inputs of one measurement take at least so much, several times the 50 MB of an H100's L2."""


def seconds_per_call(calls: Sequence[Call], *, replays: int = 15) -> float:
    """Median time of one of `calls`, which are captured in their order into one graph.

    They should do the same work on different memory, `ROTATED_BYTES` of it in all.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        calls[0]()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    times = [_seconds_of(graph.replay) for _ in range(replays + 2)][2:]
    return median(times) / len(calls)


def copy_bandwidth() -> float:
    """Bytes per second, read and written, of a copy of 2 GiB: the wall beside which times are read."""
    source = torch.empty(_COPIED_BYTES // 2, dtype=torch.bfloat16, device="cuda").normal_()
    target = torch.empty_like(source)
    times = [_seconds_of(lambda: target.copy_(source)) for _ in range(10)]
    return 2 * _COPIED_BYTES / median(times)


def product_rate(dtype: torch.dtype) -> float:
    """Operations per second of a square product by cuBLAS: the other wall.

    Args:
        dtype: bfloat16 or e4m3.
    """
    left, right = (torch.randn(_PRODUCT_SIZE, _PRODUCT_SIZE, device="cuda").to(dtype) for _ in range(2))
    one = torch.ones((), device="cuda")

    def multiply() -> Tensor:
        if dtype == torch.bfloat16:
            return left @ right.t()
        return torch._scaled_mm(left, right.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16)

    times = [_seconds_of(multiply) for _ in range(10)]
    return 2 * float(_PRODUCT_SIZE) ** 3 / median(times)


def num_rotated(bytes_each: int, most: int = 32) -> int:
    """How many copies of some input a measurement should rotate over."""
    return max(2, min(most, -(-ROTATED_BYTES // bytes_each)))


def _seconds_of(run: Callable[[], object]) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    run()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3
