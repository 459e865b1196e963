"""Attention in plain torch over paged keys and values: slow, obvious, and bit-exact whatever else is in the batch.

A sequence's positions are cut into query blocks of PAGE_SIZE, aligned to the pages. Each block is one pair of matrix
products whose shapes, operand layouts and row order follow from the block's position alone: query `p` stands in row
`p % PAGE_SIZE` of its block even if it comes alone, and the keys run to the block's end, with those after `p` masked.
So a token's result has the same bits in a decode step, in a prefill of any chunking, and beside any other sequences:
matrix products sum each element in an order that depends on shapes and places, never on what other rows hold.

Positions beyond the context hold other sequences' leftovers, perhaps NaN: their scores are masked, and their values are
zeroed, since a probability of 0 times NaN is NaN.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from runtime.attention.backend import AttentionBatch
from runtime.attention.pages import key_rows, read_kv, write_kv
from runtime.batch import Int32, Int64
from runtime.identifiers import PAGE_SIZE

_NO_TAIL: Int64 = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class _Span:
    """The query blocks of one sequence: in its own count, and among all blocks of the step."""

    first_block: int
    num_blocks: int
    start: int
    context_length: int
    tail: Int64
    """Slots of the last positions, if they are not in the page table's places."""


@dataclass(frozen=True, slots=True)
class _QueryBlock:
    """One aligned block of queries; `keys` is the range it sees of what is gathered for its sequence."""

    index: int
    keys: slice
    hidden: Tensor
    """[PAGE_SIZE, n] bool: which of the last n keys a query must not see."""


@dataclass(frozen=True, slots=True)
class _SequenceWork:
    """The blocks of one sequence under one window, and where their keys and values lie in the cache."""

    key_rows: Tensor
    value_rows: Tensor
    num_valid: int
    """Gathered positions before the context's end."""
    blocks: tuple[_QueryBlock, ...]


