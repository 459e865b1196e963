"""Two forms of one model over the same text: how far their next-token distributions are from each other, place by place.

The text is cut into windows that are read each by itself; every place but a window's first is scored. Where one form is the
quantized other, the Kullback-Leibler divergence D(reference || changed) is what quantization costs at each place, in nats;
perplexity says what it costs on this text, and agreement how often a greedy answer would turn elsewhere.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from runtime.errors import EngineMisconfigured
from runtime.runner.whole_texts import WholeTexts

_ROWS_AT_ONCE = 256
"""Whose distributions over the whole vocabulary exist at a time."""


@dataclass(frozen=True)
class Comparison:
    """Figures over all scored places."""

    num_tokens: int
    mean_divergence: float
    """Nats a token."""
    p99_divergence: float
    agreement: float
    """Share of places with the same most likely token."""
    reference_perplexity: float
    perplexity: float


def compare_models(
    reference: WholeTexts,
    changed: WholeTexts,
    token_ids: Sequence[int],
    *,
    window: int,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Comparison:
    """Read a text with both.

    Args:
        window: tokens of a window; at least 2.
        report: called with tokens scored and tokens in all.
    Raises: EngineMisconfigured for models of different vocabularies, and for a text of fewer than two tokens.
    """
    sizes = reference.config.vocab_size, changed.config.vocab_size
    if sizes[0] != sizes[1]:
        raise EngineMisconfigured(f"the models' vocabularies differ: {sizes[0]} and {sizes[1]} tokens")
    places = list(_score(reference, changed, token_ids, window, report))
    if not places:
        raise EngineMisconfigured(f"a text of {len(token_ids)} tokens has no place to score")
    divergence, agrees, reference_loss, loss = torch.cat(places, dim=1).double()
    return Comparison(
        num_tokens=len(divergence),
        mean_divergence=float(divergence.mean()),
        p99_divergence=float(divergence.sort().values[int(0.99 * (len(divergence) - 1))]),
        agreement=float(agrees.mean()),
        reference_perplexity=math.exp(float(reference_loss.mean())),
        perplexity=math.exp(float(loss.mean())),
    )


def _score(
    reference: WholeTexts,
    changed: WholeTexts,
    token_ids: Sequence[int],
    window: int,
    report: Callable[[int, int], None],
) -> Iterator[Tensor]:
    """For some places at a time [4, count]: divergence, agreement, the two losses; on the CPU."""
    device = reference.parameters["embedding.weight"].device
    for first in range(0, len(token_ids) - 1, window):
        tokens = torch.tensor([token_ids[first : first + window]], dtype=torch.int64, device=device)
        states = [model.states(tokens)[-1][:, :-1] for model in (reference, changed)]
        for start in range(0, tokens.shape[1] - 1, _ROWS_AT_ONCE):
            span = slice(start, start + _ROWS_AT_ONCE)
            before, after = (
                model.logits(state[:, span])[0].log_softmax(-1)
                for model, state in zip((reference, changed), states, strict=True)
            )
            yield score_places(before, after, tokens[0, 1:][span]).cpu()
        report(min(first + window, len(token_ids)), len(token_ids))


def score_places(reference: Tensor, changed: Tensor, next_ids: Tensor) -> Tensor:
    """Figures of each place.

    Args:
        reference, changed: [count, vocab_size] float32, logarithms of probabilities.
        next_ids: [count] int64, the tokens that stand there.
    Returns: [4, count] float32: divergence, 1 where both have the same first choice, and what each says of the token (-log p).
    """
    divergence = (reference.exp() * (reference - changed)).sum(-1)
    agrees = reference.argmax(-1) == changed.argmax(-1)
    losses = [-logprobs.gather(1, next_ids[:, None])[:, 0] for logprobs in (reference, changed)]
    return torch.stack((divergence, agrees.float(), *losses))
