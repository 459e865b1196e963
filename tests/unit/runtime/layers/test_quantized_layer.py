"""The linear layer of FP8 in plain torch."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from runtime.layers.quantized import (
    BLOCK,
    E4M3_MAX,
    InputScaling,
    QuantizedLinear,
    dequantize_rows,
    quantize_channels,
    quantize_rows,
)

HALF_STEP = 2.0**-4
"""Of numbers with 3 bits of mantissa, relative."""


def rows_of(seed: int, num_rows: int, dim: int) -> torch.Tensor:
    return torch.randn(num_rows, dim, generator=torch.Generator().manual_seed(seed))


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40))
def test_rounding_loses_half_a_step_at_most(values: list[float]) -> None:
    """The largest magnitude becomes 448; others are off by 1/16 of themselves, or half of the smallest step there is."""
    row = torch.tensor([values])
    rounded = quantize_rows(row, InputScaling())
    scale = float(rounded.scales)
    error = (dequantize_rows(rounded) - row).abs()
    assert bool((error <= HALF_STEP * row.abs() * (1 + 1e-5) + scale * 2.0**-10 * (1 + 1e-5)).all())
    if row.abs().max() > 1e-9:
        assert rounded.values.float().abs().max() == E4M3_MAX


def test_a_row_depends_on_no_other() -> None:
    """Alone or among larger ones, a row becomes the same bytes and the same product to the bit."""
    values, scales = quantize_channels(rows_of(0, 24, 32))
    linear = QuantizedLinear(values, scales)
    rows = rows_of(1, 5, 32)
    crowd = rows.clone()
    crowd[1:] *= 1000
    assert torch.equal(
        quantize_rows(rows, InputScaling()).values[0].view(torch.uint8),
        quantize_rows(crowd, InputScaling()).values[0].view(torch.uint8),
    )
    assert torch.equal(linear(rows)[0], linear(crowd)[0])


def test_groups_have_scales_of_their_own() -> None:
    """A large number coarsens its own group, and leaves the other as it was."""
    rows = rows_of(2, 2, 2 * BLOCK)
    before = quantize_rows(rows, InputScaling(by_group=True))
    rows[0, 3] = 1e4
    rounded = quantize_rows(rows, InputScaling(by_group=True))
    assert rounded.scales.shape == (2, 2)
    assert rounded.scales[0, 0] > 100 * before.scales[0, 0]
    assert torch.equal(rounded.scales[:, 1], before.scales[:, 1])
    assert torch.equal(rounded.values[:, BLOCK:].view(torch.uint8), before.values[:, BLOCK:].view(torch.uint8))


def test_what_is_out_of_bounds_is_cut_off() -> None:
    """By an upper bound, or a scale that the checkpoint brought: never infinity or NaN."""
    rows = torch.tensor([[1.0, -2.0, 1000.0]])
    bounded = dequantize_rows(quantize_rows(rows, InputScaling(bound=4.0)))
    assert bounded.tolist() == [[1.0, -2.0, 4.0]]
    static = quantize_rows(rows, InputScaling(static=torch.tensor([1.0])))
    assert dequantize_rows(static).tolist() == [[1.0, -2.0, E4M3_MAX]]


@pytest.mark.parametrize("scaling", [InputScaling(), InputScaling(bound=4.0), InputScaling(static=torch.tensor([1.0]))])
def test_nan_is_not_hidden(scaling: InputScaling) -> None:
    """A row that holds NaN gives NaN, so that the sampler's check sees it."""
    rows = torch.ones(2, 16)
    rows[1, 3] = torch.nan
    result = QuantizedLinear(*quantize_channels(torch.ones(4, 16)), inputs=scaling)(rows)
    assert result[0].isfinite().all()
    assert result[1].isnan().all()


def test_the_product_is_that_of_the_rounded_numbers() -> None:
    """Scales by channel, with a bias, in the inputs' dtype."""
    weight, rows, bias = rows_of(3, 24, 32), rows_of(4, 5, 32), rows_of(5, 1, 24)[0]
    values, scales = quantize_channels(weight)
    rounded = quantize_rows(rows, InputScaling())
    expected = (rounded.values.double() * rounded.scales.double()[:, None]) @ (
        values.double() * scales.double()[:, None]
    ).T + bias
    assert torch.allclose(QuantizedLinear(values, scales, bias)(rows).double(), expected, rtol=1e-5, atol=1e-5)
    halves = QuantizedLinear(values, scales, bias.bfloat16())(rows.bfloat16())
    assert halves.dtype == torch.bfloat16


def test_blocks_at_the_edge_are_partial() -> None:
    """200 rows are one block and a part of another."""
    weight = torch.ones(200, 2 * BLOCK).to(torch.float8_e4m3fn)
    scales = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    wide = QuantizedLinear(weight, scales).dequantized()
    assert wide[0, 0] == 1.0
    assert wide[127, 255] == 2.0
    assert wide[199, 0] == 3.0
    assert wide[128, 128] == 4.0
    assert wide.shape == (200, 2 * BLOCK)