class ReferenceAttention:
    """The plain torch backend, on any device.

    Args:
        pages: the cache, see `pages`.
        num_heads: query heads.
        layer_windows: per layer, how many latest positions a query sees, itself included; None: all.
        scales: of a cache in e4m3, see `pages`.
    """

    def __init__(
        self, pages: Tensor, *, num_heads: int, layer_windows: Sequence[int | None], scales: Tensor | None = None
    ) -> None:
        self._pages = pages
        self._scales = scales
        self._num_heads = num_heads
        self._layer_windows = tuple(layer_windows)

    def plan(self, batch: AttentionBatch) -> "ReferencePlan":
        """Cut each sequence's queries into blocks and list the slots of its keys."""
        lengths = np.diff(batch.query_starts).astype(np.int64)
        first_positions = batch.context_lengths - lengths
        first_blocks = first_positions // PAGE_SIZE
        num_blocks = np.where(lengths > 0, -(-batch.context_lengths // PAGE_SIZE) - first_blocks, 0)
        block_starts = np.cumsum(num_blocks) - num_blocks
        # Row of each token among the aligned blocks: its sequence's first row, and its distance from that block's start.
        within = np.arange(lengths.sum()) - np.repeat(batch.query_starts[:-1] - first_positions % PAGE_SIZE, lengths)
        block_rows = np.repeat(block_starts * PAGE_SIZE, lengths) + within
        longest = 0 if batch.tails is None else batch.tails.slots.shape[1]
        spans = [
            _Span(
                int(first_blocks[i]),
                int(num_blocks[i]),
                int(block_starts[i]),
                int(batch.context_lengths[i]),
                _NO_TAIL if batch.tails is None else batch.tails.slots[i, longest - batch.tails.lengths[i] :],
            )
            for i in range(len(lengths))
        ]
        device = self._pages.device
        work = {
            window: tuple(
                _plan_sequence(span, page_table, window, device)
                for span, page_table in zip(spans, batch.page_tables, strict=True)
                if span.num_blocks
            )
            for window in set(self._layer_windows)
        }
        return ReferencePlan(
            self._pages,
            self._scales,
            self._num_heads,
            tuple(work[window] for window in self._layer_windows),
            key_rows(torch.from_numpy(batch.slots).to(device)),
            torch.from_numpy(batch.rows).to(device),
            torch.from_numpy(block_rows).to(device),
            int(num_blocks.sum()),
        )


class ReferencePlan:
    """One step of the plain torch backend."""

    def __init__(
        self,
        pages: Tensor,
        scales: Tensor | None,
        num_heads: int,
        layer_work: tuple[tuple[_SequenceWork, ...], ...],
        written_rows: Tensor,
        rows: Tensor,
        block_rows: Tensor,
        num_blocks: int,
    ) -> None:
        self._pages = pages
        self._scales = scales
        self._num_kv_heads, self._head_dim = pages.shape[-2:]
        self._group = num_heads // self._num_kv_heads
        self._layer_work = layer_work
        self._written_rows = written_rows
        self._rows = rows
        self._block_rows = block_rows
        self._num_blocks = num_blocks

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `AttentionPlan.attend`."""
        scales = None if self._scales is None else self._scales[layer]
        key_scale, value_scale = (None, None) if scales is None else (scales[0], scales[1])
        write_kv(self._pages[layer], key, value, self._written_rows, scales)
        blocks = self._gather_blocks(query * self._head_dim**-0.5)
        attended = torch.empty_like(blocks)
        for work in self._layer_work[layer]:
            keys = read_kv(self._pages[layer], work.key_rows, key_scale, query.dtype).permute(1, 2, 0)
            values = read_kv(self._pages[layer], work.value_rows, value_scale, query.dtype)
            values[work.num_valid :] = 0.0
            values = values.permute(1, 0, 2)
            for block in work.blocks:
                scores = torch.bmm(blocks[block.index], keys[:, :, block.keys])
                by_query = scores.view(self._num_kv_heads, PAGE_SIZE, self._group, -1)
                by_query[..., -block.hidden.shape[1] :].masked_fill_(block.hidden[:, None, :], -torch.inf)
                weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
                torch.bmm(weights, values[:, block.keys], out=attended[block.index])
        return self._scatter_rows(attended, query)

    def _gather_blocks(self, query: Tensor) -> Tensor:
        """[num_rows, num_heads, head_dim] → [num_blocks, num_kv_heads, PAGE_SIZE * group, head_dim], zeros between."""
        blocks = query.new_zeros(self._num_blocks * PAGE_SIZE, *query.shape[1:])
        blocks.index_copy_(0, self._block_rows, query.index_select(0, self._rows))
        grouped = blocks.view(self._num_blocks, PAGE_SIZE, self._num_kv_heads, self._group, self._head_dim)
        return grouped.transpose(1, 2).reshape(
            self._num_blocks, self._num_kv_heads, PAGE_SIZE * self._group, self._head_dim
        )

    def _scatter_rows(self, attended: Tensor, query: Tensor) -> Tensor:
        grouped = attended.view(self._num_blocks, self._num_kv_heads, PAGE_SIZE, self._group, self._head_dim)
        by_position = grouped.transpose(1, 2).reshape(-1, *query.shape[1:])
        result = torch.zeros_like(query, memory_format=torch.contiguous_format)
        return result.index_copy_(0, self._rows, by_position.index_select(0, self._block_rows))


def _plan_sequence(span: _Span, page_table: Int32, window: int | None, device: torch.device) -> _SequenceWork:
    first_page = _first_page_seen(span.first_block, window)
    pages = page_table[first_page : span.first_block + span.num_blocks].astype(np.int64)
    slots = (pages[:, None] * PAGE_SIZE + np.arange(PAGE_SIZE)).reshape(-1)
    if len(span.tail):
        end = span.context_length - first_page * PAGE_SIZE
        count = min(end, len(span.tail))
        slots[end - count : end] = span.tail[-count:]
    read_rows = key_rows(torch.from_numpy(slots).to(device))
    blocks = []
    for index in range(span.num_blocks):
        page = span.first_block + index
        begin_page = _first_page_seen(page, window)
        hidden = _hidden_keys(None if window is None else page - begin_page, window)
        keys = slice((begin_page - first_page) * PAGE_SIZE, (page + 1 - first_page) * PAGE_SIZE)
        blocks.append(_QueryBlock(span.start + index, keys, hidden.to(device)))
    num_valid = span.context_length - first_page * PAGE_SIZE
    return _SequenceWork(read_rows, read_rows + PAGE_SIZE, num_valid, tuple(blocks))


def _first_page_seen(block: int, window: int | None) -> int:
    """The page of the earliest key that the block's first query sees."""
    return 0 if window is None else max(0, block * PAGE_SIZE - window + 1) // PAGE_SIZE


@lru_cache(maxsize=64)
def _hidden_keys(num_pages_before: int | None, window: int | None) -> Tensor:
    """Which keys the queries of a block must not see, [PAGE_SIZE, num_keys] bool.

    Without a window only the block's own page can hold later keys, so the mask covers that page; with one, it covers all
    keys from `num_pages_before` pages before the block.
    """
    before = (num_pages_before or 0) * PAGE_SIZE
    query = torch.arange(before, before + PAGE_SIZE)[:, None]
    key = torch.arange(before + PAGE_SIZE)[None, :]
    return key > query if window is None else (key > query) | (key <= query - window)
