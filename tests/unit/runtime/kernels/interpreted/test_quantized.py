"""Rounding to e4m3 and products of e4m3, interpreted.

The interpreter does not round to e4m3 as a GPU does (ties, and carries into the exponent), so rounded values are compared
loosely here, and exactly on a GPU. Products of given values are exact to float16's rounding.
"""

import pytest
import torch

from runtime.kernels.blocks import GemvBlocks
from runtime.layers.quantized import InputScaling
from tests.support.kernel_checks import (
    TOLERANCES,
    Inputs,
    check_quantize,
    check_quantized_product,
    quantized_layer,
)

ROUNDING = 1 / 8
SCALINGS = {
    "rows": InputScaling(),
    "bound": InputScaling(bound=1.5),
    "static": InputScaling(static=torch.tensor([0.004])),
    "groups": InputScaling(by_group=True),
}


@pytest.mark.parametrize("kind", ["plain", "norm", "gated"])
@pytest.mark.parametrize("scaling", SCALINGS)
def test_rows_are_rounded_as_the_reference_rounds(scaling: str, kind: str) -> None:
    """Every way to scale, after everything that makes rows."""
    error = check_quantize(Inputs("cpu", torch.float16, 0), 2, 384, SCALINGS[scaling], kind=kind)
    assert error < ROUNDING


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "bias-residual"])
@pytest.mark.parametrize("by_block", [False, True], ids=["channel", "block"])
@pytest.mark.parametrize("rows", [1, 8, 40, *(pytest.param(rows, marks=pytest.mark.long) for rows in (2, 12))])
def test_products_of_few_rows(rows: int, by_block: bool, fused: bool) -> None:
    """The chosen blocks, at columns that fill none."""
    inputs = Inputs("cpu", torch.float16, rows)
    layer = quantized_layer(inputs, 136, 256, by_block=by_block, bias=fused)
    assert check_quantized_product(inputs, rows, layer, residual=fused) < TOLERANCES[torch.float16]


@pytest.mark.parametrize("rows", [70])
def test_products_of_many_rows_by_block(rows: int) -> None:
    """More than one tile of rows and of columns, none of them full."""
    inputs = Inputs("cpu", torch.float16, rows)
    layer = quantized_layer(inputs, 136, 256, by_block=True, bias=True)
    assert check_quantized_product(inputs, rows, layer, residual=True) < TOLERANCES[torch.float16]


@pytest.mark.parametrize("rows", [1, 8])
def test_a_loop_of_several_steps(rows: int) -> None:
    """More inputs than a step takes."""
    inputs = Inputs("cpu", torch.float16, 1)
    blocks = GemvBlocks("multiply_reduce", 4, 64, 4) if rows == 1 else GemvBlocks("dot", 16, 64, 1, 3)
    layer = quantized_layer(inputs, 40, 272)
    assert check_quantized_product(inputs, rows, layer, blocks=blocks) < TOLERANCES[torch.float16]


@pytest.mark.parametrize("rows", [1, 8])
@pytest.mark.parametrize("by_block", [False, True], ids=["channel", "block"])
def test_steps_in_parts(by_block: bool, rows: int) -> None:
    """Several parts to a step, more inputs than a step takes, and a last step that is not full."""
    inputs = Inputs("cpu", torch.float16, 2)
    blocks = GemvBlocks("split_dot", 16, 128, 2, 2) if by_block else GemvBlocks("split_dot", 16, 32, 4, 2)
    layer = quantized_layer(inputs, 40, 640 if by_block else 272, by_block=by_block)
    assert check_quantized_product(inputs, rows, layer, blocks=blocks) < TOLERANCES[torch.float16]
