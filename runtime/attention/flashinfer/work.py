"""Part of a planned step: some of its sequences, on one kernel, for all layers of one window."""

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from runtime.attention.device import DeviceTables, SequenceTables
from runtime.attention.flashinfer.calls import Cache, HostTables, PagedKernel, QueryKernel
from runtime.attention.flashinfer.workspace import PlanBuffers


class Work(Protocol):
    """Part of a step, ready to run in each layer of one window."""

    def run(self, cache: Cache, query: Tensor, out: Tensor) -> None:
        """Attention of the rows that are ours, written to the same rows of `out`; shapes as in `DevicePlan.attend`."""
        ...


@dataclass(frozen=True, slots=True)
class PagedWork:
    """Sequences whose keys are split over blocks by a plan that the host made."""

    kernel: PagedKernel
    description: Any
    buffers: PlanBuffers
    tables: DeviceTables
    num_rows: int | None
    """The first so many rows are the kernel's; None: all, and the plan says which."""

    def run(self, cache: Cache, query: Tensor, out: Tensor) -> None:
        """See `Work`."""
        rows = slice(self.num_rows)
        self.kernel.run(self.description, self.buffers, cache, self.tables, query[rows], out[rows])


@dataclass(frozen=True, slots=True)
class QueryWork:
    """Decodes, one row each and first in the step; what they need is read on the device, so there is no plan."""

    kernel: QueryKernel
    block_tables: Tensor
    context_lengths: Tensor

    def run(self, cache: Cache, query: Tensor, out: Tensor) -> None:
        """See `Work`."""
        rows = slice(len(self.block_tables))
        self.kernel.run(cache, self.block_tables, self.context_lengths, query[rows], out[rows])


def host_rows(host: SequenceTables, first: int, end: int) -> HostTables:
    """The tables of sequences [first, end) as tensors over the same memory."""
    return HostTables(
        query_starts=torch.from_numpy(host.query_starts[first : end + 1]),
        context_lengths=torch.from_numpy(host.context_lengths[first:end]),
        page_starts=torch.from_numpy(host.page_starts[first : end + 1]),
    )


def device_rows(device: DeviceTables, first: int, end: int) -> DeviceTables:
    """The tables of sequences [first, end) as views; `page_starts` still count from the beginning of `page_ids`."""
    return replace(
        device,
        query_starts=device.query_starts[first : end + 1],
        context_lengths=device.context_lengths[first:end],
        page_starts=device.page_starts[first : end + 1],
        last_page_lengths=device.last_page_lengths[first:end],
    )


def padding_sequences(count: int) -> SequenceTables:
    """Sequences of one token each, in page 0."""
    starts = np.arange(count + 1, dtype=np.int32)
    return SequenceTables(
        query_starts=starts,
        context_lengths=np.ones(count, np.int32),
        page_starts=starts,
        page_ids=np.zeros(count, np.int32),
        num_decodes=count,
    )
