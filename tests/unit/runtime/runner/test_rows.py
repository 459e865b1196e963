"""Where tokens stand in their blocks."""

import numpy as np
import torch

from runtime.runner.rows import ROW_BLOCK, AlignedBlocks, PackedBlocks, WholeRows

STARTS = np.array([0, 1, 1, 21, 24], np.int32)
CONTEXTS = np.array([18, 0, 30, 35], np.int32)
"""One token at 17, an empty sequence, positions 10 to 29, and 32 to 34."""


def test_packed_rows_follow_one_another() -> None:
    """Tokens in order, padded to whole blocks."""
    placement = PackedBlocks().place_tokens(STARTS, CONTEXTS)
    assert placement.rows.tolist() == list(range(24))
    assert placement.num_rows == 32
    assert WholeRows().place_tokens(STARTS, CONTEXTS).num_rows == 24


def test_aligned_rows_follow_from_positions() -> None:
    """Each token stands at its position modulo the block, and no block holds two sequences or two ranges."""
    placement = AlignedBlocks().place_tokens(STARTS, CONTEXTS)
    positions = np.array([17, *range(10, 30), 32, 33, 34])
    assert (placement.rows % ROW_BLOCK == positions % ROW_BLOCK).all()
    owners = [(0, 1), *((2, position // ROW_BLOCK) for position in range(10, 30)), (3, 2), (3, 2), (3, 2)]
    blocks = (placement.rows // ROW_BLOCK).tolist()
    assert len(set(zip(blocks, owners, strict=True))) == len(set(blocks)) == 4
    assert placement.num_rows == 4 * ROW_BLOCK


def test_stages_see_whole_blocks_only() -> None:
    """Every call has exactly ROW_BLOCK rows, and results come back in order."""
    seen: list[int] = []

    def stage(first: torch.Tensor, second: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(len(first))
        return first + second, first * 2

    rows = torch.arange(48.0)[:, None]
    added, doubled = PackedBlocks().apply(stage, rows, rows)
    assert seen == [ROW_BLOCK] * 3
    assert torch.equal(added, rows * 2)
    assert torch.equal(doubled, rows * 2)
