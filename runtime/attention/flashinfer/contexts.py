"""Room for the contexts of a step's chunks, gathered layer by layer, where that pays.

FlashAttention 3 takes keys and values a tile at a time. From pages every thread of a warp has to fetch its own piece; from a
straight run the tensor memory accelerator brings the whole tile. Measured on an H100 for one layer, 32 query and 8 key heads of
128: 8,192 tokens 0.84 ms instead of 1.01, 8 prompts of 1,024 0.17 instead of 0.23. The copy reads and writes each context once,
8 KiB a token there.

Pages in e4m3 it does not read at all where queries are of 16 bits. Gathered, keys and values become numbers of the queries' dtype.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from runtime.attention.device import DeviceTables, SequenceTables
from runtime.attention.flashinfer.calls import Cache, HostTables, PagedKernel
from runtime.attention.flashinfer.work import host_rows
from runtime.attention.flashinfer.workspace import PlanBuffers
from runtime.identifiers import PAGE_SIZE
from runtime.kernels.contexts import GAP_PAGES, gather_contexts
from runtime.kernels.launching import Launcher
from runtime.layers.quantized import E4M3

LARGEST_PAGES = 4096
"""65,536 tokens, 256 MiB where there are 8 heads of 128 in 16 bits; longer ones are read from their pages."""
_ROWS_FOR_COPY = 200
"""So many rows that read a context win back its copy."""
_ROWS_FOR_E4M3 = 100
"""So many rows of each context win back its copy where it is e4m3, which our own kernel reads otherwise: 8 contexts of 2,048 tokens
took 78 µs for 93 with 64 rows each, 145 for 95 with 128."""
_FEW_CONTEXTS = 7
"""Our own kernel walks along each context, however few rows ask for it, at 30 ns a token and FlashAttention 3 at 10; the copy takes
2.7 ns a token of them all. So it pays for any rows where contexts together are less than so many times the longest."""
_PAIRS_FOR_LAUNCH = 600_000
"""So many pairs of a query and a key win back the launch of one more kernel."""


@dataclass(frozen=True, slots=True)
class Span:
    """Which sequences of a step are gathered."""

    first: int
    num_sequences: int
    num_pages: int
    """As the function of this name counts them."""


class GatheredContexts:
    """One layer's contexts at a time; the next layer's take their place."""

    def __init__(self, pages: Tensor, dtype: torch.dtype, max_sequences: int, launcher: Launcher) -> None:
        """
        Args:
            pages: the cache, see `runtime.attention.pages`.
            dtype: of what is gathered: of the pages, unless these are e4m3.
            max_sequences: in one step.
        """
        num_kv_heads, head_dim = pages.shape[-2:]
        self._room = torch.empty(2, LARGEST_PAGES * PAGE_SIZE, num_kv_heads, head_dim, dtype=dtype, device=pages.device)
        self._is_e4m3 = pages.dtype == E4M3
        self._max_sequences = max_sequences
        self._launcher = launcher

    def pays(self, host: SequenceTables, first: int) -> bool:
        """Whether the sequences from `first` on are through sooner with their contexts gathered, and there is room for them."""
        rows = np.diff(host.query_starts[first:]).astype(np.int64)
        contexts = host.context_lengths[first:].astype(np.int64)
        num_pairs = int((rows * contexts - rows * rows // 2).sum())
        num_tokens = int(contexts.sum())
        if self._is_e4m3:
            worth = num_tokens < _FEW_CONTEXTS * int(contexts.max()) or num_pairs > _ROWS_FOR_E4M3 * num_tokens
        else:
            worth = num_pairs > _ROWS_FOR_COPY * num_tokens + _PAIRS_FOR_LAUNCH
        return worth and num_pages(host, first) <= LARGEST_PAGES

    def tables(self, host: SequenceTables, first: int) -> HostTables:
        """What a plan over the gathered contexts of those sequences is made from."""
        rows = host_rows(host, first, len(host.context_lengths))
        starts = rows.page_starts - rows.page_starts[0]
        starts += GAP_PAGES * torch.arange(len(starts), dtype=starts.dtype)
        return HostTables(rows.query_starts, rows.context_lengths, starts * PAGE_SIZE)

    def gather(self, cache: Cache, device: DeviceTables, span: Span) -> Cache:
        """Enqueue the copy of one layer's, for the sequences of `span` in the whole step's tables."""
        keys, values = self._room
        gather_contexts(
            cache.keys,
            cache.values,
            cache.scales,
            device.context_lengths,
            device.page_starts,
            device.page_ids,
            keys=keys,
            values=values,
            first=span.first,
            num_sequences=span.num_sequences,
            num_pages=span.num_pages,
            max_sequences=self._max_sequences,
            launcher=self._launcher,
        )
        return Cache(keys, values)


@dataclass(frozen=True, slots=True)
class GatheredWork:
    """Chunks over their whole contexts, which each layer gathers from its pages first. See `work.Work`."""

    kernel: PagedKernel
    description: Any
    buffers: PlanBuffers
    contexts: GatheredContexts
    device: DeviceTables
    """The whole step's."""
    span: Span

    def run(self, cache: Cache, query: Tensor, out: Tensor) -> None:
        """See `Work.run`."""
        gathered = self.contexts.gather(cache, self.device, self.span)
        query_starts = self.device.query_starts[self.span.first :]
        self.kernel.run_gathered(self.description, self.buffers, gathered, query_starts, query, out)


def span_from(host: SequenceTables, first: int) -> Span:
    """All sequences from `first` on."""
    return Span(first, len(host.context_lengths) - first, num_pages(host, first))


def num_pages(host: SequenceTables, first: int) -> int:
    """Of the contexts of the sequences from `first` on, with the gaps behind them."""
    own = int(host.page_starts[-1]) - int(host.page_starts[first])
    return own + GAP_PAGES * (len(host.context_lengths) - first)
