"""Which batch sizes are captured, and which one a batch takes."""

import pytest

from runtime.runner.graphs import capture_order, graph_sizes, piece_sizes, shared_sizes
from runtime.step_sizes import E4M3_MIXED_SIZES, MIXED_SIZES, STEP_SIZES, MixedSizes, smallest_holding


@pytest.mark.parametrize("largest", [1, 5, 8, 9, 16, 100, 128, 256, 512, 777])
def test_sizes_ascend_to_the_largest_with_little_padding(largest: int) -> None:
    """Each is captured once; a batch is padded by less than an eighth and seven rows."""
    sizes = graph_sizes(largest)
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == largest
    for count in range(1, largest + 1):
        size = smallest_holding(sizes, count)
        assert size is not None
        assert count <= size <= count * 9 / 8 + 7


@pytest.mark.parametrize("largest", [16, 100, 128, 512, 777])
def test_fewer_sizes_share_beginnings(largest: int) -> None:
    """Each is among the others; a batch is padded by less than a tile of 32."""
    sizes = shared_sizes(graph_sizes(largest))
    assert set(sizes) <= set(graph_sizes(largest))
    assert len(sizes) <= 2 + largest // 32
    for count in range(16, largest + 1):
        size = smallest_holding(sizes, count)
        assert size is not None
        assert count <= size < count + 32


@pytest.mark.parametrize("largest", [1, 16, 100, 512, 1000, 2048, 8192])
def test_pieces_ascend_to_the_largest_with_little_padding(largest: int) -> None:
    """Where products take longer with more rows, a step is padded by a third at most, and to whole tiles of 64."""
    sizes = piece_sizes(largest)
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == largest
    for count in range(257, largest + 1):
        size = smallest_holding(sizes, count)
        assert size is not None
        assert count <= size <= count * 4 / 3 or size == largest
        assert size % 64 == 0 or size == largest


@pytest.mark.parametrize(
    ("num_rows", "around"),
    [
        (1, (256, 384)),
        (256, (256, 384)),
        (383, (256, 384)),
        (384, (384, 512)),
        (2048, (2048, 2304)),
        (2400, (2304, 2560)),
    ],
)
def test_steps_are_filled_up_to_sizes_that_cost_least(num_rows: int, around: tuple[int, int]) -> None:
    """Sizes of graphs where there are some, whole tiles beyond."""
    assert MIXED_SIZES.around(num_rows) == around


@pytest.mark.parametrize("mixed", [MIXED_SIZES, E4M3_MIXED_SIZES])
def test_filled_sizes_are_captured(mixed: MixedSizes) -> None:
    """So a step of such a size has no padding."""
    assert set(mixed.sizes) <= set(STEP_SIZES)
    assert list(mixed.sizes) == sorted(mixed.sizes)


def test_no_graphs() -> None:
    """Size 0 switches them off."""
    assert graph_sizes(0) == []
    assert shared_sizes([]) == []
    assert piece_sizes(0) == []
    assert smallest_holding([], 1) is None


def test_larger_batches_take_none() -> None:
    """They run without one."""
    assert smallest_holding([1, 2, 4], 5) is None


def test_largest_first() -> None:
    """So that the smaller ones find their memory in the pool."""
    assert capture_order([1, 2, 4]) == [4, 2, 1]
