"""Linear layers of few rows, fused with the norm before and with activation or residual after.

Such a product is bound by the weights' way from memory, so its blocks are chosen per shape, by `blocks`.
"""

from dataclasses import dataclass

from torch import Tensor

from runtime.kernels.blocks import MOST_ROWS, GemvBlocks, Shape, choose_blocks
from runtime.kernels.launching import Constant, Launcher, Options


@dataclass(frozen=True, slots=True)
class Norm:
    """The norm before a product: weight [K], and what is added to the mean square."""

    weight: Tensor
    eps: float


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
        x: [rows, K], at most MOST_ROWS rows, bf16 or fp16, contiguous; as are the others.
        weight: [N, K] of x's dtype; with `swiglu` [2 * N, K], gate before up, and the result is silu(gate) * up.
        out: [rows, N]; any float dtype (float32 for logits). It may be `residual` itself, not x.
        bias: as many as the weight has rows.
        residual: [rows, N].
        blocks: instead of `choose_blocks`, which must be given where that leaves the product to cuBLAS.
        pdl: whether kernels before and after take part in programmatic dependent launch; see `runtime.kernels.triton`.
    Capture-safe.
    """
    rows, k = x.shape
    n = weight.shape[0] // 2 if swiglu else weight.shape[0]
    assert 1 <= rows <= MOST_ROWS, f"1 to {MOST_ROWS} rows, got {rows}"
    assert (weight.shape[1], *out.shape) == (k, rows, n), f"{x.shape} @ {weight.shape}.T -> {out.shape}"
    cut = blocks or choose_blocks(Shape(n, k, swiglu), rows)
    assert cut is not None, f"{rows} rows of {k} inputs, {n} outputs are cuBLAS's"
    constants = _constants_of(cut, rows) | {
        "N": n,
        "K": k,
        "NORM": norm is not None,
        "EPS": norm.eps if norm is not None else 0.0,
        "BIAS": bias is not None,
        "RESIDUAL": residual is not None,
        "SWIGLU": swiglu,
        "PDL": pdl,
    }
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


def _constants_of(cut: GemvBlocks, rows: int) -> dict[str, Constant]:
    """What a cut says to its kernel."""
    constants: dict[str, Constant] = {
        "ROWS": _power_of_two(rows) if cut.kernel == "multiply_reduce" else max(cut.fewest_rows, _power_of_two(rows)),
        "BLOCK_N": cut.block_n,
        "BLOCK_K": cut.block_k,
        "PREFETCH": cut.prefetch,
        "LATE": cut.late,
    }
    if cut.kernel == "dot":
        constants |= {"STAGES": cut.num_stages, "FIRST_TILE": cut.first_tile}
    elif cut.kernel == "split_dot":
        constants |= {"STAGES": cut.num_stages, "PARTS": cut.num_warps}
    return constants


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()
