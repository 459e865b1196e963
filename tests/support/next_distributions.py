"""What a runner gives for the next token after short prompts, for models of `quantized_checkpoints`, and whether two are alike."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from runtime.batch import ModelRunner
from tests.support.quantized_checkpoints import CONFIG
from tests.support.step_batches import Chunk, sampling_batch, step_batch

Distribution = Mapping[int, float]
"""Log-probabilities of the 20 likeliest tokens."""

PROMPTS = np.random.default_rng(0).integers(0, CONFIG["vocab_size"], (12, 14)).tolist()
COUNTS = (1, 3, 12)
"""Of prompts in one step: one row, few and many, which other kernels multiply."""
TOLERANCE = 0.4
"""Of log-probabilities, the mean over the likeliest tokens. On a CPU float32 and bf16 differ by up to 0.28 here, as where they
differ in a last bit another e4m3 value may be the nearest."""
NUM_SHARED = 12
"""Of the 20 likeliest tokens, at least. On a CPU float32 and bf16 share 13 to 18; unrelated models share 4."""


def next_distributions(runner: ModelRunner, count: int) -> list[Distribution]:
    """After a prefill of `count` prompts and one more token each, decoded."""
    pages = [[1 + row] for row in range(count)]
    runner.launch(step_batch([Chunk(PROMPTS[row][:-1], 0, pages[row]) for row in range(count)])).result()
    last = step_batch([Chunk(PROMPTS[row][-1:], 13, pages[row]) for row in range(count)])
    last = replace(last, sampling=sampling_batch(count, num_logprobs=20))
    given = runner.launch(last).result().logprobs
    assert given is not None
    return [
        dict(zip(ids.tolist(), values.tolist(), strict=True))
        for ids, values in zip(given.top_ids, given.top_values, strict=True)
    ]


def assert_alike(given: Sequence[Distribution], expected: Sequence[Distribution]) -> None:
    """Each shares NUM_SHARED of its likeliest tokens with the expected one, and their log-probabilities within TOLERANCE."""
    for mine, theirs in zip(given, expected, strict=True):
        both = mine.keys() & theirs.keys()
        assert len(both) >= NUM_SHARED
        assert np.mean([abs(mine[token] - theirs[token]) for token in both]) < TOLERANCE
