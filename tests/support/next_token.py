"""What a model runner thinks of the tokens of given texts, and how far two runners are apart in that.

Texts are given and not chosen ("teacher forcing"), so that all runners are asked at the same places, after the same tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from runtime.batch import Float32, ModelRunner, StepBatch
from runtime.identifiers import PAGE_SIZE
from tests.support.step_batches import Chunk, sampling_batch, step_batch


@dataclass(frozen=True)
class Text:
    """A prompt and the tokens after it."""

    prompt: Sequence[int]
    tokens: Sequence[int]


def score_at_once(runner: ModelRunner, text: Text) -> Float32:
    """Log-probabilities of the whole vocabulary at each token of a text, [len(tokens), vocab_size]: one prefill of all of it."""
    before = [*text.prompt, *text.tokens[:-1]]
    rows = np.arange(len(text.prompt) - 1, len(before), dtype=np.int32)
    return _scores(runner, step_batch([Chunk(before, 0, _pages(1, text))], sample_rows=rows))


def score_by_steps(runner: ModelRunner, texts: Sequence[Text], *, chunk_size: int) -> list[Float32]:
    """The same of several texts of one length, as an engine computes them: prompts in chunks, then a token of each in a step."""
    firsts = np.cumsum([1, *(len(_pages(0, text)) for text in texts)])
    pages = [_pages(int(first), text) for first, text in zip(firsts, texts, strict=False)]
    places = [[_prefill(runner, text.prompt, own, chunk_size)] for text, own in zip(texts, pages, strict=True)]
    for step in range(len(texts[0].tokens) - 1):
        chunks = [
            Chunk([text.tokens[step]], len(text.prompt) + step, own) for text, own in zip(texts, pages, strict=True)
        ]
        for rows, scores in zip(places, _scores(runner, step_batch(chunks)), strict=True):
            rows.append(scores)
    return [np.stack(rows) for rows in places]


def distance(scores: Sequence[Float32], others: Sequence[Float32]) -> float:
    """By how much a token's likelihood over another's differs in the mean, in nats: sqrt(2) times the spread of the differences."""
    differences = np.concatenate(scores) - np.concatenate(others)
    return float(np.sqrt(2 * differences.var(axis=1).mean()))


def _prefill(runner: ModelRunner, prompt: Sequence[int], pages: Sequence[int], chunk_size: int) -> Float32:
    """Of the token after the prompt."""
    for start in range(0, len(prompt), chunk_size):
        last = _scores(runner, step_batch([Chunk(prompt[start : start + chunk_size], start, pages)]))
    return last[0]


def _scores(runner: ModelRunner, batch: StepBatch) -> Float32:
    """Of every sample of a step, [num_samples, vocab_size]."""
    count = len(batch.sample_rows)
    asked = replace(batch, sampling=sampling_batch(count, num_logprobs=runner.vocab_size))
    given = runner.launch(asked).result().logprobs
    assert given is not None
    scores = np.empty((count, runner.vocab_size), np.float32)
    np.put_along_axis(scores, given.top_ids, given.top_values, axis=1)
    assert np.isfinite(scores).all()
    return scores


def _pages(first: int, text: Text) -> list[int]:
    count = -(-(len(text.prompt) + len(text.tokens)) // PAGE_SIZE)
    return list(range(first, first + count))
