"""Attention of single queries over paged keys and values, cut along the context (flash decoding).

The queries of one group share a key head, so they are the rows of one small matrix product. A context is cut into at most
SPLITS parts, computed here from its length, so a captured graph serves all lengths; `merge` joins the parts by the
logarithms of their sums. Tokens past the context are masked on load: a page may hold NaN there, and 0 * NaN is NaN.
`decode_e4m3` does the same over a cache in e4m3.

Source: Flash-Decoding, Dao et al. 2023; PagedAttention, Kwon et al. 2023.
"""

import triton
import triton.language as tl


@triton.jit
def split(
    query, pages, context_lengths, page_starts, page_ids, partial, log_sums,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, PAGE_SIZE: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr, BLOCK_GROUP: tl.constexpr, BLOCK_DIM: tl.constexpr, SPLITS: tl.constexpr,
    MIN_TOKENS: tl.constexpr, WINDOW: tl.constexpr, SOFTMAX_SCALE: tl.constexpr, STAGES: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """One program: one part of one sequence's context for the queries of one key head.

    `partial` is [num_sequences, HEADS, SPLITS, HEAD_DIM], normalized; with one split it is the output itself.
    """
    GROUP: tl.constexpr = HEADS // KV_HEADS
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
    sequence, kv_head, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    end = tl.load(context_lengths + sequence)
    table = page_ids + tl.load(page_starts + sequence)
    start, length = part_of(end, SPLITS, MIN_TOKENS, WINDOW)
    first = start + part * length
    last = tl.minimum(first + length, end)
    if PDL:
        if first < end:
            prefetch(pages, table, kv_head, first + tl.arange(0, BLOCK_TOKENS), last, KV_HEADS, HEAD_DIM, PAGE_SIZE)
        tl.extra.cuda.gdc_wait()
    if first < end:
        member, dim = tl.arange(0, BLOCK_GROUP), tl.arange(0, BLOCK_DIM)
        head = kv_head * GROUP + member
        in_group, in_dim = member < GROUP, dim < HEAD_DIM
        where = (sequence.to(tl.int64) * HEADS + head)[:, None] * HEAD_DIM + dim[None, :]
        mask = in_group[:, None] & in_dim[None, :]
        # Scores are in base 2, so that the exponential is one instruction.
        queries = tl.load(query + where, mask=mask, other=0.0)
        factor = SOFTMAX_SCALE * 1.4426950408889634
        peak = tl.full([BLOCK_GROUP], -float("inf"), tl.float32)
        total = tl.zeros([BLOCK_GROUP], tl.float32)
        sums = tl.zeros([BLOCK_GROUP, BLOCK_DIM], tl.float32)
        peak, total, sums = add_tokens(
            peak, total, sums, queries, factor, pages, table, kv_head, first, last,
            KV_HEADS, HEAD_DIM, PAGE_SIZE, BLOCK_TOKENS, BLOCK_DIM, STAGES,
        )  # fmt: skip
        sums = sums / total[:, None]
        row = (sequence.to(tl.int64) * HEADS + head) * SPLITS + part
        tl.store(partial + row[:, None] * HEAD_DIM + dim[None, :], sums.to(partial.dtype.element_ty), mask=mask)
        if SPLITS > 1:
            tl.store(log_sums + row, peak + tl.log2(total), mask=in_group)


@triton.jit
def add_tokens(
    peak, total, sums, queries, factor, pages, table, kv_head, first, last,
    KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, PAGE_SIZE: tl.constexpr, BLOCK_TOKENS: tl.constexpr,
    BLOCK_DIM: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Let queries [rows, BLOCK_DIM] see the tokens from `first` up to `last`, see `add_tile`."""
    token, dim = tl.arange(0, BLOCK_TOKENS), tl.arange(0, BLOCK_DIM)
    for block in tl.range(first, last, BLOCK_TOKENS, num_stages=STAGES):
        at = block + token
        valid = at < last
        source = find_keys(pages, table, kv_head, at, valid, KV_HEADS, HEAD_DIM, PAGE_SIZE)[:, None] + dim[None, :]
        there = valid[:, None] & (dim < HEAD_DIM)[None, :]
        keys = tl.load(source, mask=there, other=0.0)
        values = tl.load(source + PAGE_SIZE * KV_HEADS * HEAD_DIM, mask=there, other=0.0)
        peak, total, sums = add_tile(peak, total, sums, queries, factor, keys, values, valid[None, :])
    return peak, total, sums


@triton.jit
def add_tile(peak, total, sums, queries, factor, keys, values, seen):
    """Let queries see some tokens, where `seen` [rows or 1, tokens] says so, beside what they saw before.

    That is the largest score `peak` and the sum of weights `total` [rows], and of weighted values, `sums` [rows, BLOCK_DIM].
    `keys` are of the queries' dtype, and values become so.
    """
    scores = tl.where(seen, tl.dot(queries, tl.trans(keys)) * factor, -float("inf"))
    new_peak = tl.maximum(peak, tl.max(scores, axis=1))
    weights = tl.exp2(scores - new_peak[:, None])
    shrink = tl.exp2(peak - new_peak)
    total = total * shrink + tl.sum(weights, axis=1)
    sums = tl.dot(weights.to(queries.dtype), values.to(queries.dtype), sums * shrink[:, None])
    return new_peak, total, sums


@triton.jit
def merge(
    partial, log_sums, context_lengths, out,
    HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, SPLITS: tl.constexpr,
    BLOCK_SPLITS: tl.constexpr, MIN_TOKENS: tl.constexpr, WINDOW: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """One program: one head of one sequence, its parts weighted by their sums."""
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
    row = tl.program_id(0).to(tl.int64) * HEADS + tl.program_id(1)
    end = tl.load(context_lengths + tl.program_id(0))
    start, length = part_of(end, SPLITS, MIN_TOKENS, WINDOW)
    if PDL:
        tl.extra.cuda.gdc_wait()
    part = tl.arange(0, BLOCK_SPLITS)
    used = (part < SPLITS) & (start + part * length < end)
    join_parts(partial, log_sums, out, row, part, used, HEAD_DIM, BLOCK_DIM, SPLITS)


@triton.jit
def join_parts(
    partial, log_sums, out, row, part, used, HEAD_DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, SPLITS: tl.constexpr
):  # fmt: skip
    """Write one head's output: its SPLITS parts, those that are `used` [BLOCK_SPLITS], weighted by their sums."""
    dim = tl.arange(0, BLOCK_DIM)
    log_sum = tl.load(log_sums + row * SPLITS + part, mask=used, other=-float("inf"))
    weights = tl.exp2(log_sum - tl.max(log_sum))
    values = tl.load(
        partial + (row * SPLITS + part)[:, None] * HEAD_DIM + dim[None, :],
        mask=used[:, None] & (dim < HEAD_DIM)[None, :],
        other=0.0,
    )
    merged = tl.sum(values * weights[:, None], axis=0) / tl.sum(weights)
    tl.store(out + row * HEAD_DIM + dim, merged.to(out.dtype.element_ty), mask=dim < HEAD_DIM)


@triton.jit
def part_of(end, SPLITS: tl.constexpr, MIN_TOKENS: tl.constexpr, WINDOW: tl.constexpr):
    """The first token that the query at `end - 1` sees, and the length of a part: a multiple of MIN_TOKENS."""
    start = end * 0
    if WINDOW > 0:
        start = tl.maximum(end - WINDOW, 0)
    pieces = (end - start + MIN_TOKENS - 1) // MIN_TOKENS
    return start, (pieces + SPLITS - 1) // SPLITS * MIN_TOKENS


@triton.jit
def find_keys(
    pages, table, kv_head, at, valid, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, PAGE_SIZE: tl.constexpr
):  # fmt: skip
    """Where the keys of the tokens `at` begin, by the sequence's `table` of pages; a page's values are behind its keys."""
    page = tl.load(table + at // PAGE_SIZE, mask=valid, other=0).to(tl.int64)
    cache_row = page * (2 * PAGE_SIZE) + at % PAGE_SIZE
    return pages + (cache_row * KV_HEADS + kv_head) * HEAD_DIM


@triton.jit
def prefetch(pages, table, kv_head, at, last, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, PAGE_SIZE: tl.constexpr):
    """Ask for the keys and values of some tokens in L2, where the kernel before may still write the newest.

    A line of L2 holds 128 bytes; two to a head are asked for, which is all of it up to 128 numbers of 16 bits.
    """
    source = find_keys(pages, table, kv_head, at, at < last, KV_HEADS, HEAD_DIM, PAGE_SIZE)
    half = tl.arange(0, 2)[None, :] * (HEAD_DIM // 2)
    lines = tl.join(source, source + PAGE_SIZE * KV_HEADS * HEAD_DIM)[:, :, None] + half[None, :, :]
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.b32 $0, 0;", "=r,l", [lines], dtype=tl.int32, is_pure=False, pack=1
    )
