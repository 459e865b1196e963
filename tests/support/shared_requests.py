"""Greedy requests of many lengths, some with a common beginning, for a small random model."""

import numpy as np

from runtime.request import GenerationRequest
from tests.support.engine_runs import ask
from tests.support.random_models import VOCAB_SIZE

NUM_TOKENS = 48


def prompts() -> list[list[int]]:
    """Of many lengths, some with a common beginning."""
    random = np.random.default_rng(3)
    ids = random.integers(3, VOCAB_SIZE, 4000).tolist()
    lengths = (1, 5, 16, 17, 64, 100, 129, 300, 513, 700)
    own = [ids[7 * index : 7 * index + length] for index, length in enumerate(lengths)]
    return own + [ids[:256] + ids[1000 + index : 1030 + index] for index in range(6)]


def requests(logprobs: int = -1) -> list[GenerationRequest]:
    """One for each prompt, numbered from 1, with so many alternatives' logprobs; -1: none at all."""
    return [
        ask(1 + index, prompt, max_tokens=NUM_TOKENS, temperature=0.0, ignore_eos=True, logprobs=logprobs)
        for index, prompt in enumerate(prompts())
    ]
