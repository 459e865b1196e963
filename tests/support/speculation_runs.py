"""What the tests of speculation ask, of chains as of trees, on the reference as in graphs; and how answers are compared."""

from typing import Any

import numpy as np
import torch

from runtime.batch import Int32, Int64, StepBatch
from runtime.request import GenerationRequest
from tests.support.draft_heads import VOCAB_SIZE
from tests.support.engine_runs import Answer, mixed_requests

NUM_PAGES = 80
NUM_DRAFTS = 4
SPECULATION: dict[str, Any] = {
    "speculative_algorithm": "EAGLE3",
    "speculative_draft_model_path": "head",
    "speculative_num_steps": NUM_DRAFTS,
    "speculative_eagle_topk": 1,
    "speculative_num_draft_tokens": NUM_DRAFTS + 1,
    "speculative_adaptive": False,
}
"""Drafts in chains; trees are in `draft_trees`."""
Answers = dict[tuple[int, int], Answer]


def requests() -> list[GenerationRequest]:
    """Seven of thirty tokens each."""
    return mixed_requests(VOCAB_SIZE, 30)


def tokens_of(answers: Answers) -> dict[tuple[int, int], tuple[list[int], str]]:
    """What clients read, and why it ended."""
    return {key: (answer.tokens, answer.reason) for key, answer in answers.items()}


def scored_tokens_of(answers: Answers) -> dict[tuple[int, int], tuple[list[int], str, list[float]]]:
    """The same with logprobs, which are equal to the bit where the same runner computed them."""
    return {key: (answer.tokens, answer.reason, answer.logprobs) for key, answer in answers.items()}


class Knowing:
    """In place of a head: knows all texts, and errs where the length of a context is a multiple of `error_in`."""

    def __init__(self, texts: list[list[int]], error_in: int) -> None:
        self._followers = {tuple(text[:place]): text[place:] for text in texts for place in range(1, len(text))}
        self._error_in = error_in
        self._held: dict[int, int] = {}

    def draft(self, batch: StepBatch, _captured: torch.Tensor, chosen: Int64, num_tokens: Int32) -> Int64:
        """See `Drafter.draft`; contexts are read back from the slots that the steps have written."""
        speculation = batch.speculation
        assert speculation is not None
        for source, target in batch.page_copies.tolist():
            self._held.update({target * 16 + place: self._held.get(source * 16 + place, -1) for place in range(16)})
        self._held.update(zip(batch.slots.tolist(), batch.token_ids.tolist(), strict=True))
        drafts = np.zeros((len(num_tokens), speculation.num_steps), np.int64)
        for chain in np.flatnonzero(speculation.drafts).tolist():
            last = int(speculation.chain_starts[chain] + num_tokens[chain]) - 1
            context = (*self._context(batch, int(batch.sample_rows[last])), int(chosen[last]))
            coming = self._followers.get(context, [])[: speculation.num_steps]
            if len(context) % self._error_in == 0 and coming:
                coming[-1] = (coming[-1] + 1) % VOCAB_SIZE
            drafts[chain, : len(coming)] = coming
        return drafts

    def _context(self, batch: StepBatch, row: int) -> list[int]:
        sequence = int(np.searchsorted(batch.query_starts, row, side="right")) - 1
        table = batch.page_tables[sequence]
        places = range(int(batch.positions[row]) + 1)
        return [self._held.get(int(table[place // 16]) * 16 + place % 16, -1) for place in places]
