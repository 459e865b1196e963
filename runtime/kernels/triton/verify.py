"""Attention of a few latest positions of each sequence over paged keys and values, cut along the context.

`decode` for QUERIES rows a sequence instead of one: those of a key head's group, of all QUERIES positions, are the rows of one
matrix product, so the cache is read once for all of them. Every row sees the tokens up to its own position. A part of the
context that a row does not see at all gives it nothing: its sum is 0, and its logarithm minus infinity.

Where rows are nodes of trees (WORDS above 0) a sequence's last TAIL places are not in order of position: of these a row sees those
whose bits are set in its words, and of what is before them all. There may be fewer rows than places, and many: ROW_BLOCKS programs
share them.

A sequence may reach beyond its pages, if it has ended and nobody knew; what is read there stays within its table.

Source: Flash-Decoding, Dao et al. 2023.
"""

import triton
import triton.language as tl

from runtime.kernels.triton.decode import add_tile, find_keys

_NOTHING = tl.constexpr(-1e30)


@triton.jit
def split(
    query, pages, scales, context_lengths, page_starts, page_ids, words, depths, bases, partial, log_sums,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, PAGE_SIZE: tl.constexpr,
    QUERIES: tl.constexpr, BLOCK_TOKENS: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_DIM: tl.constexpr,
    SPLITS: tl.constexpr, MIN_TOKENS: tl.constexpr, WINDOW: tl.constexpr, SOFTMAX_SCALE: tl.constexpr,
    SCALED: tl.constexpr, WORDS: tl.constexpr, ROW_BLOCKS: tl.constexpr, STAGES: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """One program: one part of one sequence's context for the queries of one key head.

    `words` is [num_sequences * QUERIES, WORDS], `bases` [num_sequences]: where a tree's places begin; then `context_lengths` end
    within the pages. `depths` [num_sequences * QUERIES]: positions behind the base, of rows and places; read with a window only.
    `partial` is [num_sequences * QUERIES, HEADS, SPLITS, HEAD_DIM], normalized; with one split it is the output itself.
    """
    GROUP: tl.constexpr = HEADS // KV_HEADS
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    sequence, kv_head, part = tl.program_id(0) // ROW_BLOCKS, tl.program_id(1), tl.program_id(2)
    context = tl.load(context_lengths + sequence)
    first_page = tl.load(page_starts + sequence)
    end = context
    if WORDS > 0:
        base = tl.load(bases + sequence)
        context = base + QUERIES
    else:
        end = tl.minimum(context, (tl.load(page_starts + sequence + 1) - first_page) * PAGE_SIZE)
    table = page_ids + first_page
    start, length = _part_of(context, end, SPLITS, MIN_TOKENS, WINDOW, QUERIES)
    first = start + part * length
    last = tl.minimum(first + length, end)
    line, dim = tl.program_id(0) % ROW_BLOCKS * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS), tl.arange(0, BLOCK_DIM)
    ask = line // GROUP
    head = kv_head * GROUP + line % GROUP
    in_rows, in_dim = line < QUERIES * GROUP, dim < HEAD_DIM
    asked_row = sequence.to(tl.int64) * QUERIES + ask
    where = (asked_row * HEADS + head)[:, None] * HEAD_DIM + dim[None, :]
    mask = in_rows[:, None] & in_dim[None, :]
    position = context - QUERIES + ask
    if WORDS > 0 and WINDOW > 0:
        position = base + tl.load(depths + asked_row, mask=in_rows, other=0)
    queries = tl.load(query + where, mask=mask, other=0.0)
    # Scores are in base 2, so that the exponential is one instruction.
    factor = SOFTMAX_SCALE * 1.4426950408889634
    if SCALED:
        factor = factor * tl.load(scales)
    token = tl.arange(0, BLOCK_TOKENS)
    peak = tl.full([BLOCK_ROWS], _NOTHING, tl.float32)
    total = tl.zeros([BLOCK_ROWS], tl.float32)
    sums = tl.zeros([BLOCK_ROWS, BLOCK_DIM], tl.float32)
    for block in tl.range(first, last, BLOCK_TOKENS, num_stages=STAGES):
        at = block + token
        valid = at < last
        source = find_keys(pages, table, kv_head, at, valid, KV_HEADS, HEAD_DIM, PAGE_SIZE)[:, None] + dim[None, :]
        there = valid[:, None] & in_dim[None, :]
        keys = tl.load(source, mask=there, other=0.0).to(query.dtype.element_ty)
        values = tl.load(source + PAGE_SIZE * KV_HEADS * HEAD_DIM, mask=there, other=0.0)
        if WORDS > 0:
            number = tl.maximum(at - base, 0)
            in_tree = valid & (at >= base)
            word = tl.load(
                words + asked_row[:, None] * WORDS + (number // 32)[None, :],
                mask=in_rows[:, None] & in_tree[None, :],
                other=0,
            )
            seen = valid[None, :] & ((at < base)[None, :] | ((word >> (number % 32)[None, :]) & 1 == 1))
            if WINDOW > 0:
                stands = tl.load(depths + sequence * QUERIES + number, mask=in_tree & (number < QUERIES), other=0)
                at = tl.where(in_tree, base + stands, at)
        else:
            seen = valid[None, :] & (at[None, :] <= position[:, None])
        if WINDOW > 0:
            seen = seen & (at[None, :] > position[:, None] - WINDOW)
        peak, total, sums = add_tile(peak, total, sums, queries, factor, keys, values, seen)
    sums = sums / tl.where(total > 0.0, total, 1.0)[:, None]
    if SCALED:
        sums = sums * tl.load(scales + 1)
    row = (asked_row * HEADS + head) * SPLITS + part
    tl.store(partial + row[:, None] * HEAD_DIM + dim[None, :], sums.to(partial.dtype.element_ty), mask=mask)
    if SPLITS > 1:
        tl.store(log_sums + row, tl.where(total > 0.0, peak + tl.log2(total), -float("inf")), mask=in_rows)


@triton.jit
def merge(
    partial, log_sums, out,
    HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, SPLITS: tl.constexpr,
    BLOCK_SPLITS: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """One program: one head of one row, its parts weighted by their sums. Parts that it does not see weigh nothing."""
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    row = tl.program_id(0).to(tl.int64) * HEADS + tl.program_id(1)
    part, dim = tl.arange(0, BLOCK_SPLITS), tl.arange(0, BLOCK_DIM)
    log_sum = tl.load(log_sums + row * SPLITS + part, mask=part < SPLITS, other=-float("inf"))
    weights = tl.exp2(log_sum - tl.maximum(tl.max(log_sum), _NOTHING))
    values = tl.load(
        partial + (row * SPLITS + part)[:, None] * HEAD_DIM + dim[None, :],
        mask=(part < SPLITS)[:, None] & (dim < HEAD_DIM)[None, :],
        other=0.0,
    )
    merged = tl.sum(values * weights[:, None], axis=0) / tl.maximum(tl.sum(weights), 1e-30)
    tl.store(out + row * HEAD_DIM + dim, merged.to(out.dtype.element_ty), mask=dim < HEAD_DIM)


@triton.jit
def _part_of(context, end, SPLITS: tl.constexpr, MIN_TOKENS: tl.constexpr, WINDOW: tl.constexpr, QUERIES: tl.constexpr):
    """The first token that any of the queries sees, and the length of a part: a multiple of MIN_TOKENS."""
    start = end * 0
    if WINDOW > 0:
        start = tl.minimum(tl.maximum(context - QUERIES + 1 - WINDOW, 0), end)
    pieces = (end - start + MIN_TOKENS - 1) // MIN_TOKENS
    return start, (pieces + SPLITS - 1) // SPLITS * MIN_TOKENS
