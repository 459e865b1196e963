"""FP8 on a GPU: rows rounded to e4m3 as they are made, and multiplied by weights in e4m3.

The rounding is the same for every number of rows, and products differ only by the order and the rounding of their sums: up to
E4M3_MOST_ROWS rows our own kernels multiply, as such products are bound by the weights' way from memory, above cuBLAS.

Limits of cuBLAS, as torch 2.11 calls it on Hopper: bf16 comes out of it; scales by row together with a bias find no algorithm for
some shapes (9 and 16 rows of 4096 from 14336 inputs: CUBLAS_STATUS_NOT_SUPPORTED), so a bias is added apart; where scales are by
block it wants those of rows group by group, rows in fours, and those of weights in rows of a multiple of 4. A weight that is not
so is multiplied by a kernel of ours. A residual is added by cuBLASLt itself where scales are by row (`scaled_products`).
"""

import torch
import torch.nn.functional as functional
from torch import Tensor

from runtime.kernels.blocks import E4M3_MOST_ROWS, GemvBlocks, Shape, choose_e4m3_blocks
from runtime.kernels.launching import Constant, Launcher, Options
from runtime.kernels.linear import Norm
from runtime.kernels.scaled_products import scaled_products
from runtime.layers.quantized import BLOCK, E4M3, InputScaling, QuantizedLinear, QuantizedRows

_ROW_UNIT = 4
"""Rows are allocated in units of it, for cuBLAS; what lies beyond a step's own is never read by anything else."""


