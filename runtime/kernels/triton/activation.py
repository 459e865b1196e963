"""The gated activation, element by element."""

import triton
import triton.language as tl


@triton.jit
def silu_and_multiply(gate_up, out, INNER: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr):
    """One program: BLOCK columns of one row of [num_rows, 2 * INNER] → [num_rows, INNER]."""
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = at < INNER
    gate = tl.load(gate_up + row * (2 * INNER) + at, mask=mask, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * (2 * INNER) + INNER + at, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + row * INNER + at, (gate * tl.sigmoid(gate) * up).to(out.dtype.element_ty), mask=mask)
