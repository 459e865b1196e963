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

    def run(self, cache: Cache, query: Tensor, out: Tensor) -> None: ...


@dataclass(frozen=True, slots=True)
class PagedWork:
    kernel: PagedKernel
    description: Any
    buffers: PlanBuffers
    tables: DeviceTables
    num_rows: int | None
    """The first so many rows are the kernel's; None: all, and the plan says which."""

    def run(self, cache: Cache, query: Tensor, out: Tensor) -> None:
        rows = slice(self.num_rows)
        self.kernel.run(self.description, self.buffers, cache, self.tables, query[rows], out[rows])


@dataclass(frozen=True, slots=True)
class QueryWork:
    kernel: QueryKernel
    block_tables: Tensor
    context_lengths: Tensor

    def run(self, cache: Cache, query: Tensor, out: Tensor) -> None:
        rows = slice(len(self.block_tables))
        self.kernel.run(cache, self.block_tables, self.context_lengths, query[rows], out[rows])


def host_rows(host: SequenceTables, first: int, end: int) -> HostTables:
    return HostTables(
        query_starts=torch.from_numpy(host.query_starts[first : end + 1]),
        context_lengths=torch.from_numpy(host.context_lengths[first:end]),
        page_starts=torch.from_numpy(host.page_starts[first : end + 1]),
    )


def device_rows(device: DeviceTables, first: int, end: int) -> DeviceTables:
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
