"""The table of blocks and the rule beside it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.kernels.blocks import (
    E4M3_MOST_ROWS,
    E4M3_TABLE,
    MAX_ROWS,
    MOST_ROWS,
    TABLE,
    Shape,
    choose_blocks,
    choose_e4m3_blocks,
)
from runtime.layers.quantized import BLOCK


def test_measured_shapes_get_their_own_blocks() -> None:
    """Each row class has an entry of its own, for the rows up to its bound."""
    for shape, classes in TABLE.items():
        assert [choose_blocks(shape, rows) for rows in sorted(classes)] == [classes[most] for most in sorted(classes)]
        assert choose_blocks(shape, 3) == classes[MAX_ROWS]


@pytest.mark.parametrize(
    ("asked", "nearest"),
    [
        (Shape(3072, 3072), Shape(4096, 4096)),
        (Shape(10240, 4096), Shape(6144, 4096)),
        (Shape(151936, 4096), Shape(128256, 4096)),
        (Shape(8192, 28672), Shape(4096, 14336)),
        (Shape(28672, 8192, swiglu=True), Shape(14336, 4096, swiglu=True)),
        (Shape(14336, 4096, swiglu=True), Shape(14336, 4096, swiglu=True)),
    ],
)
@pytest.mark.parametrize("rows", [1, 2, 8])
def test_others_get_those_of_the_nearest(asked: Shape, nearest: Shape, rows: int) -> None:
    """Near is few doublings apart; a fused activation, which reads two weights a column, is compared with its like."""
    assert choose_blocks(asked, rows) == choose_blocks(nearest, rows)


@given(st.integers(1, 300_000), st.integers(1, 60_000), st.booleans(), st.integers(1, E4M3_MOST_ROWS))
def test_every_shape_in_e4m3_is_served(n: int, k: int, by_block: bool, rows: int) -> None:
    """On the vector units two rows at most, and one group of inputs a step where scales are by block."""
    blocks = choose_e4m3_blocks(Shape(n, k), rows, by_block=by_block)
    assert blocks.kernel != "multiply_reduce" or (rows <= 2 and not by_block)
    assert blocks.block_k == BLOCK if by_block else blocks.block_k < 2 * k
    if not by_block and Shape(n, k) in E4M3_TABLE:
        assert blocks in E4M3_TABLE[Shape(n, k)].values()


@given(st.integers(1, 300_000), st.integers(1, 60_000), st.booleans(), st.integers(1, 2 * MOST_ROWS))
def test_every_shape_is_served(n: int, k: int, swiglu: bool, rows: int) -> None:
    """Never more inputs at once than there are, rounded up; blocks that the kernels take; cuBLAS only where no norm is fused."""
    blocks = choose_blocks(Shape(n, k, swiglu), rows)
    if blocks is None:
        assert rows > MAX_ROWS
        return
    assert rows <= MOST_ROWS
    assert rows <= MAX_ROWS or blocks.fewest_rows == 16
    assert blocks.block_k < 2 * k
    assert blocks.block_k & (blocks.block_k - 1) == 0
    assert blocks.kernel == "multiply_reduce" or blocks.block_n >= 16
