"""What the tests of speculation ask, of chains as of trees, on the reference as in graphs; and how answers are compared."""

from typing import Any

import numpy as np

from runtime.request import GenerationRequest
from tests.support.draft_heads import VOCAB_SIZE
from tests.support.engine_runs import Answer, ask

NUM_PAGES = 80
NUM_DRAFTS = 4
SPECULATION: dict[str, Any] = {
    "speculative_algorithm": "EAGLE3",
    "speculative_draft_model_path": "head",
    "speculative_num_steps": NUM_DRAFTS,
    "speculative_eagle_topk": 1,
    "speculative_num_draft_tokens": NUM_DRAFTS + 1,
}
"""Drafts in chains; trees are in `draft_trees`."""
Answers = dict[tuple[int, int], Answer]


def requests() -> list[GenerationRequest]:
    """Greedy and sampled, with and without penalties, with shared beginnings, one choice and several."""
    ids = np.random.default_rng(5).integers(3, VOCAB_SIZE, 120).tolist()
    common: dict[str, Any] = {"max_tokens": 30, "ignore_eos": True, "logprobs": 0}
    return [
        ask(1, ids[:5], temperature=0.0, **common),
        ask(2, ids[:70], temperature=0.0, **common),
        ask(3, ids[:70], temperature=0.9, seed=3, n=3, top_p=0.9, **common),
        ask(4, ids[:75], temperature=1.2, seed=4, top_k=20, repetition_penalty=1.3, **common),
        ask(5, ids[:48] + ids[80:90], temperature=0.0, frequency_penalty=0.7, presence_penalty=0.2, n=2, **common),
        ask(6, ids[40:73], temperature=1.0, seed=6, min_p=0.02, min_tokens=9, max_tokens=25, logprobs=2),
        ask(7, ids[:32], temperature=0.7, seed=7, logit_bias={9: 3.0, 11: -2.0}, **common),
    ]


def tokens_of(answers: Answers) -> dict[tuple[int, int], tuple[list[int], str]]:
    """What clients read, and why it ended."""
    return {key: (answer.tokens, answer.reason) for key, answer in answers.items()}


def scored_tokens_of(answers: Answers) -> dict[tuple[int, int], tuple[list[int], str, list[float]]]:
    """The same with logprobs, which are equal to the bit where the same runner computed them."""
    return {key: (answer.tokens, answer.reason, answer.logprobs) for key, answer in answers.items()}
