"""Tokens straight from logits: what most requests ask for, greedy or temperature, without a pass per operation.

Rows with penalties, masks or logprobs go through `runtime.sampling`, whose choice this is the same as up to ties: see
`runtime.kernels.triton.sampling`.
"""

import torch
from torch import Tensor

from runtime.kernels.launching import Launcher, Options

_SMALL_BATCH = 16
_SMALL_BLOCK = 2048
_BLOCK = 8192


class SamplingWorkspace:
    """The candidates of the blocks of a vocabulary, between the two kernels. One step at a time uses it."""

    def __init__(self, max_rows: int, vocab_size: int, device: torch.device) -> None:
        blocks = max(
            min(max_rows, _SMALL_BATCH) * _num_blocks(vocab_size, _SMALL_BLOCK),
            max_rows * _num_blocks(vocab_size, _BLOCK),
        )
        self.largest = torch.empty(blocks, dtype=torch.float32, device=device)
        self.logits = torch.empty_like(self.largest)
        self.ids = torch.empty(blocks, dtype=torch.int32, device=device)


def sample_rows(
    logits: Tensor,
    temperatures: Tensor,
    seeds: Tensor,
    positions: Tensor,
    *,
    workspace: SamplingWorkspace,
    token_ids: Tensor,
    is_finite: Tensor,
    drawn: bool,
    launcher: Launcher,
    in_large_blocks: bool = False,
    pdl: bool = False,
) -> None:
    """Choose one token a row.

    Args:
        logits: [rows, vocab_size], any float dtype, contiguous.
        temperatures: [rows] float32; 0 is greedy.
        seeds, positions: [rows] int64, not negative.
        token_ids: [rows] int32 or int64, written; below the vocabulary's size whatever the logits hold.
        is_finite: [rows] int8, written: 0 where a logit is NaN or plus infinity, or none is finite; else 1.
        drawn: False makes every row greedy, by a kernel without noise.
        in_large_blocks: whatever the number of rows, so that what is chosen among equals up to rounding does not depend on it.
    Capture-safe.
    """
    rows, vocab_size = logits.shape
    block = _SMALL_BLOCK if rows <= _SMALL_BATCH and not in_large_blocks else _BLOCK
    blocks = _num_blocks(vocab_size, block)
    launcher.launch(
        "sampling.block_candidates",
        (rows, blocks, 1),
        (
            logits,
            temperatures,
            seeds,
            positions,
            workspace.largest,
            workspace.logits,
            workspace.ids,
        ),
        {"VOCAB": vocab_size, "BLOCK": block, "BLOCKS": blocks, "DRAWN": drawn, "PDL": pdl},
        Options(num_warps=8, launch_pdl=pdl),
    )
    launcher.launch(
        "sampling.choose",
        (rows, 1, 1),
        (
            temperatures,
            seeds,
            positions,
            workspace.largest,
            workspace.logits,
            workspace.ids,
            token_ids,
            is_finite,
        ),
        {"BLOCKS": blocks, "BLOCKS_PADDED": 1 << (blocks - 1).bit_length(), "DRAWN": drawn, "PDL": pdl},
        Options(num_warps=1, launch_pdl=pdl),
    )


def _num_blocks(vocab_size: int, block: int) -> int:
    return -(-vocab_size // block)
