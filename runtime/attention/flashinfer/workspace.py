"""The memory that FlashInfer's plans are written to, and how it is reused while steps are in flight.

A plan is computed on the host into pinned memory and copied to the device asynchronously. The device's side may be
written again by a later copy on the same stream, since the kernels that read it come before; the pinned side may not,
until the copy from it has run. So each plan takes the pinned buffer that was used longest ago, behind an event.

Source: FlashInfer 0.6.14, `attention/scheduler.cuh`, whose sizes are computed here ahead.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

NUM_STAGING_BUFFERS = 4
"""One more than the steps that a runner has in flight: so the next buffer is free, and taking it waits for nothing."""

_FA2_LARGEST_TILE = 128
_FA3_ARRAYS = 7
_FA3_MOST_WORKS_PER_HEAD = 4096
"""Beyond so many tiles FA3 plans one head for all."""


class Event(Protocol):
    """What is used of torch.cuda.Event."""

    def record(self) -> None:
        """Mark what was enqueued on the current stream up to now."""
        ...

    def synchronize(self) -> None:
        """Wait until that has run."""
        ...


class PlanBuffers:
    """Where the plans of one kind of work go: one range of the device, pinned buffers in rotation."""

    def __init__(self, size_bytes: int, device: torch.device, new_event: Callable[[], Event]) -> None:
        self.on_device = torch.empty(size_bytes, dtype=torch.uint8, device=device)
        pinned = device.type == "cuda"
        self._staging = [
            (torch.empty(size_bytes, dtype=torch.uint8, pin_memory=pinned), new_event())
            for _ in range(NUM_STAGING_BUFFERS)
        ]
        self._next = 0

    @contextmanager
    def staging(self) -> Iterator[Tensor]:
        """Lend a pinned buffer whose last copy has run; the borrower enqueues one copy from it on the current stream."""
        buffer, event = self._staging[self._next]
        self._next = (self._next + 1) % NUM_STAGING_BUFFERS
        event.synchronize()
        yield buffer
        event.record()


def plan_bytes(num_heads: int) -> int:
    """Enough for any plan: FA3's, which lists every tile of every head, is the largest; FA2's has an entry a row."""
    return _FA3_ARRAYS * 4 * _FA3_MOST_WORKS_PER_HEAD * num_heads + (1 << 20)


def partial_results_bytes(
    *, num_heads: int, num_kv_heads: int, head_dim: int, max_sequences: int, num_multiprocessors: int
) -> int:
    """Room that FA2 asks for where keys are split over blocks: float32 results and their scales, for whole tiles.

    In a graph the number of tiles is bounded by the number of decodes, and all of them may be split.
    """
    group = num_heads // num_kv_heads
    tile = 16 if group <= 16 else 64 if group <= 64 else _FA2_LARGEST_TILE
    most_if_split = 2 * num_multiprocessors // num_kv_heads
    captured = max(most_if_split, -(-max_sequences * group // tile) + max_sequences - 1)
    return num_heads * max(captured * tile, most_if_split * _FA2_LARGEST_TILE) * (head_dim + 1) * 4 + 256
