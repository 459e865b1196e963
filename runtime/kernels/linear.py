"""Linear layers of 1 to 8 rows, fused with the norm before and with activation or residual after.

Such a product is bound by the weights' way from memory, so blocks are chosen per shape; `choose_blocks` looks in a table
that was measured once (`casemate bench kernels`) and is frozen here.
"""

from dataclasses import dataclass

from torch import Tensor

from runtime.kernels.launching import Launcher, Options

MAX_ROWS = 8


@dataclass(frozen=True, slots=True)
class GemvBlocks:
    """How a product is cut. See `runtime.kernels.triton.linear` for the two kernels."""

    kernel: str
    """`multiply_reduce` or `dot`"""
    block_n: int
    """Output columns of a program; for `dot` at least 16."""
    block_k: int
    num_warps: int
    num_stages: int = 1
    """Tiles on their way at once, for `dot`."""
    prefetch: int = 0
    """Inputs of each weight row that are asked for in L2 while the kernel before still runs; a power of 2 of at least 64."""


@dataclass(frozen=True, slots=True)
class Norm:
    """The norm before a product: weight [K], and what is added to the mean square."""

    weight: Tensor
    eps: float


def choose_blocks(n: int, k: int, rows: int) -> GemvBlocks:
    """Blocks for `n` output columns (a fused activation's, not the weight's rows), `k` inputs and up to MAX_ROWS rows."""
    if rows <= 2:
        return GemvBlocks("multiply_reduce", 2 if n <= 8192 else 4, min(2048, _power_of_two(k)), 4)
    return GemvBlocks("dot", 16, min(256, _power_of_two(k)), 1, 4, 1024)


def multiply_rows(
    x: Tensor,
    weight: Tensor,
    *,
    out: Tensor,
    launcher: Launcher,
    norm: Norm | None = None,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    swiglu: bool = False,
    blocks: GemvBlocks | None = None,
    pdl: bool = False,
) -> None:
    """out = activation(norm(x) @ weight.T + bias) + residual, accumulated in float32 and rounded once.

    Args:
        x: [rows, K], at most MAX_ROWS rows, bf16 or fp16, contiguous; as are the others.
        weight: [N, K] of x's dtype; with `swiglu` [2 * N, K], gate before up, and the result is silu(gate) * up.
        out: [rows, N]; any float dtype (float32 for logits). It may be `residual` itself, not x.
        bias: as many as the weight has rows.
        residual: [rows, N].
        blocks: instead of `choose_blocks`.
        pdl: whether kernels before and after take part in programmatic dependent launch; see `runtime.kernels.triton`.
    Capture-safe.
    """
    rows, k = x.shape
    n = weight.shape[0] // 2 if swiglu else weight.shape[0]
    assert 1 <= rows <= MAX_ROWS, f"1 to {MAX_ROWS} rows, got {rows}"
    assert (weight.shape[1], *out.shape) == (k, rows, n), f"{x.shape} @ {weight.shape}.T -> {out.shape}"
    cut = blocks if blocks is not None else choose_blocks(n, k, rows)
    constants = {
        "ROWS": _power_of_two(rows) if cut.kernel == "multiply_reduce" else MAX_ROWS,
        "N": n,
        "K": k,
        "BLOCK_N": cut.block_n,
        "BLOCK_K": cut.block_k,
        "NORM": norm is not None,
        "EPS": norm.eps if norm is not None else 0.0,
        "BIAS": bias is not None,
        "RESIDUAL": residual is not None,
        "SWIGLU": swiglu,
        "PREFETCH": cut.prefetch,
        "PDL": pdl,
    }
    if cut.kernel == "dot":
        constants["STAGES"] = cut.num_stages
    # What is absent is never read, but has to be a pointer of a known type.
    absent = weight
    launcher.launch(
        f"linear.{cut.kernel}",
        (-(-n // cut.block_n), 1, 1),
        (
            x,
            weight,
            absent if bias is None else bias,
            absent if residual is None else residual,
            absent if norm is None else norm.weight,
            out,
            rows,
        ),
        constants,
        Options(num_warps=cut.num_warps, num_stages=cut.num_stages, launch_pdl=pdl),
    )


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()
