"""Drafts in trees for tests: their options, and a head that knows the texts."""

from typing import Any

import numpy as np
import torch

from runtime.batch import Int64, StepBatch
from runtime.identifiers import PAGE_SIZE

NUM_STEPS = 4
NUM_TREE_DRAFTS = 10
TREES: dict[str, Any] = {
    "speculative_algorithm": "EAGLE3",
    "speculative_draft_model_path": "head",
    "speculative_num_steps": NUM_STEPS,
    "speculative_eagle_topk": 3,
    "speculative_num_draft_tokens": NUM_TREE_DRAFTS + 1,
    "speculative_adaptive": False,
}


def plant(path: list[int], num_drafts: int, salt: int, vocab_size: int) -> tuple[list[int], list[int]]:
    """A tree of so many nodes that holds a path among branches that lead nowhere: ids, and parents as `TreeResult` has them.

    Args:
        path: the drafts that are meant.
        salt: says how it branches.
    """
    random = np.random.default_rng(salt)
    ids: list[int] = []
    parents: list[int] = []
    depths, on_path = [0], 0
    for depth, token in enumerate(path, start=1):
        num_wrong = min(int(random.integers(0, 3)), num_drafts - len(ids) - (len(path) - depth) - 1)
        nodes = [(token, on_path), *((int(random.integers(3, vocab_size)), -1) for _ in range(num_wrong))]
        above = on_path
        for place in random.permutation(len(nodes)).tolist():
            token_here, parent = nodes[place]
            if parent < 0:
                at_depth = [number for number, found in enumerate(depths) if found == depth - 1]
                parent = int(random.choice(at_depth))
                siblings = {ids[i] for i in range(len(ids)) if parents[i] == parent}
                if token_here in siblings or (parent == above and token_here == token):
                    token_here = next(i for i in range(vocab_size) if i not in siblings | {token})
            ids.append(token_here)
            parents.append(parent)
            depths.append(depth)
            if place == 0:
                on_path = len(ids)
    while len(ids) < num_drafts:
        parents.append(0)
        taken = {ids[i] for i in range(len(ids)) if parents[i] == 0}
        ids.append(next(i for i in range(vocab_size) if i not in taken))
    return ids, parents


class KnowingTrees:
    """In place of a head: knows all texts, and errs where the length of a context is a multiple of `error_in`."""

    def __init__(self, texts: list[list[int]], error_in: int, vocab_size: int = 131) -> None:
        self._followers = {tuple(text[:place]): text[place:] for text in texts for place in range(1, len(text))}
        self._error_in = error_in
        self._vocab_size = vocab_size
        self._held: dict[int, int] = {}

    def draft_trees(
        self,
        batch: StepBatch,
        _captured: torch.Tensor,
        chosen: Int64,
        last_samples: Int64,
        moves: tuple[torch.Tensor, torch.Tensor],
    ) -> tuple[Int64, Int64]:
        """See `Drafter.draft_trees`; contexts are read back from the slots that the steps have written and moved."""
        speculation = batch.speculation
        assert speculation is not None
        assert speculation.tree is not None
        for source, target in batch.page_copies.tolist():
            self._held.update({target * 16 + place: self._held.get(source * 16 + place, -1) for place in range(16)})
        self._held.update(zip(batch.slots.tolist(), batch.token_ids.tolist(), strict=True))
        moved = [self._held[source] for source in moves[0].tolist()]
        self._held.update(zip(moves[1].tolist(), moved, strict=True))
        shape = (len(last_samples), speculation.tree.num_drafts)
        drafts, parents = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for chain in np.flatnonzero(speculation.drafts).tolist() if speculation.num_steps else ():
            last = int(last_samples[chain])
            context = (*self._context(batch, int(batch.sample_rows[last])), int(chosen[last]))
            coming = list(self._followers.get(context, [])[: speculation.num_steps])
            if len(context) % self._error_in == 0 and coming:
                coming[-1] = (coming[-1] + 1) % self._vocab_size
            drafts[chain], parents[chain] = plant(coming, shape[1], len(context), self._vocab_size)
        return drafts, parents

    def _context(self, batch: StepBatch, row: int) -> list[int]:
        sequence = int(np.searchsorted(batch.query_starts, row, side="right")) - 1
        table = batch.page_tables[sequence]
        places = range(int(batch.positions[row]) + 1)
        return [self._held.get(int(table[at // PAGE_SIZE]) * PAGE_SIZE + at % PAGE_SIZE, -1) for at in places]
