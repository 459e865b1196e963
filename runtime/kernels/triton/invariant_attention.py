"""Causal attention in which a row's result does not depend on the step that it is in, over paged keys and values.

A context is cut into parts of PART_TOKENS tokens, counted from its first one on. Each part is added up by itself in tiles of
BLOCK_TOKENS, and the parts are added up in their order, whoever does so: one program for a tile of queries, which goes from
part to part, or `join`, where programs have left them that share the parts, as few queries would leave most of the device
idle. It is one and the same kernel that adds up a part, and the arithmetic of `_joined` leaves a compiler no choice. Parts
and tiles that a row does not see give it nothing, to the bit.

Sequence i owns the tiles from `query_starts[i] // BLOCK_QUERIES + i` on, as in `prefill`. A sequence may reach beyond its
pages, if it has ended and nobody knew; what is read there stays within its table.

Source: FlashAttention-2, Dao 2023; Flash-Decoding, Dao et al. 2023.
"""

import triton
import triton.language as tl

from runtime.kernels.triton.decode import add_tile, find_keys
from runtime.kernels.triton.decode_e4m3 import power_of_two
from runtime.kernels.triton.prefill import sequence_of

_NOTHING = tl.constexpr(-1e30)
"""The peak of who has seen nothing: below every score, and finite, as the difference of two infinities is no number."""


