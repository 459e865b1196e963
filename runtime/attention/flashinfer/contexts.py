"""Room for the contexts of a step's chunks, gathered layer by layer, where that pays.

FlashAttention 3 takes keys and values a tile at a time. From pages every thread of a warp has to fetch its own piece; from a
straight run the tensor memory accelerator brings the whole tile. Measured on an H100 for one layer, 32 query and 8 key heads of
128: 8,192 tokens 0.84 ms instead of 1.01, 8 prompts of 1,024 0.17 instead of 0.23. The copy reads and writes each context once,
8 KiB a token there.

Pages in e4m3 it does not read at all where queries are of 16 bits. Gathered, keys and values become numbers of the queries' dtype.
So there one context of up to 262,144 tokens has room, and a step whose contexts do not fit at once gathers them one group after
the other.
"""

from collections.abc import Sequence
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
"""65,536 tokens, 256 MiB where there are 8 heads of 128 in 16 bits; what is longer is read from its pages, unless it is e4m3."""
_MOST_PAGES = 4 * LARGEST_PAGES
"""So much room is there for one context in e4m3, if the engine serves any that long."""
_MOST_GROUPS = 4
"""In which a step's contexts in e4m3 are gathered; each needs a plan of its own."""
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
    """Of their contexts, with the gaps behind them."""


class GatheredContexts:
    """One layer's contexts at a time; the next layer's take their place."""

    def __init__(
        self,
        pages: Tensor,
        launcher: Launcher,
        *,
        dtype: torch.dtype,
        layer_windows: Sequence[int | None],
        max_sequences: int,
        max_context_length: int,
    ) -> None:
        """
        Args:
            pages: the cache, see `runtime.attention.pages`.
            dtype: of what is gathered: of the pages, unless these are e4m3.
            layer_windows: see `FlashInferAttention`.
            max_sequences: in one step.
            max_context_length: of one sequence.
        """
        num_kv_heads, head_dim = pages.shape[-2:]
        self._is_e4m3 = pages.dtype == E4M3
        windows = [window for window in layer_windows if window is not None]
        self._window = max(windows) if len(windows) == len(layer_windows) else None
        """Of the layer that sees farthest."""
        self._num_pages, self.max_spans = LARGEST_PAGES, 1
        if self._is_e4m3:
            longest = -(-max_context_length // PAGE_SIZE) + GAP_PAGES
            self._num_pages = max(LARGEST_PAGES, min(longest, _MOST_PAGES + GAP_PAGES))
            self.max_spans = _MOST_GROUPS
            """Of a step."""
        self._room = torch.empty(
            2, self._num_pages * PAGE_SIZE, num_kv_heads, head_dim, dtype=dtype, device=pages.device
        )
        self._max_sequences = max_sequences
        self._launcher = launcher

    def spans(self, host: SequenceTables, first: int) -> list[Span]:
        """How the sequences from `first` on are gathered, one span after the other. None: it does not pay, or there is no room."""
        if not self._pays(host, first):
            return []
        spans, count = [Span(first, 0, 0)], len(host.context_lengths)
        for sequence in range(first, count):
            last, pages = spans[-1], _num_pages(host, sequence)
            if last.num_pages + pages <= self._num_pages:
                spans[-1] = Span(last.first, last.num_sequences + 1, last.num_pages + pages)
            else:
                spans.append(Span(sequence, 1, pages))
        has_room = len(spans) <= self.max_spans and all(span.num_pages <= self._num_pages for span in spans)
        return spans if has_room else []

    def _pays(self, host: SequenceTables, first: int) -> bool:
        """Whether the sequences from `first` on are through sooner with their contexts gathered."""
        rows = np.diff(host.query_starts[first:]).astype(np.int64)
        contexts = host.context_lengths[first:].astype(np.int64)
        num_pairs = int((rows * contexts - rows * rows // 2).sum())
        num_tokens = int(contexts.sum())
        if self._is_e4m3:
            longest = int(contexts.max())
            if self._window is not None:  # Our own kernel does not read what is before it.
                longest = int(np.minimum(contexts, rows + self._window).max())
                num_pairs = min(num_pairs, int(rows.sum()) * self._window)
            return num_tokens < _FEW_CONTEXTS * longest or num_pairs > _ROWS_FOR_E4M3 * num_tokens
        return num_pairs > _ROWS_FOR_COPY * num_tokens + _PAIRS_FOR_LAUNCH

    def tables(self, host: SequenceTables, span: Span) -> HostTables:
        """What a plan over the gathered contexts of those sequences is made from."""
        rows = host_rows(host, span.first, span.first + span.num_sequences)
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


def _num_pages(host: SequenceTables, sequence: int) -> int:
    """Of one context, with the gap behind it."""
    return int(host.page_starts[sequence + 1]) - int(host.page_starts[sequence]) + GAP_PAGES
