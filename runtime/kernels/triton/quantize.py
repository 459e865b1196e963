"""Rounding rows to e4m3, fused with what makes the rows: a norm, or the gated activation.

What is rounded to e4m3 is what a kernel of its own would have left, so it is rounded to the inputs' dtype first. Divisions are
IEEE's, so that these are the values of the reference up to the norm's last bit.
"""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["scale_stride"])
def rows(
    x, norm_weight, static, out, scales, scale_stride,
    DIM: tl.constexpr, BLOCK: tl.constexpr, NORM: tl.constexpr, EPS: tl.constexpr, GROUP: tl.constexpr,
    STATIC: tl.constexpr, BOUND: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """One program: one row of [num_rows, DIM] → e4m3 and its scale, or one for each GROUP inputs if that is not 0.

    Scales of a group lie beside each other, and groups `scale_stride` apart.
    """
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
    at = tl.arange(0, BLOCK)
    mask = at < DIM
    if NORM:
        scale = tl.load(norm_weight + at, mask=mask, other=0.0).to(tl.float32)
    if PDL:
        tl.extra.cuda.gdc_wait()
    row = tl.program_id(0).to(tl.int64)
    values = tl.load(x + row * DIM + at, mask=mask, other=0.0).to(tl.float32)
    if NORM:
        root = tl.rsqrt(tl.sum(values * values) / DIM + EPS)
        values = (values * root * scale).to(x.dtype.element_ty).to(tl.float32)
    _store(values, at, row, static, out, scales, scale_stride, DIM, BLOCK, GROUP, STATIC, BOUND)


@triton.jit(do_not_specialize=["scale_stride"])
def gated(
    gate_up, static, out, scales, scale_stride,
    DIM: tl.constexpr, BLOCK: tl.constexpr, GROUP: tl.constexpr, STATIC: tl.constexpr, BOUND: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """One program: silu(gate) * up of one row of [num_rows, 2 * DIM], gate before up."""
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    at = tl.arange(0, BLOCK)
    mask = at < DIM
    row = tl.program_id(0).to(tl.int64)
    gate = tl.load(gate_up + row * (2 * DIM) + at, mask=mask, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * (2 * DIM) + DIM + at, mask=mask, other=0.0).to(tl.float32)
    values = (gate * tl.sigmoid(gate) * up).to(gate_up.dtype.element_ty).to(tl.float32)
    _store(values, at, row, static, out, scales, scale_stride, DIM, BLOCK, GROUP, STATIC, BOUND)


@triton.jit
def _store(
    values, at, row, static, out, scales, scale_stride,
    DIM: tl.constexpr, BLOCK: tl.constexpr, GROUP: tl.constexpr, STATIC: tl.constexpr, BOUND: tl.constexpr,
):  # fmt: skip
    """Round a row, BOUND 0 being none; NaN and infinities become NaN."""
    mask = at < DIM
    if GROUP > 0:
        grouped = tl.reshape(values, [BLOCK // GROUP, GROUP])
        peaks = tl.maximum(tl.max(tl.abs(grouped), axis=1), 1e-10)
        if BOUND > 0:
            peaks = tl.minimum(peaks, BOUND)
        factors = tl.div_rn(peaks, 448.0)
        group = tl.arange(0, BLOCK // GROUP)
        tl.store(scales + group * scale_stride + row, factors, mask=group < DIM // GROUP)
        rounded = tl.reshape(tl.div_rn(grouped, tl.broadcast_to(factors[:, None], [BLOCK // GROUP, GROUP])), [BLOCK])
    else:
        if STATIC:
            factor = tl.load(static)
        else:
            peak = tl.maximum(tl.max(tl.abs(values), axis=0), 1e-10)
            if BOUND > 0:
                peak = tl.minimum(peak, BOUND)
            factor = tl.div_rn(peak, 448.0)
        tl.store(scales + row, factor)
        rounded = _divide(values, factor)
    if STATIC or BOUND > 0:
        nan: tl.constexpr = tl.PropagateNan.ALL
        rounded = tl.minimum(tl.maximum(rounded, -448.0, propagate_nan=nan), 448.0, propagate_nan=nan)
    tl.store(out + row * DIM + at, rounded.to(tl.float8e4nv), mask=mask)


@triton.jit
def _divide(values, factor):
    """values / factor as IEEE rounds it, without a division for each: the quotient by the reciprocal, corrected by what is left.

    Source: Markstein, Computation of elementary functions on the IBM RISC System/6000 processor, 1990. Where the remainder is
    too small for float32, the quotient is far below what e4m3 holds.
    """
    reciprocal = tl.div_rn(1.0, factor)
    quotient = values * reciprocal
    return tl.fma(tl.fma(-quotient, factor, values), reciprocal, quotient)
