"""Attention of single queries straight from the projection of their rows: one kernel where `rotary.rotate_and_store`,
`decode.split` and `decode.merge` are three.

Every program turns the queries of its key head in registers. The one whose part of the context ends with the newest token
turns its key as well and stores key and value, which all its threads read behind a barrier; nobody else reads that slot. The
program that is the last to finish its part merges all of them, in their order: so results do not depend
on which it was.

A chain of kernels writes nothing of a cache but its newest tokens, so others are asked for before the wait. For the same reason
no sequence of a launch may read a slot that another one writes: whoever launches it sees to that.

Sources: as `decode`; the last to arrive does the rest: threadFenceReduction, of CUDA's samples.
"""

import triton
import triton.language as tl

from runtime.kernels.triton import decode, decode_e4m3
from runtime.kernels.triton.rotary import cut_off


@triton.jit
def attend(
    heads, pages, scales, cosines, sines, query_norm, key_norm, context_lengths, page_starts, page_ids,
    partial, log_sums, arrivals, out,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, PAGE_SIZE: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr, BLOCK_GROUP: tl.constexpr, BLOCK_DIM: tl.constexpr, SPLITS: tl.constexpr,
    MIN_TOKENS: tl.constexpr, WINDOW: tl.constexpr, SOFTMAX_SCALE: tl.constexpr, NORM: tl.constexpr, EPS: tl.constexpr,
    SCALED: tl.constexpr, MERGED_GROUP: tl.constexpr, MERGED_PARTS: tl.constexpr, STAGES: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """One program: one part of one sequence's context for the queries of one key head, and perhaps the merging of all parts.

    `heads` is [num_sequences, (HEADS + 2 * KV_HEADS) * HEAD_DIM], `partial` [num_sequences, HEADS, SPLITS, HEAD_DIM] and
    `log_sums` the same without the last. `arrivals` [num_sequences, KV_HEADS] holds zeros before and after a launch. With
    SCALED the cache is e4m3, see `rotary.rotate_and_store`.
    """
    GROUP: tl.constexpr = HEADS // KV_HEADS
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
    sequence, kv_head, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    end = tl.load(context_lengths + sequence)
    table = page_ids + tl.load(page_starts + sequence)
    start, length = decode.part_of(end, SPLITS, MIN_TOKENS, WINDOW)
    first = start + part * length
    newest = end - 1
    last = tl.minimum(first + length, end)
    dim = tl.arange(0, BLOCK_DIM)[None, :]
    in_dim = dim < HEAD_DIM
    # A number is turned with the one that is half a head away.
    other = tl.where(dim < HEAD_DIM // 2, dim + HEAD_DIM // 2, dim - HEAD_DIM // 2)
    angle = newest.to(tl.int64) * HEAD_DIM + dim
    cosine = tl.load(cosines + angle, mask=in_dim, other=0.0).to(tl.float32)
    sine = tl.load(sines + angle, mask=in_dim, other=0.0).to(tl.float32)
    page = tl.load(table + newest // PAGE_SIZE).to(tl.int64)
    if PDL:
        if first < end:
            at = first + tl.arange(0, BLOCK_TOKENS)
            decode.prefetch(pages, table, kv_head, at, last, KV_HEADS, HEAD_DIM, PAGE_SIZE)
        tl.extra.cuda.gdc_wait()
    if first < end:
        member = tl.arange(0, BLOCK_GROUP)
        head = kv_head * GROUP + member
        row = sequence.to(tl.int64) * HEADS + head
        mask = (member < GROUP)[:, None] & in_dim
        given = heads + sequence.to(tl.int64) * ((HEADS + 2 * KV_HEADS) * HEAD_DIM)
        asked = given + head[:, None] * HEAD_DIM
        queries, query_others = tl.load(asked + dim, mask=mask, other=0.0), tl.load(asked + other, mask=mask, other=0.0)
        given += (HEADS + kv_head) * HEAD_DIM
        here = in_dim & (last == end)
        key, key_others = tl.load(given + dim, mask=here, other=0.0), tl.load(given + other, mask=here, other=0.0)
        value = tl.load(given + KV_HEADS * HEAD_DIM + dim, mask=here, other=0.0).to(tl.float32)
        key = _turn(key, key_others, dim, other, cosine, sine, key_norm, HEAD_DIM, NORM, EPS)
        if SCALED:
            key = cut_off(tl.div_rn(key, tl.load(scales) + tl.zeros_like(key)))
            value = cut_off(tl.div_rn(value, tl.load(scales + 1) + tl.zeros_like(value)))
        target = pages + ((page * (2 * PAGE_SIZE) + newest % PAGE_SIZE) * KV_HEADS + kv_head) * HEAD_DIM + dim
        tl.store(target, key.to(pages.dtype.element_ty), mask=here)
        tl.store(target + PAGE_SIZE * KV_HEADS * HEAD_DIM, value.to(pages.dtype.element_ty), mask=here)
        tl.debug_barrier()
        queries = _turn(queries, query_others, dim, other, cosine, sine, query_norm, HEAD_DIM, NORM, EPS)
        queries = queries.to(heads.dtype.element_ty)
        # Scores are in base 2, so that the exponential is one instruction.
        factor = SOFTMAX_SCALE * 1.4426950408889634
        peak = tl.full([BLOCK_GROUP], -float("inf"), tl.float32)
        total = tl.zeros([BLOCK_GROUP], tl.float32)
        if SCALED:
            even, odd = tl.split(tl.reshape(queries.to(tl.float32), [BLOCK_GROUP, BLOCK_DIM // 2, 2]))
            even, odd, size = decode_e4m3.shrink_query(even, odd)
            factors = size * factor * tl.load(scales)
            sums_even = tl.zeros([BLOCK_GROUP, BLOCK_DIM // 2], tl.float32)
            sums_odd = tl.zeros([BLOCK_GROUP, BLOCK_DIM // 2], tl.float32)
            peak, total, sums_even, sums_odd = decode_e4m3.add_tokens(
                peak, total, sums_even, sums_odd, even, odd, factors, pages, table, kv_head, first, last,
                KV_HEADS, HEAD_DIM, PAGE_SIZE, BLOCK_TOKENS, BLOCK_DIM, STAGES,
            )  # fmt: skip
            sums = tl.reshape(tl.join(sums_even, sums_odd), [BLOCK_GROUP, BLOCK_DIM])
            sums *= (tl.load(scales + 1) / total)[:, None]
        else:
            sums = tl.zeros([BLOCK_GROUP, BLOCK_DIM], tl.float32)
            peak, total, sums = decode.add_tokens(
                peak, total, sums, queries, factor, pages, table, kv_head, first, last,
                KV_HEADS, HEAD_DIM, PAGE_SIZE, BLOCK_TOKENS, BLOCK_DIM, STAGES,
            )  # fmt: skip
            sums = sums / total[:, None]
        num_parts = (end - start + length - 1) // length
        if num_parts == 1:
            tl.store(out + row[:, None] * HEAD_DIM + dim, sums.to(out.dtype.element_ty), mask=mask)
        else:
            place = row * SPLITS + part
            tl.store(partial + place[:, None] * HEAD_DIM + dim, sums, mask=mask)
            tl.store(log_sums + place, peak + tl.log2(total), mask=member < GROUP)
            # All threads have stored before one of them says so; the counter orders that for other multiprocessors.
            tl.debug_barrier()
            arrival = arrivals + sequence * KV_HEADS + kv_head
            if tl.atomic_add(arrival, 1, sem="acq_rel", scope="gpu") == num_parts - 1:
                tl.store(arrival, 0)
                _merge(
                    partial, log_sums, out, sequence, kv_head, num_parts,
                    HEADS, GROUP, HEAD_DIM, BLOCK_DIM, SPLITS, MERGED_GROUP, MERGED_PARTS,
                )  # fmt: skip


@triton.jit
def _turn(
    values, others, dim, other, cosine, sine, norm, HEAD_DIM: tl.constexpr, NORM: tl.constexpr, EPS: tl.constexpr
):  # fmt: skip
    """Heads [rows, BLOCK_DIM], normed if asked and turned by an angle, in float32; sines are negative in the first half of a head.

    `others` holds at each place the number that it is turned with, which stands at `other`.
    """
    values, others = values.to(tl.float32), others.to(tl.float32)
    if NORM:
        root = tl.rsqrt(tl.sum(values * values, axis=1) / HEAD_DIM + EPS)[:, None]
        values *= root * tl.load(norm + dim, mask=dim < HEAD_DIM, other=0.0).to(tl.float32)
        others *= root * tl.load(norm + other, mask=dim < HEAD_DIM, other=0.0).to(tl.float32)
    return values * cosine + others * sine


@triton.jit
def _merge(
    partial, log_sums, out, sequence, kv_head, num_parts,
    HEADS: tl.constexpr, GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, SPLITS: tl.constexpr,
    MERGED_GROUP: tl.constexpr, MERGED_PARTS: tl.constexpr,
):  # fmt: skip
    """The heads of a group, their parts weighted by their sums, MERGED_PARTS at a time. Read past the first cache, from L2."""
    member, dim, part = tl.arange(0, MERGED_GROUP), tl.arange(0, BLOCK_DIM), tl.arange(0, MERGED_PARTS)
    in_group = member < GROUP
    row = sequence.to(tl.int64) * HEADS + kv_head * GROUP + member
    peak = tl.full([MERGED_GROUP], -float("inf"), tl.float32)
    total = tl.zeros([MERGED_GROUP], tl.float32)
    merged = tl.zeros([MERGED_GROUP, BLOCK_DIM], tl.float32)
    for block in tl.range(0, num_parts, MERGED_PARTS, num_stages=1):
        used = in_group[:, None] & (block + part < num_parts)[None, :]
        place = row[:, None] * SPLITS + (block + part)[None, :]
        log_sum = tl.load(log_sums + place, mask=used, other=-1e30, cache_modifier=".cg")
        values = tl.load(
            partial + place[:, :, None] * HEAD_DIM + dim[None, None, :],
            mask=used[:, :, None] & (dim < HEAD_DIM)[None, None, :], other=0.0, cache_modifier=".cg",
        )  # fmt: skip
        new_peak = tl.maximum(peak, tl.max(log_sum, axis=1))
        weights = tl.exp2(log_sum - new_peak[:, None])
        shrink = tl.exp2(peak - new_peak)
        total = total * shrink + tl.sum(weights, axis=1)
        merged = merged * shrink[:, None] + tl.sum(values * weights[:, :, None], axis=1)
        peak = new_peak
    target = out + row[:, None] * HEAD_DIM + dim[None, :]
    mask = in_group[:, None] & (dim < HEAD_DIM)[None, :]
    tl.store(target, (merged / total[:, None]).to(out.dtype.element_ty), mask=mask)
