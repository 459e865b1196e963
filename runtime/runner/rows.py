"""How the rows of a step are grouped for the stages that treat each row by itself.

On a GPU all rows go through a stage at once. On a CPU that would cost exactness: a matrix product of 3 rows and one of
40 take different paths through MKL, and vector loops treat their last elements differently, so a row's last bits would
depend on the batch. There every stage always gets blocks of ROW_BLOCK rows, padded: the same calls on the same shapes.
What is left is *where* in its block a row stands.

- `PackedBlocks` puts tokens one after the other. Exact if every place in a block gives the same bits, which
  `places_are_equal` finds out for the model, machine and number of threads at hand, by moving rows around.
- `AlignedBlocks` needs no such luck: a token at position p stands in row p % ROW_BLOCK of a block that belongs to its
  sequence alone. What a sample's row depends on is then its position and its own content. It costs a block for each
  decoding sequence instead of one for 16 of them.

Exact means: for one build of torch on one machine with one number of threads.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from runtime.batch import Int32, Int64
from runtime.models.decoder import Decoder
from runtime.parallel.channel import Channel

ROW_BLOCK = 16
_TRIAL_SEED = 0


@dataclass(frozen=True, slots=True)
class Placement:
    """`rows[i]` is where item i stands among `num_rows`; the other rows are padding."""

    rows: Int64
    num_rows: int


class RowGrouping(Protocol):
    """Where tokens and samples stand, and how stages run over them."""

    num_scored_at_once: int
    """Most rows whose logits should exist at the same time."""

    def place_tokens(self, query_starts: Int32, context_lengths: Int32) -> Placement:
        """A row for each token of a step; arguments as in `StepBatch`."""
        ...

    def place_samples(self, count: int) -> Placement:
        """A row for each of `count` hidden states on their way to logits."""
        ...

    def apply(self, stage: Callable[..., tuple[Tensor, ...]], *rows: Tensor) -> tuple[Tensor, ...]:
        """See `runtime.models.decoder.RowWise`."""
        ...


class WholeRows:
    """One call for all rows, none padded."""

    num_scored_at_once = 256

    def place_tokens(self, query_starts: Int32, context_lengths: Int32) -> Placement:
        """In order, none padded."""
        return _place_in_order(int(query_starts[-1]), 1)

    def place_samples(self, count: int) -> Placement:
        """See `RowGrouping`."""
        return _place_in_order(count, 1)

    def apply(self, stage: Callable[..., tuple[Tensor, ...]], *rows: Tensor) -> tuple[Tensor, ...]:
        """See `RowGrouping`."""
        return stage(*rows)


class PackedBlocks:
    """Blocks of ROW_BLOCK, tokens one after the other."""

    num_scored_at_once = 4 * ROW_BLOCK

    def place_tokens(self, query_starts: Int32, context_lengths: Int32) -> Placement:
        """In order; the last block is padded."""
        return _place_in_order(int(query_starts[-1]), ROW_BLOCK)

    def place_samples(self, count: int) -> Placement:
        """See `RowGrouping`."""
        return _place_in_order(count, ROW_BLOCK)

    def apply(self, stage: Callable[..., tuple[Tensor, ...]], *rows: Tensor) -> tuple[Tensor, ...]:
        """A block at a time."""
        return _apply_by_block(stage, rows)


class AlignedBlocks:
    """Blocks of ROW_BLOCK, each for one sequence and one aligned range of positions."""

    num_scored_at_once = 4

    def place_tokens(self, query_starts: Int32, context_lengths: Int32) -> Placement:
        """A token at position p in row p % ROW_BLOCK of a block that no other sequence has rows in."""
        lengths = np.diff(query_starts).astype(np.int64)
        offsets = (context_lengths - lengths) % ROW_BLOCK
        num_blocks = -(-(offsets + lengths) // ROW_BLOCK) * (lengths > 0)
        block_starts = np.cumsum(num_blocks) - num_blocks
        starts = block_starts * ROW_BLOCK + offsets - query_starts[:-1]
        rows = np.repeat(starts, lengths) + np.arange(lengths.sum())
        return Placement(rows, int(num_blocks.sum()) * ROW_BLOCK)

    def place_samples(self, count: int) -> Placement:
        """Each in the first row of a block of its own."""
        return Placement(np.arange(count, dtype=np.int64) * ROW_BLOCK, count * ROW_BLOCK)

    def apply(self, stage: Callable[..., tuple[Tensor, ...]], *rows: Tensor) -> tuple[Tensor, ...]:
        """A block at a time."""
        return _apply_by_block(stage, rows)


def choose_grouping(
    model: Decoder, *, hidden_size: int, device: torch.device, dtype: torch.dtype, channel: Channel | None = None
) -> RowGrouping:
    """The fastest grouping that is exact: whole rows on a GPU (where exactness is up to its kernels).

    Args:
        model: what this rank computes of it, by itself.
        channel: to the other ranks, which have to choose the same.
    """
    if device.type != "cpu":
        return WholeRows()
    are_equal = int(places_are_equal(model, hidden_size=hidden_size, dtype=dtype))
    return PackedBlocks() if (are_equal if channel is None else channel.smallest(are_equal)) else AlignedBlocks()


def places_are_equal(model: Decoder, *, hidden_size: int, dtype: torch.dtype) -> bool:
    """Whether every row-wise stage gives a row the same bits at every place in a block, whatever its neighbours.

    Random rows go through each stage at all places of a block by rotation, and once alone among zeros. All layers
    have the same shapes, so the first stands for them.
    """
    generator = torch.Generator().manual_seed(_TRIAL_SEED)
    hidden = torch.randn(ROW_BLOCK, hidden_size, generator=generator).to(dtype)
    cosines, sines = model.rotary.at(torch.arange(ROW_BLOCK) % model.rotary.num_positions)
    layer = model.layers[0]
    query = layer.project(hidden, cosines, sines)[0]
    return (
        _rotates_with_input(layer.project, hidden, cosines, sines)
        and _rotates_with_input(layer.finish, hidden, query)
        and _rotates_with_input(model.logits, hidden)
    )


def _rotates_with_input(stage: Callable[..., tuple[Tensor, ...]], *rows: Tensor) -> bool:
    expected = stage(*rows)
    for shift in range(1, ROW_BLOCK):
        rolled = stage(*(tensor.roll(shift, 0) for tensor in rows))
        if any(not torch.equal(got, want.roll(shift, 0)) for got, want in zip(rolled, expected, strict=True)):
            return False
        lonely = stage(*(_keep_row(tensor, shift) for tensor in rows))
        if any(not torch.equal(got[shift], want[shift]) for got, want in zip(lonely, expected, strict=True)):
            return False
    return True


def _keep_row(rows: Tensor, row: int) -> Tensor:
    kept = torch.zeros_like(rows)
    kept[row] = rows[row]
    return kept


def _place_in_order(count: int, multiple: int) -> Placement:
    return Placement(np.arange(count, dtype=np.int64), -(-count // multiple) * multiple)


def _apply_by_block(stage: Callable[..., tuple[Tensor, ...]], rows: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    num_rows = rows[0].shape[0]
    if num_rows == ROW_BLOCK:
        return stage(*rows)
    blocks = (stage(*(tensor[at : at + ROW_BLOCK] for tensor in rows)) for at in range(0, num_rows, ROW_BLOCK))
    return tuple(torch.cat(parts) for parts in zip(*blocks, strict=True))
