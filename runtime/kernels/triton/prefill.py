"""Causal attention of prompt chunks over paged keys and values.

A program takes BLOCK_QUERIES queries with all heads of one key head, and walks over the keys that they see. Sequence i
owns the tiles from `query_starts[i] // BLOCK_QUERIES + i` on: at least as many as it needs, so that a program finds its
sequence by bisection and no table of tiles is made; those left over end at once.

Source: FlashAttention-2, Dao 2023; the numbering of tiles is that of vLLM's unified Triton kernel.
"""

import triton
import triton.language as tl

from runtime.kernels.triton.decode import add_tile, find_keys
from runtime.kernels.triton.decode_e4m3 import power_of_two


@triton.jit(do_not_specialize=["first_sequence", "num_sequences"])
def causal(
    query, pages, scales, query_starts, context_lengths, page_starts, page_ids, out, first_sequence, num_sequences,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, PAGE_SIZE: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_TOKENS: tl.constexpr, BLOCK_DIM: tl.constexpr,
    WINDOW: tl.constexpr, SOFTMAX_SCALE: tl.constexpr, SCALED: tl.constexpr, STAGES: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Sequences `first_sequence` … `num_sequences - 1`. BLOCK_ROWS is BLOCK_QUERIES * group, filled up to a power of 2.

    With SCALED the cache holds e4m3: keys over `scales[0]`, values over `scales[1]`; in fp16, as `decode_e4m3`.
    """
    GROUP: tl.constexpr = HEADS // KV_HEADS
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    kv_head = tl.program_id(1)
    offset = tl.load(query_starts + first_sequence) // BLOCK_QUERIES + first_sequence
    tile = tl.program_id(0) + offset
    sequence = sequence_of(tile, query_starts, first_sequence, num_sequences, BLOCK_QUERIES)
    first_row = tl.load(query_starts + sequence)
    num_queries = tl.load(query_starts + sequence + 1) - first_row
    first_query = (tile - first_row // BLOCK_QUERIES - sequence) * BLOCK_QUERIES
    if first_query < num_queries:
        end = tl.load(context_lengths + sequence)
        before = end - num_queries
        line, dim = tl.arange(0, BLOCK_ROWS), tl.arange(0, BLOCK_DIM)
        in_dim = dim < HEAD_DIM
        ask = first_query + line // GROUP
        asks = (line < BLOCK_QUERIES * GROUP) & (ask < num_queries)
        where = ((first_row + ask).to(tl.int64) * HEADS + kv_head * GROUP + line % GROUP)[:, None] * HEAD_DIM
        where = where + dim[None, :]
        mask = asks[:, None] & in_dim[None, :]
        queries = tl.load(query + where, mask=mask, other=0.0)
        position = before + ask
        factor = SOFTMAX_SCALE * 1.4426950408889634
        if SCALED:
            size = power_of_two(tl.max(tl.abs(queries.to(tl.float32)), axis=1))[:, None]
            queries = (queries.to(tl.float32) / size).to(tl.float16)
            factor = factor * tl.load(scales) * size
        table = page_ids + tl.load(page_starts + sequence)
        token = tl.arange(0, BLOCK_TOKENS)
        start = first_query * 0
        if WINDOW > 0:
            start = tl.maximum(before + first_query - WINDOW + 1, 0) // BLOCK_TOKENS * BLOCK_TOKENS
        stop = tl.minimum(before + first_query + BLOCK_QUERIES, end)
        peak = tl.full([BLOCK_ROWS], -1e30, tl.float32)
        total = tl.zeros([BLOCK_ROWS], tl.float32)
        sums = tl.zeros([BLOCK_ROWS, BLOCK_DIM], tl.float32)
        for block in tl.range(start, stop, BLOCK_TOKENS, num_stages=STAGES):
            at = block + token
            valid = at < stop
            source = find_keys(pages, table, kv_head, at, valid, KV_HEADS, HEAD_DIM, PAGE_SIZE)[:, None] + dim[None, :]
            there = valid[:, None] & in_dim[None, :]
            keys = tl.load(source, mask=there, other=0.0).to(queries.dtype)
            values = tl.load(source + PAGE_SIZE * KV_HEADS * HEAD_DIM, mask=there, other=0.0)
            seen = at[None, :] <= position[:, None]
            if WINDOW > 0:
                seen = seen & (at[None, :] > position[:, None] - WINDOW)
            peak, total, sums = add_tile(peak, total, sums, queries, factor, keys, values, seen)
        sums = sums / total[:, None]
        if SCALED:
            sums = sums * tl.load(scales + 1)
        tl.store(out + where, sums.to(out.dtype.element_ty), mask=mask)


@triton.jit
def sequence_of(number, query_starts, first_sequence, num_sequences, BLOCK_QUERIES: tl.constexpr):
    """The last sequence whose first tile is not past `number`; with BLOCK_QUERIES 0, whose first row is not."""
    low, high = first_sequence, num_sequences - 1
    while low < high:
        middle = (low + high + 1) // 2
        first = tl.load(query_starts + middle)
        if BLOCK_QUERIES > 0:
            first = first // BLOCK_QUERIES + middle
        if first <= number:
            low = middle
        else:
            high = middle - 1
    return low
