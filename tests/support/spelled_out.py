"""What kernels compute by inline assembly, in Triton's own words, for its interpreter."""

import triton
import triton.language as tl


@triton.jit
def unpack(pairs):  # type: ignore[no-untyped-def]
    """See `runtime.kernels.triton.decode_e4m3.unpack`."""
    low = (pairs & 0xFF).to(tl.uint8).to(tl.float8e4nv, bitcast=True).to(tl.float16)
    high = ((pairs >> 8) & 0xFF).to(tl.uint8).to(tl.float8e4nv, bitcast=True).to(tl.float16)
    return low, high