def quantize_rows(
    x: Tensor, scaling: InputScaling, *, launcher: Launcher, norm: Norm | None = None, pdl: bool = False
) -> QuantizedRows:
    """norm(x) in e4m3: `runtime.layers.quantized.quantize_rows`, with the norm before it. Capture-safe.

    Args:
        x: [num_rows, dim], contiguous; `dim` a multiple of 16, by group of BLOCK.
    """
    out = _allocate(x, x.shape[1], scaling)
    block = _power_of_two(x.shape[1])
    launcher.launch(
        "quantize.rows",
        (x.shape[0], 1, 1),
        (x, x if norm is None else norm.weight, _static(scaling, out), out.values, out.scales, _stride(out)),
        {"NORM": norm is not None, "EPS": 0.0 if norm is None else norm.eps} | _row_constants(x.shape[1], scaling, pdl),
        Options(num_warps=min(16, max(1, block // 512)), launch_pdl=pdl),
    )
    return out


def quantize_gated(gate_up: Tensor, scaling: InputScaling, *, launcher: Launcher, pdl: bool = False) -> QuantizedRows:
    """silu(gate) * up of [num_rows, 2 * dim], gate before up, in e4m3. Capture-safe."""
    dim = gate_up.shape[1] // 2
    out = _allocate(gate_up, dim, scaling)
    launcher.launch(
        "quantize.gated",
        (gate_up.shape[0], 1, 1),
        (gate_up, _static(scaling, out), out.values, out.scales, _stride(out)),
        _row_constants(dim, scaling, pdl),
        Options(num_warps=min(16, max(1, _power_of_two(dim) // 512)), launch_pdl=pdl),
    )
    return out


def multiply_quantized(
    rows: QuantizedRows,
    linear: QuantizedLinear,
    *,
    launcher: Launcher,
    dtype: torch.dtype,
    residual: Tensor | None = None,
    out: Tensor | None = None,
    blocks: GemvBlocks | None = None,
    pdl: bool = False,
) -> Tensor:
    """rows @ weight.T + bias + residual → [num_rows, out] of `dtype`; with a residual in place of it. Capture-safe.

    Args:
        dtype: bf16 for more than E4M3_MOST_ROWS rows.
        residual: [num_rows, out] of `dtype`, overwritten.
        out: as much, where there is no residual; None: a new tensor.
        blocks: instead of `choose_e4m3_blocks`, for up to E4M3_MOST_ROWS rows.
    """
    num_rows, n = rows.values.shape[0], linear.weight.shape[0]
    if num_rows > E4M3_MOST_ROWS and (not linear.by_block or _fits_cublas(linear)):
        if (
            residual is not None
            and not linear.by_block
            and linear.bias is None
            and _add_channels(rows, linear, residual)
        ):
            return residual
        product = (_multiply_blocks if linear.by_block else _multiply_channels)(rows, linear, dtype)
        if linear.bias is not None:
            product.add_(linear.bias)
        if residual is not None:
            return residual.add_(product)
        return product if out is None else out.copy_(product)
    if residual is not None or out is None:
        out = residual if residual is not None else torch.empty(num_rows, n, dtype=dtype, device=linear.weight.device)
    if num_rows > E4M3_MOST_ROWS:
        _multiply_tiles(rows, linear, out, residual, launcher)
    else:
        _multiply_few(rows, linear, out, residual, launcher, blocks, pdl)
    return out


def _multiply_channels(rows: QuantizedRows, linear: QuantizedLinear, dtype: torch.dtype) -> Tensor:
    """By cuBLAS. On `meta` the shape is enough, as in `operations`."""
    if rows.values.is_meta:
        return rows.values.new_empty(rows.values.shape[0], linear.weight.shape[0], dtype=dtype)
    return torch._scaled_mm(
        rows.values,
        linear.weight.t(),
        scale_a=rows.scales[:, None],
        scale_b=linear.scales[None, :],
        out_dtype=dtype,
        use_fast_accum=True,
    )


def _add_channels(rows: QuantizedRows, linear: QuantizedLinear, residual: Tensor) -> bool:
    """Add the product to `residual`, in one kernel; False: there is none for this."""
    if not rows.values.is_cuda or residual.dtype != torch.bfloat16:
        return False
    products = scaled_products(rows.values.device)
    return products.add(rows.values, rows.scales, linear.weight, linear.scales, residual)


def _multiply_blocks(rows: QuantizedRows, linear: QuantizedLinear, dtype: torch.dtype) -> Tensor:
    """By cuBLAS, over the rows that were allocated."""
    num_rows, k = rows.values.shape
    if rows.values.is_meta:
        return rows.values.new_empty(num_rows, linear.weight.shape[0], dtype=dtype)
    scales = _by_group(rows)
    allocated = scales.stride(1)
    product = functional.scaled_mm(
        rows.values.as_strided((allocated, k), (k, 1)),
        linear.weight.t(),
        scales.as_strided((allocated, k // BLOCK), (1, allocated)),
        functional.ScalingType.BlockWise1x128,
        linear.scales.t(),
        functional.ScalingType.BlockWise128x128,
        output_dtype=dtype,
    )
    return product[:num_rows]


def _fits_cublas(linear: QuantizedLinear) -> bool:
    n, k = linear.weight.shape
    return n % BLOCK == 0 and k // BLOCK % _ROW_UNIT == 0


def _multiply_few(
    rows: QuantizedRows, linear: QuantizedLinear, out: Tensor, residual: Tensor | None, launcher: Launcher,
    blocks: GemvBlocks | None, pdl: bool,
) -> None:  # fmt: skip
    n, k = linear.weight.shape
    num_rows = out.shape[0]
    cut = blocks or choose_e4m3_blocks(Shape(n, k), num_rows, by_block=linear.by_block)
    rounded = _power_of_two(num_rows)
    constants: dict[str, Constant] = {
        "ROWS": rounded if cut.kernel == "multiply_reduce" else max(cut.fewest_rows, rounded),
        "BLOCK_N": cut.block_n,
        "BLOCK_K": cut.block_k,
        "PREFETCH": cut.prefetch,
        "LATE": cut.late,
        "PDL": pdl,
    }
    if cut.kernel != "multiply_reduce":
        constants |= {"GROUP": BLOCK if linear.by_block else 0, "STAGES": cut.num_stages}
    if cut.kernel == "split_dot":
        constants["PARTS"] = cut.num_warps
    launcher.launch(
        f"quantized.{cut.kernel}",
        (-(-n // cut.block_n), 1, 1),
        _arguments(rows, linear, out, residual),
        _product_constants(linear, residual) | constants,
        Options(num_warps=cut.num_warps, num_stages=cut.num_stages, launch_pdl=pdl),
    )


def _multiply_tiles(
    rows: QuantizedRows, linear: QuantizedLinear, out: Tensor, residual: Tensor | None, launcher: Launcher
) -> None:
    num_rows, n = out.shape
    tile_rows = 64 if num_rows <= 64 else 128
    launcher.launch(
        "quantized.tiles",
        (-(-num_rows // tile_rows), -(-n // BLOCK), 1),
        _arguments(rows, linear, out, residual),
        _product_constants(linear, residual) | {"BLOCK_M": tile_rows, "BLOCK_N": BLOCK, "GROUP": BLOCK, "STAGES": 4},
        Options(num_warps=4 if tile_rows == 64 else 8, num_stages=4),
    )


def _arguments(
    rows: QuantizedRows, linear: QuantizedLinear, out: Tensor, residual: Tensor | None
) -> tuple[Tensor | int, ...]:
    # What is absent is never read, but has to be a pointer of a known type.
    bias = out if linear.bias is None else linear.bias
    before = out if residual is None else residual
    scales = _by_group(rows) if linear.by_block else rows.scales
    stride = scales.stride(1) if linear.by_block else 0
    return rows.values, scales, linear.weight, linear.scales, bias, before, out, out.shape[0], stride


def _product_constants(linear: QuantizedLinear, residual: Tensor | None) -> dict[str, Constant]:
    n, k = linear.weight.shape
    return {"N": n, "K": k, "BIAS": linear.bias is not None, "RESIDUAL": residual is not None}


def _allocate(like: Tensor, dim: int, scaling: InputScaling) -> QuantizedRows:
    num_rows = like.shape[0]
    if not scaling.by_group:
        return QuantizedRows(like.new_empty(num_rows, dim, dtype=E4M3), like.new_empty(num_rows, dtype=torch.float32))
    allocated = -(-num_rows // _ROW_UNIT) * _ROW_UNIT
    values = like.new_empty(allocated, dim, dtype=E4M3)
    scales = like.new_empty(dim // BLOCK, allocated, dtype=torch.float32)
    return QuantizedRows(values[:num_rows], scales.t()[:num_rows])


def _by_group(rows: QuantizedRows) -> Tensor:
    """The scales of rows that `_allocate` made: [num_rows, groups], a column for each group."""
    assert rows.scales.stride(0) == 1, "scales by group lie group by group"
    return rows.scales


def _stride(rows: QuantizedRows) -> int:
    return rows.scales.stride(1) if rows.scales.ndim == 2 else 0


def _row_constants(dim: int, scaling: InputScaling, pdl: bool) -> dict[str, Constant]:
    return {
        "DIM": dim,
        "BLOCK": _power_of_two(dim),
        "GROUP": BLOCK if scaling.by_group else 0,
        "STATIC": scaling.static is not None,
        "BOUND": scaling.bound or 0.0,
        "PDL": pdl,
    }


def _static(scaling: InputScaling, out: QuantizedRows) -> Tensor:
    return out.scales if scaling.static is None else scaling.static


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()
