"""What stands between the projection of a step's rows and attention: head norms, rotation, and the write to the cache."""

import triton
import triton.language as tl


@triton.jit
def rotate_and_store(
    qkv, positions, slots, cosines, sines, query_norm, key_norm, scales, pages, query,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, PAGE_SIZE: tl.constexpr,
    BLOCK_HEADS: tl.constexpr, BLOCK_HALF: tl.constexpr,
    NORM: tl.constexpr, EPS: tl.constexpr, SCALED: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """One program: BLOCK_HEADS heads of one row; heads are numbered queries first, then keys, then values.

    With SCALED the cache holds keys over `scales[0]` and values over `scales[1]` in e4m3: what is too large is cut off, and what
    is not finite is NaN.
    """
    HALF: tl.constexpr = HEAD_DIM // 2
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * BLOCK_HEADS + tl.arange(0, BLOCK_HEADS)[:, None]
    low = tl.arange(0, BLOCK_HALF)[None, :]
    is_query, is_value = head < HEADS, head >= HEADS + KV_HEADS
    mask = (head < HEADS + 2 * KV_HEADS) & (low < HALF)
    position = tl.load(positions + row).to(tl.int64)
    # Both halves of the table hold the same cosines; the sines of its second half are the positive ones.
    entry = position * HEAD_DIM + low + tl.zeros_like(head)
    cosine = tl.load(cosines + entry, mask=mask, other=0.0).to(tl.float32)
    sine = tl.load(sines + entry + HALF, mask=mask, other=0.0).to(tl.float32)
    slot = tl.load(slots + row).to(tl.int64)
    if PDL:
        tl.extra.cuda.gdc_wait()
    source = qkv + row * ((HEADS + 2 * KV_HEADS) * HEAD_DIM) + head * HEAD_DIM + low
    first = tl.load(source, mask=mask, other=0.0).to(tl.float32)
    second = tl.load(source + HALF, mask=mask, other=0.0).to(tl.float32)
    if NORM:
        root = tl.rsqrt(tl.sum(first * first + second * second, axis=1) / HEAD_DIM + EPS)[:, None]
        for_query, for_key = mask & is_query, mask & (head >= HEADS) & (head < HEADS + KV_HEADS)
        low_weight = tl.load(query_norm + low + tl.zeros_like(head), mask=for_query, other=0.0).to(tl.float32)
        low_weight += tl.load(key_norm + low + tl.zeros_like(head), mask=for_key, other=0.0).to(tl.float32)
        high_weight = tl.load(query_norm + HALF + low + tl.zeros_like(head), mask=for_query, other=0.0).to(tl.float32)
        high_weight += tl.load(key_norm + HALF + low + tl.zeros_like(head), mask=for_key, other=0.0).to(tl.float32)
        first = tl.where(is_value, first, first * root * low_weight)
        second = tl.where(is_value, second, second * root * high_weight)
    turned_first = tl.where(is_value, first, first * cosine - second * sine)
    turned_second = tl.where(is_value, second, second * cosine + first * sine)
    target = query + row * (HEADS * HEAD_DIM) + head * HEAD_DIM + low
    tl.store(target, turned_first.to(query.dtype.element_ty), mask=mask & is_query)
    tl.store(target + HALF, turned_second.to(query.dtype.element_ty), mask=mask & is_query)
    if SCALED:
        scale = tl.where(is_value, tl.load(scales + 1), tl.load(scales)) + tl.zeros_like(turned_first)
        turned_first = _cut_off(tl.div_rn(turned_first, scale))
        turned_second = _cut_off(tl.div_rn(turned_second, scale))
    cache_row = slot + slot // PAGE_SIZE * PAGE_SIZE + tl.where(is_value, PAGE_SIZE, 0)
    kv_head = tl.where(is_value, head - HEADS - KV_HEADS, head - HEADS)
    target = pages + (cache_row * KV_HEADS + kv_head) * HEAD_DIM + low
    tl.store(target, turned_first.to(pages.dtype.element_ty), mask=mask & (head >= HEADS))
    tl.store(target + HALF, turned_second.to(pages.dtype.element_ty), mask=mask & (head >= HEADS))


@triton.jit
def _cut_off(values):
    """To what e4m3 holds, by comparisons that are false for NaN."""
    cut = tl.minimum(tl.maximum(values, -448.0), 448.0)
    return tl.where(tl.abs(values) < float("inf"), cut, float("nan"))