@triton.jit(do_not_specialize=["first_sequence", "num_sequences", "num_parts"])
def attend(
    query, pages, scales, query_starts, context_lengths, page_starts, page_ids, out, partial, weights,
    first_sequence, num_sequences, num_parts,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, PAGE_SIZE: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_TOKENS: tl.constexpr, BLOCK_DIM: tl.constexpr,
    PART_TOKENS: tl.constexpr, WINDOW: tl.constexpr, SOFTMAX_SCALE: tl.constexpr, SCALED: tl.constexpr,
    STAGES: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Sequences `first_sequence` … `num_sequences - 1`. BLOCK_ROWS is BLOCK_QUERIES * group, filled up to a power of 2.

    With `num_parts` 0 one program adds up all parts of a tile of queries. Else the programs of the third axis take every so many-th
    part, and leave it in `partial`, [rows, HEADS, num_parts, HEAD_DIM] float32, and its peak and sum in `weights`, [rows, HEADS,
    num_parts, 2]; rows are counted from the first sequence's first. With SCALED the cache holds e4m3, see `prefill.causal`.
    """
    GROUP: tl.constexpr = HEADS // KV_HEADS
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    kv_head = tl.program_id(1)
    rows_before = tl.load(query_starts + first_sequence)
    tile = tl.program_id(0) + rows_before // BLOCK_QUERIES + first_sequence
    sequence = sequence_of(tile, query_starts, first_sequence, num_sequences, BLOCK_QUERIES)
    first_row = tl.load(query_starts + sequence)
    num_queries = tl.load(query_starts + sequence + 1) - first_row
    first_query = (tile - first_row // BLOCK_QUERIES - sequence) * BLOCK_QUERIES
    if first_query < num_queries:
        end = tl.load(context_lengths + sequence)
        first_page = tl.load(page_starts + sequence)
        in_pages = (tl.load(page_starts + sequence + 1) - first_page) * PAGE_SIZE
        table = page_ids + first_page
        before = end - num_queries
        line, dim = tl.arange(0, BLOCK_ROWS), tl.arange(0, BLOCK_DIM)
        in_dim = dim < HEAD_DIM
        ask = first_query + line // GROUP
        head = kv_head * GROUP + line % GROUP
        asks = (line < BLOCK_QUERIES * GROUP) & (ask < num_queries)
        row = (first_row + ask).to(tl.int64) * HEADS + head
        where = row[:, None] * HEAD_DIM + dim[None, :]
        mask = asks[:, None] & in_dim[None, :]
        queries = tl.load(query + where, mask=mask, other=0.0)
        position = before + ask
        factor = SOFTMAX_SCALE * 1.4426950408889634
        if SCALED:
            size = power_of_two(tl.max(tl.abs(queries.to(tl.float32)), axis=1))[:, None]
            queries = (queries.to(tl.float32) / size).to(tl.float16)
            factor = factor * tl.load(scales) * size
        token = tl.arange(0, BLOCK_TOKENS)
        start = first_query * 0
        if WINDOW > 0:
            start = tl.maximum(before + first_query - WINDOW + 1, 0) // BLOCK_TOKENS * BLOCK_TOKENS
        stop = tl.minimum(tl.minimum(before + first_query + BLOCK_QUERIES, end), in_pages)
        peak = tl.full([BLOCK_ROWS], _NOTHING, tl.float32)
        total = tl.zeros([BLOCK_ROWS], tl.float32)
        sums = tl.zeros([BLOCK_ROWS, BLOCK_DIM], tl.float32)
        for part in range(start // PART_TOKENS + tl.program_id(2), tl.cdiv(stop, PART_TOKENS), tl.num_programs(2)):
            part_peak = tl.full([BLOCK_ROWS], _NOTHING, tl.float32)
            part_total = tl.zeros([BLOCK_ROWS], tl.float32)
            part_sums = tl.zeros([BLOCK_ROWS, BLOCK_DIM], tl.float32)
            last = tl.minimum((part + 1) * PART_TOKENS, stop)
            for block in tl.range(tl.maximum(part * PART_TOKENS, start), last, BLOCK_TOKENS, num_stages=STAGES):
                at = block + token
                valid = at < last
                source = find_keys(pages, table, kv_head, at, valid, KV_HEADS, HEAD_DIM, PAGE_SIZE)
                source = source[:, None] + dim[None, :]
                there = valid[:, None] & in_dim[None, :]
                keys = tl.load(source, mask=there, other=0.0).to(queries.dtype)
                values = tl.load(source + PAGE_SIZE * KV_HEADS * HEAD_DIM, mask=there, other=0.0)
                seen = valid[None, :] & (at[None, :] <= position[:, None])
                if WINDOW > 0:
                    seen = seen & (at[None, :] > position[:, None] - WINDOW)
                part_peak, part_total, part_sums = add_tile(
                    part_peak, part_total, part_sums, queries, factor, keys, values, seen
                )
            if num_parts > 0:
                place = (row - rows_before.to(tl.int64) * HEADS) * num_parts + part
                tl.store(partial + place[:, None] * HEAD_DIM + dim[None, :], part_sums, mask=mask)
                tl.store(weights + place * 2, part_peak, mask=asks)
                tl.store(weights + place * 2 + 1, part_total, mask=asks)
            else:
                new_peak = tl.maximum(peak, part_peak)
                shrink, weight = tl.exp2(peak - new_peak), tl.exp2(part_peak - new_peak)
                total = _joined(total, shrink, part_total, weight)
                sums = _joined(sums, shrink[:, None], part_sums, weight[:, None])
                peak = new_peak
        if num_parts == 0:
            sums = sums / tl.where(total > 0.0, total, 1.0)[:, None]
            if SCALED:
                sums = sums * tl.load(scales + 1)
            tl.store(out + where, sums.to(out.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["first_sequence", "num_sequences", "num_parts"])
def join(
    partial, weights, scales, query_starts, context_lengths, page_starts, out, first_sequence, num_sequences, num_parts,
    HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, PAGE_SIZE: tl.constexpr, BLOCK_DIM: tl.constexpr,
    PART_TOKENS: tl.constexpr, WINDOW: tl.constexpr, SCALED: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """One program: one head of one row, its parts added up in order, as `attend` does where nobody shares them."""
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    row = tl.load(query_starts + first_sequence) + tl.program_id(0)
    sequence = sequence_of(row, query_starts, first_sequence, num_sequences, 0)
    position = tl.load(context_lengths + sequence) - tl.load(query_starts + sequence + 1) + row
    in_pages = (tl.load(page_starts + sequence + 1) - tl.load(page_starts + sequence)) * PAGE_SIZE
    first = position * 0
    if WINDOW > 0:
        first = tl.maximum(position - WINDOW + 1, 0) // PART_TOKENS
    dim = tl.arange(0, BLOCK_DIM)
    in_dim = dim < HEAD_DIM
    place = (tl.program_id(0).to(tl.int64) * HEADS + tl.program_id(1)) * num_parts
    peak = tl.full([1], _NOTHING, tl.float32)
    total = tl.zeros([1], tl.float32)
    sums = tl.zeros([BLOCK_DIM], tl.float32)
    for part in range(first, tl.cdiv(tl.minimum(position + 1, in_pages), PART_TOKENS)):
        both = weights + (place + part) * 2 + tl.arange(0, 1)
        part_peak, part_total = tl.load(both), tl.load(both + 1)
        part_sums = tl.load(partial + (place + part) * HEAD_DIM + dim, mask=in_dim, other=0.0)
        new_peak = tl.maximum(peak, part_peak)
        shrink, weight = tl.exp2(peak - new_peak), tl.exp2(part_peak - new_peak)
        total = _joined(total, shrink, part_total, weight)
        sums = _joined(sums, shrink, part_sums, weight)
        peak = new_peak
    sums = sums / tl.where(total > 0.0, total, 1.0)
    if SCALED:
        sums = sums * tl.load(scales + 1)
    where = (row.to(tl.int64) * HEADS + tl.program_id(1)) * HEAD_DIM + dim
    tl.store(out + where, sums.to(out.dtype.element_ty), mask=in_dim)


@triton.jit
def _joined(value, shrink, other, weight):
    """value * shrink + other * weight, of which the first product alone is rounded: what a compiler fuses would differ."""
    return tl.fma(other, weight, value * shrink)
