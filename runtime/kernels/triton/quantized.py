"""Products of rows and weights that are both e4m3.

    out = (x * x_scale) @ (weight * scale).T + bias + residual

Scales are by row of x and by row of the weight, or with GROUP > 0 by GROUP inputs of a row of x and by GROUP x GROUP block of
the weight; those of x then lie group by group, `scale_stride` apart. Bias and residual may be absent. e4m3 products are exact in
float32, so the kernels differ from each other and from cuBLAS only by the order and the rounding of their sums.
"""

import triton
import triton.language as tl

from runtime.kernels.triton.linear import prefetch_rows


@triton.jit(do_not_specialize=["num_rows", "scale_stride"])
def multiply_reduce(
    x, x_scales, weight, scales, bias, residual, out, num_rows, scale_stride,
    ROWS: tl.constexpr, N: tl.constexpr, K: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    BIAS: tl.constexpr, RESIDUAL: tl.constexpr, PREFETCH: tl.constexpr, LATE: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """As `linear.multiply_reduce`, for one or two rows and scales by row."""
    columns = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    inner = tl.arange(0, BLOCK_K)[None, None, :]
    row_ids = tl.arange(0, ROWS)[:, None, None]
    tile = weight + columns[None, :, None].to(tl.int64) * K + inner
    in_columns = columns[None, :, None] < N
    if PDL and not LATE:
        tl.extra.cuda.gdc_launch_dependents()
    weights = tl.load(tile, mask=in_columns & (inner < K), other=0.0, eviction_policy="evict_first")
    scale = tl.load(scales + columns, mask=columns < N, other=0.0)
    if PDL:
        if PREFETCH > 0:
            prefetch_rows(weight + BLOCK_K, columns, K, PREFETCH)
        tl.extra.cuda.gdc_wait()
    product = tl.zeros([ROWS, BLOCK_N, BLOCK_K], tl.float32)
    for step in tl.static_range((K + BLOCK_K - 1) // BLOCK_K):
        at = step * BLOCK_K + inner
        if step > 0:
            mask = in_columns & (at < K)
            weights = tl.load(tile + step * BLOCK_K, mask=mask, other=0.0, eviction_policy="evict_first")
        values = tl.load(x + row_ids * K + at, mask=(row_ids < num_rows) & (at < K), other=0.0).to(tl.float32)
        product += weights.to(tl.float32) * values
    if PDL and LATE:
        tl.extra.cuda.gdc_launch_dependents()
    rows = tl.arange(0, ROWS)[:, None]
    x_scale = tl.load(x_scales + rows, mask=rows < num_rows, other=0.0)
    summed = tl.sum(product, axis=2) * x_scale * scale[None, :]
    _finish(summed, bias, residual, out, rows, columns[None, :], num_rows, N, BIAS, RESIDUAL)


@triton.jit(do_not_specialize=["num_rows", "scale_stride"])
def dot(
    x, x_scales, weight, scales, bias, residual, out, num_rows, scale_stride,
    ROWS: tl.constexpr, N: tl.constexpr, K: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr, BIAS: tl.constexpr, RESIDUAL: tl.constexpr, PREFETCH: tl.constexpr, LATE: tl.constexpr,
    PDL: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """As `linear.dot`, for up to 64 rows; with GROUP a step is one group. The first tile is on its way before the wait."""
    columns = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    row_ids = tl.arange(0, ROWS)
    inner = tl.arange(0, BLOCK_K)
    tile = weight + columns[:, None].to(tl.int64) * K + inner[None, :]
    in_columns = columns[:, None] < N
    if PDL and not LATE:
        tl.extra.cuda.gdc_launch_dependents()
    weights = tl.load(tile, mask=in_columns & (inner[None, :] < K), other=0.0, eviction_policy="evict_first")
    if PDL:
        if PREFETCH > 0:
            prefetch_rows(weight + BLOCK_K, columns, K, PREFETCH)
        tl.extra.cuda.gdc_wait()
    product = _add_tile(tl.zeros([BLOCK_N, ROWS], tl.float32), weights, x, x_scales, scales, columns, row_ids, inner,
                        0, num_rows, scale_stride, N, K, GROUP)  # fmt: skip
    for start in tl.range(BLOCK_K, K, BLOCK_K, num_stages=STAGES):
        at = start + inner
        weights = tl.load(tile + start, mask=in_columns & (at[None, :] < K), other=0.0, eviction_policy="evict_first")
        product = _add_tile(product, weights, x, x_scales, scales, columns, row_ids, at, start, num_rows, scale_stride,
                            N, K, GROUP)  # fmt: skip
    if PDL and LATE:
        tl.extra.cuda.gdc_launch_dependents()
    if GROUP == 0:
        x_scale = tl.load(x_scales + row_ids, mask=row_ids < num_rows, other=0.0)
        product *= x_scale[None, :] * tl.load(scales + columns, mask=columns < N, other=0.0)[:, None]
    _finish(product, bias, residual, out, row_ids[None, :], columns[:, None], num_rows, N, BIAS, RESIDUAL)


@triton.jit(do_not_specialize=["num_rows", "scale_stride"])
def split_dot(
    x, x_scales, weight, scales, bias, residual, out, num_rows, scale_stride,
    ROWS: tl.constexpr, N: tl.constexpr, K: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr, BIAS: tl.constexpr, RESIDUAL: tl.constexpr, PREFETCH: tl.constexpr, LATE: tl.constexpr,
    PDL: tl.constexpr, STAGES: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """As `linear.split_dot`: a step is PARTS * BLOCK_K inputs, each part a product of its own; with GROUP a part is one group."""
    columns = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    row_ids = tl.arange(0, ROWS)
    inner = (tl.arange(0, PARTS)[:, None] * BLOCK_K + tl.arange(0, BLOCK_K)[None, :])[:, None, :]
    tile = weight + columns[None, :, None].to(tl.int64) * K + inner
    in_columns = columns[None, :, None] < N
    STEP: tl.constexpr = PARTS * BLOCK_K
    if PDL and not LATE:
        tl.extra.cuda.gdc_launch_dependents()
    weights = tl.load(tile, mask=in_columns & (inner < K), other=0.0, eviction_policy="evict_first")
    if PDL:
        if PREFETCH > 0:
            prefetch_rows(weight + STEP, columns, K, PREFETCH)
        tl.extra.cuda.gdc_wait()
    product = _add_parts(tl.zeros([PARTS, BLOCK_N, ROWS], tl.float32), weights, x, x_scales, scales, columns, row_ids, inner,
                         0, num_rows, scale_stride, N, K, GROUP, PARTS)  # fmt: skip
    for start in tl.range(STEP, K, STEP, num_stages=STAGES):
        at = start + inner
        weights = tl.load(tile + start, mask=in_columns & (at < K), other=0.0, eviction_policy="evict_first")
        product = _add_parts(product, weights, x, x_scales, scales, columns, row_ids, at, start, num_rows, scale_stride,
                             N, K, GROUP, PARTS)  # fmt: skip
    if PDL and LATE:
        tl.extra.cuda.gdc_launch_dependents()
    summed = tl.sum(product, axis=0)
    if GROUP == 0:
        x_scale = tl.load(x_scales + row_ids, mask=row_ids < num_rows, other=0.0)
        summed *= x_scale[None, :] * tl.load(scales + columns, mask=columns < N, other=0.0)[:, None]
    _finish(summed, bias, residual, out, row_ids[None, :], columns[:, None], num_rows, N, BIAS, RESIDUAL)


@triton.jit(do_not_specialize=["num_rows", "scale_stride"])
def tiles(
    x, x_scales, weight, scales, bias, residual, out, num_rows, scale_stride,
    N: tl.constexpr, K: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUP: tl.constexpr,
    BIAS: tl.constexpr, RESIDUAL: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """One program: a tile of many rows by BLOCK_N columns, scales by group and block; a step is one group.

    Neighbouring programs share their columns, so each weight comes from memory once. BLOCK_N is GROUP, so that a tile of weights
    has one scale.
    """
    row_ids = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    inner = tl.arange(0, GROUP)
    x_tile = x + row_ids[:, None].to(tl.int64) * K + inner[None, :]
    tile = weight + columns[:, None].to(tl.int64) * K + inner[None, :]
    tl.static_assert(BLOCK_N == GROUP)
    in_rows, in_columns = row_ids < num_rows, columns < N
    steps: tl.constexpr = K // GROUP
    product = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for step in tl.range(0, steps, num_stages=STAGES):
        values = tl.load(x_tile + step * GROUP, mask=in_rows[:, None], other=0.0)
        weights = tl.load(tile + step * GROUP, mask=in_columns[:, None], other=0.0)
        x_scale = tl.load(x_scales + step * scale_stride + row_ids, mask=in_rows, other=0.0)
        x_scale *= tl.load(scales + tl.program_id(1) * steps + step)
        product += tl.dot(values, tl.trans(weights)) * x_scale[:, None]
    _finish(product, bias, residual, out, row_ids[:, None].to(tl.int64), columns[None, :], num_rows, N, BIAS, RESIDUAL)


@triton.jit
def _add_tile(
    product, weights, x, x_scales, scales, columns, row_ids, at, start, num_rows, scale_stride,
    N: tl.constexpr, K: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Some inputs' share of the product, [columns, rows], scaled at once where scales are by group."""
    there = (row_ids[:, None] < num_rows) & (at[None, :] < K)
    values = tl.load(x + row_ids[:, None] * K + at[None, :], mask=there, other=0.0)
    if GROUP == 0:
        product = tl.dot(weights, tl.trans(values), product)
    else:
        steps: tl.constexpr = K // GROUP
        x_scale = tl.load(x_scales + start // GROUP * scale_stride + row_ids, mask=row_ids < num_rows, other=0.0)
        scale = tl.load(scales + columns // GROUP * steps + start // GROUP, mask=columns < N, other=0.0)
        product += tl.dot(weights, tl.trans(values)) * (scale[:, None] * x_scale[None, :])
    return product


@triton.jit
def _add_parts(
    product, weights, x, x_scales, scales, columns, row_ids, at, start, num_rows, scale_stride,
    N: tl.constexpr, K: tl.constexpr, GROUP: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """As `_add_tile`, by parts: [PARTS, columns, rows]."""
    there = (row_ids[None, :, None] < num_rows) & (at < K)
    values = tl.load(x + row_ids[None, :, None] * K + at, mask=there, other=0.0)
    if GROUP == 0:
        product = tl.dot(weights, tl.permute(values, (0, 2, 1)), product)
    else:
        steps: tl.constexpr = K // GROUP
        group = start // GROUP + tl.arange(0, PARTS)
        in_groups = (group < steps)[:, None]
        x_scale = tl.load(x_scales + group[:, None] * scale_stride + row_ids[None, :],
                          mask=in_groups & (row_ids < num_rows)[None, :], other=0.0)  # fmt: skip
        scale = tl.load(scales + (columns // GROUP * steps)[None, :] + group[:, None],
                        mask=in_groups & (columns < N)[None, :], other=0.0)  # fmt: skip
        product += tl.dot(weights, tl.permute(values, (0, 2, 1))) * (scale[:, :, None] * x_scale[:, None, :])
    return product


@triton.jit
def _finish(
    product, bias, residual, out, row_ids, columns, num_rows,
    N: tl.constexpr, BIAS: tl.constexpr, RESIDUAL: tl.constexpr,
):  # fmt: skip
    """Bias and residual, and the store. The residual is read where the output is written: they may be one."""
    in_columns = columns < N
    if BIAS:
        product += tl.load(bias + columns, mask=in_columns, other=0.0).to(tl.float32)
    where = row_ids * N + columns
    mask = in_columns & (row_ids < num_rows)
    if RESIDUAL:
        product += tl.load(residual + where, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + where, product.to(out.dtype.element_ty), mask=mask)
