"""The rows of the embedding matrix for a step's tokens, some of which only the device knows yet."""

import triton
import triton.language as tl


@triton.jit
def gather(
    token_ids, previous_rows, previous_ids, embedding, out,
    DIM: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """One program: BLOCK columns of one token. Its id is its own, or a sample of the step before."""
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    row = tl.program_id(0)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = at < DIM
    previous = tl.load(previous_rows + row)
    token = tl.load(token_ids + row).to(tl.int64)
    if previous >= 0:
        token = tl.load(previous_ids + previous).to(tl.int64)
    values = tl.load(embedding + token * DIM + at, mask=mask)
    tl.store(out + row.to(tl.int64) * DIM + at, values, mask=mask)
