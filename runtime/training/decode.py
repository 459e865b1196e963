"""Greedy decoding of many prompts, for evaluation.

A plain loop in float32 that shares nothing with the serving engine. Prompts of one length are decoded together, so there
is no padding and no mask; rows leave the batch as they end.
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
    by_length: dict[int, list[int]] = {}
    for index, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt), []).append(index)
    num_done = 0
    for _, indices in sorted(by_length.items()):
        for first in range(0, len(indices), batch_size):
            block = indices[first : first + batch_size]
            for index, answer in zip(
                block, _decode_block(model, [prompts[i] for i in block], ends, max_new_tokens), strict=True
            ):
                answers[index] = answer
            num_done += len(block)
            report(num_done)
    return answers


def _decode_block(
    model: Llama, prompts: Sequence[Sequence[int]], ends: frozenset[int], max_new_tokens: int
) -> list[list[int]]:
    """Decode prompts of equal length."""
    device = model.model.embed_tokens.weight.device
    answers: list[list[int]] = [[] for _ in prompts]
    open_rows = list(range(len(prompts)))
    cache = KVCache(model.shape.num_hidden_layers)
    tokens = torch.tensor([list(prompt) for prompt in prompts], dtype=torch.int64, device=device)
    for _ in range(max_new_tokens):
        chosen: Tensor = model.logits(model.model(tokens, cache)[:, -1]).argmax(dim=-1)
        ids = chosen.tolist()
        kept = [place for place, token in enumerate(ids) if token not in ends]
        for place in kept:
            answers[open_rows[place]].append(ids[place])
        if not kept:
            break
        if len(kept) < len(open_rows):
            rows = torch.tensor(kept, device=device)
            cache.select(rows)
            chosen = chosen[rows]
            open_rows = [open_rows[place] for place in kept]
        tokens = chosen[:, None]
    return answers
