"""Greedy decoding of many prompts, for evaluation.

A plain loop in float32 that shares nothing with the serving engine. Prompts are decoded in batches of similar length;
rows that have ended leave the batch once they are half of it.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from runtime.training.llama import KVCache, Llama


@torch.inference_mode()
def decode_greedily(
    model: Llama,
    prompts: Sequence[Sequence[int]],
    *,
    ends: frozenset[int],
    max_new_tokens: int,
    batch_size: int = 64,
    report: Callable[[int], None] = lambda done: None,
) -> list[list[int]]:
    """Return each prompt's continuation, in the order of the prompts, without the token that ended it.

    Args:
        prompts: token ids, none empty.
        ends: tokens that end an answer.
        report: called with the number of prompts finished so far.
    """
    answers: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    for first in range(0, len(order), batch_size):
        block = order[first : first + batch_size]
        found = _decode_block(model, [prompts[index] for index in block], ends, max_new_tokens)
        for index, answer in zip(block, found, strict=True):
            answers[index] = answer
        report(first + len(block))
    return answers


def _decode_block(
    model: Llama, prompts: Sequence[Sequence[int]], ends: frozenset[int], max_new_tokens: int
) -> list[list[int]]:
    """Decode one batch."""
    device = model.model.embed_tokens.weight.device
    answers: list[list[int]] = [[] for _ in prompts]
    open_rows = list(range(len(prompts)))
    cache, chosen = _prefill(model, prompts, max_new_tokens, device)
    for num_new in range(1, max_new_tokens + 1):
        ids = chosen.tolist()
        kept = []
        for place, row in enumerate(open_rows):
            # A row that is -1 has ended, and waits for the batch to shrink.
            if row >= 0 and ids[place] not in ends:
                answers[row].append(ids[place])
                kept.append(place)
            else:
                open_rows[place] = -1
        if not kept or num_new == max_new_tokens:
            break
        if 2 * len(kept) <= len(open_rows):
            rows = torch.tensor(kept, device=device)
            cache.select(rows)
            chosen, open_rows = chosen[rows], [open_rows[place] for place in kept]
        hidden = model.model(chosen[:, None], cache)
        cache.lengths += 1
        chosen = model.logits(hidden[:, -1]).argmax(dim=-1)
    return answers


def _prefill(
    model: Llama, prompts: Sequence[Sequence[int]], max_new_tokens: int, device: torch.device
) -> tuple[KVCache, Tensor]:
    """Read right-padded prompts; what the padding wrote is overwritten before anything attends to it."""
    width = max(len(prompt) for prompt in prompts)
    tokens = torch.tensor([[*prompt, *[0] * (width - len(prompt))] for prompt in prompts], device=device)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    cache = KVCache(model.shape, len(prompts), width + max_new_tokens, device)
    hidden = model.model(tokens, cache)
    cache.lengths += lengths
    last = hidden[torch.arange(len(prompts), device=device), lengths - 1]
    return cache, model.logits(last).argmax(dim=-1)
