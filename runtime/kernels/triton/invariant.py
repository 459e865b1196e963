"""Products of any number of rows, where no row's result depends on the others: neither on how many they are nor on its place.

Each output is one sum over the inputs, in steps of the tensor cores, from the first to the last; nobody shares it. So its bits are
the same in a tile of 16 rows and in one of 256: a tile's height and width say which sums are computed beside each other, not how.
That is a property of the hardware and the compiler, which `tests/gpu/test_deterministic.py` holds them to.
"""

import triton
import triton.language as tl

from runtime.kernels.triton.linear import finish


@triton.jit(do_not_specialize=["num_rows"])
def multiply(
    x, weight, bias, residual, out, num_rows,
    ROWS: tl.constexpr, N: tl.constexpr, K: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    BIAS: tl.constexpr, RESIDUAL: tl.constexpr, SWIGLU: tl.constexpr, STAGES: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """out = x @ weight.T + bias + residual, as `linear.dot` without a norm. One program: ROWS rows of BLOCK_N columns.

    Programs of the same columns are neighbours, so that the weights are read once for them.
    """
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    row_ids = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    inner = tl.arange(0, BLOCK_K)
    tile = weight + columns[:, None].to(tl.int64) * K + inner[None, :]
    rows = x + row_ids[:, None].to(tl.int64) * K + inner[None, :]
    in_columns, in_rows = columns[:, None] < N, row_ids[:, None] < num_rows
    product = tl.zeros([BLOCK_N, ROWS], tl.float32)
    product_up = product
    for start in tl.range(0, K, BLOCK_K, num_stages=STAGES):
        there = (start + inner)[None, :] < K
        values = tl.load(rows + start, mask=in_rows & there, other=0.0)
        gate = tl.load(tile + start, mask=in_columns & there, other=0.0)
        product = tl.dot(gate, tl.trans(values), product)
        if SWIGLU:
            up = tl.load(tile + N * K + start, mask=in_columns & there, other=0.0)
            product_up = tl.dot(up, tl.trans(values), product_up)
    finish(product, product_up, bias, residual, out, row_ids[None, :], columns[:, None], num_rows,
           N, BIAS, RESIDUAL, SWIGLU)  # fmt: skip
