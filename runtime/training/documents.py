"""Token sequences to learn from, and their division into blocks of a few shapes.

Documents are short, so they are not packed into long rows behind a mask: the documents of a step are sorted by length and
cut into blocks of rows of similar length. Attention then never crosses a document and little is padding. The shapes come
from a short ladder, so that each can be captured once as a CUDA graph.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

IGNORED = -1
_LEAST_WIDTH = 16


@dataclass(frozen=True)
class Rows:
    """A block of right-padded documents: tokens and targets, both [batch, length] int64; target -1 is not learnt."""

    tokens: Tensor
    targets: Tensor


class Documents:
    """Documents in two flat arrays; cheap to send from one process to another."""

    def __init__(self) -> None:
        self._tokens = array("i")
        self._learnt = array("b")
        self._ends = array("q", [0])

    @classmethod
    def of(cls, documents: Iterable[tuple[Sequence[int], Sequence[int]]]) -> "Documents":
        """Collect (token ids, flags) pairs; a flag of 1 says that this token is to be predicted from those before it."""
        collected = cls()
        for tokens, learnt in documents:
            if len(tokens) != len(learnt) or len(tokens) < 2:
                raise ValueError(f"a document needs two tokens and a flag for each, got {len(tokens)}, {len(learnt)}")
            collected._tokens.extend(tokens)
            collected._learnt.extend(learnt)
            collected._ends.append(len(collected._tokens))
        return collected

    def __len__(self) -> int:
        return len(self._ends) - 1

    @property
    def num_tokens(self) -> int:
        """Tokens of all documents together."""
        return len(self._tokens)

    @property
    def num_learnt(self) -> int:
        """Tokens of all documents that are to be predicted; a document's first one never is."""
        flags = numpy.frombuffer(self._learnt, dtype=numpy.int8)
        return int(flags.sum()) - int(flags[numpy.frombuffer(self._ends, dtype=numpy.int64)[:-1]].sum())

    def size(self, index: int) -> int:
        """Number of positions that document `index` takes in a row."""
        return self._ends[index + 1] - self._ends[index] - 1

    def rows(self, indices: Sequence[int], *, shape: tuple[int, int] | None = None) -> Rows:
        """Pad the given documents to one block, of exactly `shape` (rows, width) where it is given."""
        ends = numpy.frombuffer(self._ends, dtype=numpy.int64)
        chosen = numpy.asarray(indices, dtype=numpy.int64)
        starts, sizes = ends[chosen], ends[chosen + 1] - ends[chosen] - 1
        num_rows, width = shape or (len(chosen), int(sizes.max()))
        columns = numpy.arange(width)
        inside = columns < sizes[:, None]
        places = numpy.where(inside, starts[:, None] + columns, 0)
        ids = numpy.frombuffer(self._tokens, dtype=numpy.int32)
        flags = numpy.frombuffer(self._learnt, dtype=numpy.int8)
        tokens = numpy.zeros((num_rows, width), dtype=numpy.int64)
        targets = numpy.full((num_rows, width), IGNORED, dtype=numpy.int64)
        tokens[: len(chosen)] = numpy.where(inside, ids[places], 0)
        following = numpy.where(inside, places + 1, 0)
        targets[: len(chosen)] = numpy.where(inside & (flags[following] == 1), ids[following], IGNORED)
        return Rows(torch.from_numpy(tokens), torch.from_numpy(targets))


def row_width(size: int) -> int:
    """The width of the row that a document of `size` positions goes to: four steps from each power of two to the next."""
    step = max(_LEAST_WIDTH, 1 << max(0, (size - 1).bit_length() - 3))
    return -(-size // step) * step


def cut_rows(documents: Documents, tokens_per_block: int, *, whole: bool = False) -> Iterator[Rows]:
    """Cut a step's documents, longest first, into blocks of at most `tokens_per_block` padded positions.

    A single longer document still makes a block.

    Args:
        whole: fill the last block with empty rows, so that the shape of a block depends on its width alone.
    """
    order = sorted(range(len(documents)), key=documents.size, reverse=True)
    first = 0
    while first < len(order):
        width = row_width(documents.size(order[first]))
        num_rows = max(1, tokens_per_block // width)
        block = order[first : first + num_rows]
        yield documents.rows(block, shape=(num_rows if whole else len(block), width))
        first += num_rows
