"""A step over trees as a step over their paths, for attention that knows nothing of trees.

Every row of a tree becomes a sequence of its own: what is before the tree, then its ancestors, then the row, as if plain decoding
had come this way. So the reference computes a row of a tree by the very products by which it computes the row that plain
decoding would have, and bits are equal; a mask over all rows of the tree would do the same up to rounding.
"""

from dataclasses import dataclass

import numpy as np

from runtime.attention.backend import Tails
from runtime.batch import Bool, Int32, Int64, StepBatch


@dataclass(frozen=True, slots=True)
class Sequences:
    """What attention needs of a step; see `AttentionBatch`."""

    query_starts: Int32
    context_lengths: Int32
    page_tables: Int32
    tails: Tails | None = None


def unfold(batch: StepBatch) -> Sequences:
    """The sequences of a step whose places are known; where it has trees, one for each of their rows."""
    speculation = batch.speculation
    if speculation is None or speculation.tree is None:
        return Sequences(batch.query_starts, batch.context_lengths, batch.page_tables)
    starts, parents = batch.query_starts, speculation.tree.parents
    num_rows, num_decodes = int(starts[speculation.num_decodes]), speculation.num_decodes
    sequences = np.repeat(np.arange(num_decodes), np.diff(starts[: num_decodes + 1]))
    firsts = starts[sequences].astype(np.int64)
    numbers = np.arange(num_rows) - firsts
    tails = tails_of(batch.slots[:num_rows], firsts + parents[:num_rows], numbers > 0)
    num_chunks = len(batch.context_lengths) - num_decodes
    return Sequences(
        query_starts=np.concatenate([np.arange(num_rows), starts[num_decodes:]]).astype(np.int32),
        context_lengths=np.concatenate(
            [batch.positions[:num_rows] + 1, batch.context_lengths[num_decodes:].astype(np.int64)]
        ).astype(np.int32),
        page_tables=np.concatenate([batch.page_tables[sequences], batch.page_tables[num_decodes:]]),
        tails=Tails(
            np.pad(tails.slots, ((0, num_chunks), (0, 0))),
            np.pad(tails.lengths, (0, num_chunks)),
        ),
    )


def tails_of(slots: Int64, parents: Int64, has_parent: Bool) -> Tails:
    """The slots of each row and of its ancestors below the root.

    Args:
        slots: [num_rows]
        parents: [num_rows], rows; of rows without one anything.
    """
    columns: list[Int64] = []
    rows, inside = np.arange(len(slots)), has_parent.copy()
    lengths = np.zeros(len(slots), np.int64)
    while inside.any():
        columns.append(np.where(inside, slots[rows], 0))
        lengths += inside
        rows = np.where(inside, parents[rows], rows)
        inside &= has_parent[rows]
    return Tails(np.stack(columns[::-1], axis=1) if columns else np.zeros((len(slots), 0), np.int64), lengths)
