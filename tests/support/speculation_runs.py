"""What the tests of speculation ask, of chains as of trees, on the reference as in graphs; and how answers are compared."""

from typing import Any

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
