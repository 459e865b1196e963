"""`runtime.kernels.linear`, interpreted."""

import pytest
import torch

from runtime.kernels.blocks import GemvBlocks
from tests.support.kernel_checks import TOLERANCES, Inputs, check_linear

REDUCE = GemvBlocks("multiply_reduce", 4, 64, 4)
DOT = GemvBlocks("dot", 16, 64, 1, 3)
SPLIT_DOT = GemvBlocks("split_dot", 16, 32, 2, 2)
FIRST_TILE = GemvBlocks("dot", 16, 64, 1, 3, first_tile=True)


@pytest.mark.parametrize("blocks", [REDUCE, DOT, SPLIT_DOT], ids=lambda blocks: blocks.kernel)
@pytest.mark.parametrize("rows", [1, 3, 8, *(pytest.param(rows, marks=pytest.mark.long) for rows in (2, 4))])
@pytest.mark.parametrize("fused", ["plain", "norm", "bias", "residual", "swiglu", "all"])
def test_product_is_the_references(blocks: GemvBlocks, rows: int, fused: str) -> None:
    """Columns and inputs that fill no block, fewer rows than the variant has, each fusion alone and all together."""
    parts = {part: fused in (part, "all") for part in ("norm", "bias", "residual", "swiglu")}
    error = check_linear(Inputs("cpu", torch.float16, rows), rows, 40, 136, blocks=blocks, **parts)
    assert error < TOLERANCES[torch.float16]


@pytest.mark.parametrize("fused", ["plain", "all"])
@pytest.mark.parametrize("k", [40, 136])
def test_a_first_tile_ahead_of_the_wait_changes_nothing(fused: str, k: int) -> None:
    """One tile and no loop after it, and several."""
    parts = dict.fromkeys(("norm", "bias", "residual", "swiglu"), fused == "all")
    for blocks in (FIRST_TILE, SPLIT_DOT):
        error = check_linear(Inputs("cpu", torch.float16, 0), 3, 40, k, blocks=blocks, **parts)
        assert error < TOLERANCES[torch.float16]


def test_logits_are_not_rounded() -> None:
    """A float32 output of fp16 weights has float32's error."""
    error = check_linear(Inputs("cpu", torch.float16, 0), 1, 24, 128, blocks=REDUCE, out_dtype=torch.float32)
    assert error < TOLERANCES[torch.float32]


@pytest.mark.parametrize("rows", [1, 8])
def test_chosen_blocks_fit_a_small_model(rows: int) -> None:
    """The default blocks serve shapes that are smaller than they."""
    assert check_linear(Inputs("cpu", torch.float16, 1), rows, 24, 72, norm=True) < TOLERANCES[torch.float16]
