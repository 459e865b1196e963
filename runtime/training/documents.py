"""Token sequences to learn from, and their division into optimizer steps.

Documents are short, so they are not packed into long rows behind a mask: a step takes documents at random up to its
budget of tokens, sorts them by length and cuts them into rows of similar length. Attention then never crosses a document,
little is padding, and one such row block fits a core's cache. Every step is a fair sample of the mixture.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

IGNORED = -1


@dataclass(frozen=True)
class Rows:
    """A block of right-padded documents: tokens and targets, both [batch, length] int64; target -1 is not learnt."""

    tokens: Tensor
    targets: Tensor


class Documents:
    """All documents of a run in two flat arrays."""

    def __init__(self) -> None:
        self._tokens = array("i")
        self._learnt = array("b")
        self._ends = [0]

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

    def size(self, index: int) -> int:
        """Number of positions that document `index` takes in a row."""
        return self._ends[index + 1] - self._ends[index] - 1

    def rows(self, indices: Sequence[int]) -> Rows:
        """Pad the given documents to one block."""
        width = max(self.size(index) for index in indices)
        tokens = torch.zeros((len(indices), width), dtype=torch.int64)
        targets = torch.full((len(indices), width), IGNORED, dtype=torch.int64)
        for row, index in enumerate(indices):
            start, end = self._ends[index], self._ends[index + 1]
            ids = torch.tensor(self._tokens[start:end], dtype=torch.int64)
            learnt = torch.tensor(self._learnt[start + 1 : end], dtype=torch.bool)
            tokens[row, : end - start - 1] = ids[:-1]
            targets[row, : end - start - 1] = torch.where(learnt, ids[1:], IGNORED)
        return Rows(tokens, targets)


def plan_steps(documents: Documents, *, num_steps: int, tokens_per_step: int, seed: int) -> Iterator[list[int]]:
    """Yield the documents of each step, in an order drawn anew from `seed` each time all have been used."""
    generator = torch.Generator().manual_seed(seed)
    waiting: list[int] = []
    for _ in range(num_steps):
        chosen: list[int] = []
        budget = tokens_per_step
        while budget > 0:
            if not waiting:
                waiting = torch.randperm(len(documents), generator=generator).tolist()
            index = waiting.pop()
            chosen.append(index)
            budget -= documents.size(index)
        yield chosen


def cut_rows(documents: Documents, chosen: Sequence[int], tokens_per_block: int) -> Iterator[Rows]:
    """Cut one step's documents into blocks of similar length, each of at most `tokens_per_block` padded positions.

    A single longer document still makes a block.
    """
    block: list[int] = []
    for index in sorted(chosen, key=documents.size, reverse=True):
        if block and documents.size(block[0]) * (len(block) + 1) > tokens_per_block:
            yield documents.rows(block)
            block = []
        block.append(index)
    if block:
        yield documents.rows(block)
