"""`runtime.kernels.invariant`, interpreted. That bits do not depend on the rows beside them is a matter of a GPU."""

import pytest
import torch
import torch.nn.functional as functional

from runtime.kernels.blocks import choose_invariant_blocks
from runtime.kernels.invariant import multiply_any
from tests.support.kernel_checks import LAUNCHER, TOLERANCES, Inputs, relative_error


@pytest.mark.parametrize("rows", [1, 20, 300])
@pytest.mark.parametrize("fused", ["plain", "bias", "residual", "swiglu"])
def test_product_is_the_references(rows: int, fused: str) -> None:
    """Columns and inputs that fill no block, rows of one tile and of several."""
    inputs, n, k = Inputs("cpu", torch.float16, rows), 40, 136
    x, weight = inputs.normal(rows, k), inputs.normal(2 * n if fused == "swiglu" else n, k, scale=k**-0.5)
    bias = inputs.normal(n) if fused == "bias" else None
    residual = inputs.normal(rows, n) if fused == "residual" else None
    wanted = x.float() @ weight.float().T
    if bias is not None:
        wanted += bias.float()
    if residual is not None:
        wanted += residual.float()
    if fused == "swiglu":
        wanted = functional.silu(wanted[:, :n]) * wanted[:, n:]
    out = residual if residual is not None else torch.empty(rows, n, dtype=x.dtype)
    multiply_any(x, weight, out=out, launcher=LAUNCHER, bias=bias, residual=residual, swiglu=fused == "swiglu")
    assert relative_error(out, wanted) < TOLERANCES[torch.float16]


@pytest.mark.parametrize("swiglu", [False, True])
def test_every_tile_is_summed_up_by_whole_groups_of_warps(swiglu: bool) -> None:
    """64 outputs for four warps: other instructions of the tensor cores add up in another order."""
    for rows in (1, 16, 17, 64, 100, 256, 5000):
        blocks = choose_invariant_blocks(rows, swiglu=swiglu)
        assert blocks.num_warps % 4 == 0
        assert blocks.block_n % 64 == 0
        assert blocks.rows >= min(rows, 256)
