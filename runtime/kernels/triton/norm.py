"""Root mean square normalization of whole rows, and the residual addition before it."""

import triton
import triton.language as tl


@triton.jit
def add_rms_norm(
    hidden, delta, weight, out,
    DIM: tl.constexpr, BLOCK: tl.constexpr, DELTA: tl.constexpr, EPS: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """One program: one row. With DELTA `hidden` becomes hidden + delta, rounded to its dtype; out is the norm of it."""
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
    at = tl.arange(0, BLOCK)
    mask = at < DIM
    scale = tl.load(weight + at, mask=mask, other=0.0).to(tl.float32)
    if PDL:
        tl.extra.cuda.gdc_wait()
    where = tl.program_id(0).to(tl.int64) * DIM + at
    values = tl.load(hidden + where, mask=mask, other=0.0)
    if DELTA:
        added = values.to(tl.float32) + tl.load(delta + where, mask=mask, other=0.0).to(tl.float32)
        values = added.to(hidden.dtype.element_ty)
        tl.store(hidden + where, values, mask=mask)
    wide = values.to(tl.float32)
    root = tl.rsqrt(tl.sum(wide * wide) / DIM + EPS)
    tl.store(out + where, (wide * root * scale).to(out.dtype.element_ty), mask=mask)
