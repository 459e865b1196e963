"""Attention of single queries over paged keys and values in e4m3: `decode.split`, where half the bytes come from memory.

To be faster by that, a kernel must not spend on conversions what it saves on loads. Numbers are loaded in pairs of
neighbours in a head, 16 bits each, so that they reach the tensor cores' registers by the same transposing loads as numbers
of 16 bits do; there one byte permutation and two conversions make fp16 of four. e4m3 fits in fp16 without loss. So do
weights, better than in bf16, and queries, which are divided by a power of 2 first. Even and odd places of a head are two
products with sums of their own.

Measured by counting instructions of the loop (sm_90a, 128 tokens at once): 2.7 for each number, where 3.7 are spent on one
of bf16, and 7.6 if e4m3 is converted after a load by bytes.
"""

import triton
import triton.language as tl

from runtime.kernels.triton.decode import find_keys, part_of, prefetch


@triton.jit
def split(
    query, pages, scales, context_lengths, page_starts, page_ids, partial, log_sums,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, PAGE_SIZE: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr, BLOCK_GROUP: tl.constexpr, BLOCK_DIM: tl.constexpr, SPLITS: tl.constexpr,
    MIN_TOKENS: tl.constexpr, WINDOW: tl.constexpr, SOFTMAX_SCALE: tl.constexpr,
    STAGES: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """As `decode.split`. Keys are `scales[0]` times what the cache holds, values `scales[1]` times."""
    GROUP: tl.constexpr = HEADS // KV_HEADS
    HALF: tl.constexpr = HEAD_DIM // 2
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
        member, pair = tl.arange(0, BLOCK_GROUP), tl.arange(0, BLOCK_DIM // 2)
        head = kv_head * GROUP + member
        in_group, in_half = member < GROUP, pair < HALF
        row = sequence.to(tl.int64) * HEADS + head
        mask = in_group[:, None] & in_half[None, :]
        where = query + row[:, None] * HEAD_DIM + 2 * pair[None, :]
        even = tl.load(where, mask=mask, other=0.0).to(tl.float32)
        odd = tl.load(where + 1, mask=mask, other=0.0).to(tl.float32)
        query_even, query_odd, size = shrink_query(even, odd)
        # Scores are in base 2, so that the exponential is one instruction.
        factor = size * (SOFTMAX_SCALE * 1.4426950408889634) * tl.load(scales)
        peak = tl.full([BLOCK_GROUP], -float("inf"), tl.float32)
        total = tl.zeros([BLOCK_GROUP], tl.float32)
        sums_even = tl.zeros([BLOCK_GROUP, BLOCK_DIM // 2], tl.float32)
        sums_odd = tl.zeros([BLOCK_GROUP, BLOCK_DIM // 2], tl.float32)
        peak, total, sums_even, sums_odd = add_tokens(
            peak, total, sums_even, sums_odd, query_even, query_odd, factor, pages, table, kv_head, first, last,
            KV_HEADS, HEAD_DIM, PAGE_SIZE, BLOCK_TOKENS, BLOCK_DIM, STAGES,
        )  # fmt: skip
        scale = tl.load(scales + 1) / total
        result = partial + (row * SPLITS + part)[:, None] * HEAD_DIM + 2 * pair[None, :]
        tl.store(result, (sums_even * scale[:, None]).to(partial.dtype.element_ty), mask=mask)
        tl.store(result + 1, (sums_odd * scale[:, None]).to(partial.dtype.element_ty), mask=mask)
        if SPLITS > 1:
            tl.store(log_sums + row * SPLITS + part, peak + tl.log2(total), mask=in_group)


@triton.jit
def add_tokens(
    peak, total, sums_even, sums_odd, query_even, query_odd, factor, pages, table, kv_head, first, last,
    KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, PAGE_SIZE: tl.constexpr, BLOCK_TOKENS: tl.constexpr,
    BLOCK_DIM: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """As `decode.add_tokens`. `factor` [rows] holds the keys' scale, the values' scale is left out of the sums."""
    HALF: tl.constexpr = HEAD_DIM // 2
    pairs = pages.to(tl.pointer_type(tl.int16))
    token, pair = tl.arange(0, BLOCK_TOKENS), tl.arange(0, BLOCK_DIM // 2)
    for block in tl.range(first, last, BLOCK_TOKENS, num_stages=STAGES):
        at = block + token
        valid = at < last
        source = find_keys(pairs, table, kv_head, at, valid, KV_HEADS, HALF, PAGE_SIZE)[:, None] + pair[None, :]
        there = valid[:, None] & (pair < HALF)[None, :]
        keys = tl.load(source, mask=there, other=0)
        values = tl.load(source + PAGE_SIZE * KV_HEADS * HALF, mask=there, other=0)
        peak, total, sums_even, sums_odd = add_tile(
            peak, total, sums_even, sums_odd, query_even, query_odd, factor, keys, values, valid
        )
    return peak, total, sums_even, sums_odd


@triton.jit
def add_tile(peak, total, sums_even, sums_odd, query_even, query_odd, factor, keys, values, valid):
    """As `decode.add_tile`; keys and values are pairs of e4m3."""
    keys_even, keys_odd = unpack(keys)
    scores = tl.dot(query_odd, tl.trans(keys_odd), tl.dot(query_even, tl.trans(keys_even)))
    scores = tl.where(valid[None, :], scores * factor[:, None], -float("inf"))
    new_peak = tl.maximum(peak, tl.max(scores, axis=1))
    weights = tl.exp2(scores - new_peak[:, None])
    shrink = tl.exp2(peak - new_peak)
    total = total * shrink + tl.sum(weights, axis=1)
    values_even, values_odd = unpack(values)
    sums_even = tl.dot(weights.to(tl.float16), values_even, sums_even * shrink[:, None])
    sums_odd = tl.dot(weights.to(tl.float16), values_odd, sums_odd * shrink[:, None])
    return new_peak, total, sums_even, sums_odd


@triton.jit
def shrink_query(even, odd):
    """Queries, float32, by the even and the odd places of a head → both in fp16 over a power of 2 for each row, and that."""
    size = power_of_two(tl.maximum(tl.max(tl.abs(even), axis=1), tl.max(tl.abs(odd), axis=1)))
    return (even / size[:, None]).to(tl.float16), (odd / size[:, None]).to(tl.float16), size


@triton.jit
def power_of_two(peak):
    """Half of `peak` < result <= `peak`, by the exponent's bits; at least 2**-100. Whatever it divides is in fp16's range then."""
    bits = tl.maximum(peak, 7.9e-31).to(tl.int32, bitcast=True) & 0x7F800000
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def unpack(pairs):
    """Two numbers of e4m3 in each 16 bits → those in the low and those in the high bytes, as fp16. NaN stays NaN.

    By hand because a thread has two of the 16 bits in a register, and both conversions take two numbers at once: Triton's own
    way, byte by byte, takes twice the instructions.
    """
    return tl.inline_asm_elementwise(
        """{
        .reg .b32 sorted; .reg .b16 low, high;
        prmt.b32 sorted, $2, 0, 0x3120;
        mov.b32 {low, high}, sorted;
        cvt.rn.f16x2.e4m3x2 $0, low;
        cvt.rn.f16x2.e4m3x2 $1, high;
        }""",
        "=r,=r,r", [pairs], dtype=(tl.float16, tl.float16), is_pure=True, pack=2,
    )  # fmt: skip
