"""Products of few rows, 1 to 128, with a weight matrix: bound by how fast the weights come from memory.

`multiply_reduce` multiplies and sums in float32 on the vector units, for one or two rows; `dot` has the weights as the
left operand of the tensor cores, whose narrow side is then the rows; `split_dot` is the same, for up to 8 rows, with the inputs
of a step parted among warps, so that a program has more weights on their way. All compute

    out = scale * (x * norm_weight) @ weight.T + bias + residual        scale = 1 / sqrt(mean(x**2) + eps)

where each of norm, bias and residual may be absent, and with SWIGLU the product of silu of the weight's first half and
its second half. The norm costs no kernel: its scale is one number a row, which every program sums up as it reads x.
Weights are read before the wait for the kernel before, which does not write them.
"""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["num_rows"])
def multiply_reduce(
    x, weight, bias, residual, norm_weight, out, num_rows,
    ROWS: tl.constexpr, N: tl.constexpr, K: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    NORM: tl.constexpr, EPS: tl.constexpr, BIAS: tl.constexpr, RESIDUAL: tl.constexpr, SWIGLU: tl.constexpr,
    PREFETCH: tl.constexpr, LATE: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """One program: BLOCK_N output columns of at most ROWS rows, K in steps of BLOCK_K.

    Products stay apart by row, column and place in the step, so that threads exchange nothing before the end.
    """
    columns = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    inner = tl.arange(0, BLOCK_K)[None, None, :]
    row_ids = tl.arange(0, ROWS)[:, None, None]
    tile = weight + columns[None, :, None].to(tl.int64) * K + inner
    in_columns = columns[None, :, None] < N
    if PDL and not LATE:
        tl.extra.cuda.gdc_launch_dependents()
    mask = in_columns & (inner < K)
    gate = tl.load(tile, mask=mask, other=0.0, eviction_policy="evict_first")
    if SWIGLU:
        up = tl.load(tile + N * K, mask=mask, other=0.0, eviction_policy="evict_first")
    if PDL:
        if PREFETCH > 0:
            prefetch_rows(weight, columns, K, PREFETCH)
            if SWIGLU:
                prefetch_rows(weight + N * K, columns, K, PREFETCH)
        tl.extra.cuda.gdc_wait()
    product = tl.zeros([ROWS, BLOCK_N, BLOCK_K], tl.float32)
    product_up = tl.zeros([ROWS, BLOCK_N, BLOCK_K], tl.float32)
    squares = tl.zeros([ROWS, 1, BLOCK_K], tl.float32)
    for step in tl.static_range((K + BLOCK_K - 1) // BLOCK_K):
        at = step * BLOCK_K + inner
        if step > 0:
            mask = in_columns & (at < K)
            gate = tl.load(tile + step * BLOCK_K, mask=mask, other=0.0, eviction_policy="evict_first")
            if SWIGLU:
                up = tl.load(tile + N * K + step * BLOCK_K, mask=mask, other=0.0, eviction_policy="evict_first")
        values = tl.load(x + row_ids * K + at, mask=(row_ids < num_rows) & (at < K), other=0.0).to(tl.float32)
        if NORM:
            squares += values * values
            values *= tl.load(norm_weight + at, mask=at < K, other=0.0).to(tl.float32)
        product += gate.to(tl.float32) * values
        if SWIGLU:
            product_up += up.to(tl.float32) * values
    if PDL and LATE:
        tl.extra.cuda.gdc_launch_dependents()
    summed = tl.sum(product, axis=2)
    summed_up = summed
    if SWIGLU:
        summed_up = tl.sum(product_up, axis=2)
    if NORM:
        scale = tl.rsqrt(tl.sum(squares, axis=2) / K + EPS)
        summed *= scale
        summed_up *= scale
    finish(summed, summed_up, bias, residual, out, tl.arange(0, ROWS)[:, None], columns[None, :], num_rows,
            N, BIAS, RESIDUAL, SWIGLU)  # fmt: skip


@triton.jit(do_not_specialize=["num_rows"])
def dot(
    x, weight, bias, residual, norm_weight, out, num_rows,
    ROWS: tl.constexpr, N: tl.constexpr, K: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    NORM: tl.constexpr, EPS: tl.constexpr, BIAS: tl.constexpr, RESIDUAL: tl.constexpr, SWIGLU: tl.constexpr,
    PREFETCH: tl.constexpr, LATE: tl.constexpr, PDL: tl.constexpr, STAGES: tl.constexpr, FIRST_TILE: tl.constexpr,
):  # fmt: skip
    """As `multiply_reduce`; x times the norm's weight is rounded to the weights' dtype, as a norm of its own would be.

    Rows are filled up with zeros to ROWS: the tensor cores' narrow side, or a power of two above it.
    """
    columns = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    row_ids = tl.arange(0, ROWS)
    inner = tl.arange(0, BLOCK_K)
    tile = weight + columns[:, None].to(tl.int64) * K + inner[None, :]
    in_columns = columns[:, None] < N
    if PDL and not LATE:
        tl.extra.cuda.gdc_launch_dependents()
    if FIRST_TILE:
        mask = in_columns & (inner[None, :] < K)
        gate = tl.load(tile, mask=mask, other=0.0, eviction_policy="evict_first")
        up = gate
        if SWIGLU:
            up = tl.load(tile + N * K, mask=mask, other=0.0, eviction_policy="evict_first")
    if PDL:
        if PREFETCH > 0:
            prefetch_rows(weight, columns, K, PREFETCH)
            if SWIGLU:
                prefetch_rows(weight + N * K, columns, K, PREFETCH)
        tl.extra.cuda.gdc_wait()
    product = tl.zeros([BLOCK_N, ROWS], tl.float32)
    product_up = tl.zeros([BLOCK_N, ROWS], tl.float32)
    squares = tl.zeros([ROWS], tl.float32)
    if FIRST_TILE:
        values, squares = _normed(x, norm_weight, row_ids, inner, num_rows, squares, K, NORM)
        product = tl.dot(gate, tl.trans(values), product)
        if SWIGLU:
            product_up = tl.dot(up, tl.trans(values), product_up)
    for start in tl.range(BLOCK_K if FIRST_TILE else 0, K, BLOCK_K, num_stages=STAGES):
        at = start + inner
        mask = in_columns & (at[None, :] < K)
        gate = tl.load(tile + start, mask=mask, other=0.0, eviction_policy="evict_first")
        values, squares = _normed(x, norm_weight, row_ids, at, num_rows, squares, K, NORM)
        product = tl.dot(gate, tl.trans(values), product)
        if SWIGLU:
            up = tl.load(tile + N * K + start, mask=mask, other=0.0, eviction_policy="evict_first")
            product_up = tl.dot(up, tl.trans(values), product_up)
    if PDL and LATE:
        tl.extra.cuda.gdc_launch_dependents()
    if NORM:
        scale = tl.rsqrt(squares / K + EPS)[None, :]
        product *= scale
        product_up *= scale
    finish(product, product_up, bias, residual, out, row_ids[None, :], columns[:, None], num_rows,
            N, BIAS, RESIDUAL, SWIGLU)  # fmt: skip


@triton.jit(do_not_specialize=["num_rows"])
def split_dot(
    x, weight, bias, residual, norm_weight, out, num_rows,
    ROWS: tl.constexpr, N: tl.constexpr, K: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    NORM: tl.constexpr, EPS: tl.constexpr, BIAS: tl.constexpr, RESIDUAL: tl.constexpr, SWIGLU: tl.constexpr,
    PREFETCH: tl.constexpr, LATE: tl.constexpr, PDL: tl.constexpr, STAGES: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """As `dot`, a step being PARTS * BLOCK_K inputs, each part a product of its own; they are added up at the end.

    The products of a batch go to different warps: with as many warps as parts each has its part alone. The first step's
    weights are on their way before the wait.
    """
    columns = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    row_ids = tl.arange(0, ROWS)[None, :, None]
    inner = (tl.arange(0, PARTS)[:, None] * BLOCK_K + tl.arange(0, BLOCK_K)[None, :])[:, None, :]
    tile = weight + columns[None, :, None].to(tl.int64) * K + inner
    in_columns = columns[None, :, None] < N
    STEP: tl.constexpr = PARTS * BLOCK_K
    if PDL and not LATE:
        tl.extra.cuda.gdc_launch_dependents()
    mask = in_columns & (inner < K)
    gate = tl.load(tile, mask=mask, other=0.0, eviction_policy="evict_first")
    up = gate
    if SWIGLU:
        up = tl.load(tile + N * K, mask=mask, other=0.0, eviction_policy="evict_first")
    if PDL:
        if PREFETCH > 0:
            prefetch_rows(weight, columns, K, PREFETCH)
            if SWIGLU:
                prefetch_rows(weight + N * K, columns, K, PREFETCH)
        tl.extra.cuda.gdc_wait()
    squares = tl.zeros([PARTS, ROWS], tl.float32)
    product = tl.zeros([PARTS, BLOCK_N, ROWS], tl.float32)
    product_up = tl.zeros([PARTS, BLOCK_N, ROWS], tl.float32)
    values, squares = _normed_parts(x, norm_weight, row_ids, inner, num_rows, squares, K, NORM)
    product = tl.dot(gate, values, product)
    if SWIGLU:
        product_up = tl.dot(up, values, product_up)
    for start in tl.range(STEP, K, STEP, num_stages=STAGES):
        at = start + inner
        mask = in_columns & (at < K)
        gate = tl.load(tile + start, mask=mask, other=0.0, eviction_policy="evict_first")
        values, squares = _normed_parts(x, norm_weight, row_ids, at, num_rows, squares, K, NORM)
        product = tl.dot(gate, values, product)
        if SWIGLU:
            up = tl.load(tile + N * K + start, mask=mask, other=0.0, eviction_policy="evict_first")
            product_up = tl.dot(up, values, product_up)
    if PDL and LATE:
        tl.extra.cuda.gdc_launch_dependents()
    summed = tl.sum(product, axis=0)
    summed_up = summed
    if SWIGLU:
        summed_up = tl.sum(product_up, axis=0)
    if NORM:
        scale = tl.rsqrt(tl.sum(squares, axis=0) / K + EPS)[None, :]
        summed *= scale
        summed_up *= scale
    finish(summed, summed_up, bias, residual, out, tl.arange(0, ROWS)[None, :], columns[:, None], num_rows,
            N, BIAS, RESIDUAL, SWIGLU)  # fmt: skip


@triton.jit
def _normed_parts(x, norm_weight, row_ids, at, num_rows, squares, K: tl.constexpr, NORM: tl.constexpr):
    """As `_normed`, by parts [PARTS, ROWS, BLOCK_K], and turned for the product."""
    values = tl.load(x + row_ids * K + at, mask=(row_ids < num_rows) & (at < K), other=0.0)
    if NORM:
        norm = tl.load(norm_weight + at, mask=at < K, other=0.0).to(tl.float32)
        wide = values.to(tl.float32)
        squares += tl.sum(wide * wide, axis=2)
        values = (wide * norm).to(x.dtype.element_ty)
    return tl.permute(values, (0, 2, 1)), squares


@triton.jit
def _normed(x, norm_weight, row_ids, at, num_rows, squares, K: tl.constexpr, NORM: tl.constexpr):
    """Some inputs of all rows, times the norm's weight, and the sums of their squares added to `squares`."""
    there = (row_ids[:, None] < num_rows) & (at[None, :] < K)
    values = tl.load(x + row_ids[:, None] * K + at[None, :], mask=there, other=0.0)
    if NORM:
        norm = tl.load(norm_weight + at, mask=at < K, other=0.0).to(tl.float32)
        wide = values.to(tl.float32)
        squares += tl.sum(wide * wide, axis=1)
        values = (wide * norm[None, :]).to(x.dtype.element_ty)
    return values, squares


@triton.jit
def finish(
    product, product_up, bias, residual, out, row_ids, columns, num_rows,
    N: tl.constexpr, BIAS: tl.constexpr, RESIDUAL: tl.constexpr, SWIGLU: tl.constexpr,
):  # fmt: skip
    """Bias, activation and residual, and the store. The residual is read where the output is written: they may be one."""
    in_columns = columns < N
    if BIAS:
        product += tl.load(bias + columns, mask=in_columns, other=0.0).to(tl.float32)
        if SWIGLU:
            product_up += tl.load(bias + N + columns, mask=in_columns, other=0.0).to(tl.float32)
    if SWIGLU:
        product = product * tl.sigmoid(product) * product_up
    where = row_ids * N + columns
    mask = in_columns & (row_ids < num_rows)
    if RESIDUAL:
        product += tl.load(residual + where, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + where, product.to(out.dtype.element_ty), mask=mask)


@triton.jit
def prefetch_rows(weight, columns, K: tl.constexpr, PREFETCH: tl.constexpr):
    """Ask for the first PREFETCH inputs of some weight rows in L2, a cache line of 128 bytes at a time.

    What lies past the matrix is asked for as well: a prefetch never faults.
    """
    LINE: tl.constexpr = 1024 // weight.dtype.element_ty.primitive_bitwidth
    lines = weight + columns[:, None].to(tl.int64) * K + tl.arange(0, PREFETCH // LINE)[None, :] * LINE
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.b32 $0, 0;", "=r,l", [lines], dtype=tl.int32, is_pure=False, pack=1
    )
