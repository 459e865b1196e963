"""Several steps of drafting at every position of a text at once, as serving would compute them one after the other.

Serving drafts from position i: its first entry has a hidden state of the target's, the ones after it have the head's own.
All entries up to i come from the target's hidden states. So the entry of step s that began at i

    stands at position i + s, has the embedding of token i + s + 1 and, for s > 0, the hidden state that step s - 1 gave at i;
    attends to the entries of step 0 at positions 0 … i, to those of steps 1 … s that began at i, and to nothing else.

Tokens are those of the text: where a draft is right it is that token, and after a wrong one nothing counts. One pass over all
i has the shape of a prompt: a causal product for step 0's keys, and one number a position for each later step.

Source: "training-time test" of EAGLE-3, Li et al. 2025, section 3.2.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from runtime.layers.rotary import RotaryTable
from runtime.training.draft.head import DraftHead, Heads


def unroll(
    head: DraftHead, rotary: RotaryTable, captured: Tensor, embeddings: Tensor, num_steps: int
) -> Iterator[Tensor]:
    """The head's hidden states, step after step.

    Args:
        captured: [batch, length, 3 * hidden_size], the target's hidden states.
        embeddings: [batch, length, hidden_size], of the tokens themselves; behind the end are zeros.
    Yields: for each step s [batch, length, hidden_size]; at i what predicts token i + s + 2.
    Capture-safe.
    """
    length = captured.shape[1]
    hidden: Tensor = head.fc(captured)
    steps: list[Heads] = []
    for step in range(num_steps):
        joined = head.midlayer.join(shift(embeddings, step + 1), hidden)
        positions = torch.arange(step, step + length, device=captured.device)
        steps.append(head.midlayer.self_attn.project(joined, rotary, positions))
        hidden = head.midlayer.finish(hidden, attend(steps))
        yield hidden


def shift(columns: Tensor, count: int) -> Tensor:
    """[batch, length, ...] → column i holds what column i + count held; zeros where that is behind the end."""
    moved = torch.zeros_like(columns)
    if count < columns.shape[1]:
        moved[:, : columns.shape[1] - count] = columns[:, count:]
    return moved


def attend(steps: list[Heads]) -> Tensor:
    """Attention of the last step's entries → [batch, num_heads, length, head_dim].

    Args:
        steps: the entries of all steps so far; those of one column began at one position.
    """
    first, last = steps[0], steps[-1]
    if len(steps) == 1:
        return functional.scaled_dot_product_attention(last.query, first.key, first.value, is_causal=True)
    length, head_dim = last.query.shape[-2:]
    query = last.query * head_dim**-0.5
    hidden_ones = torch.ones(length, length, dtype=torch.bool, device=query.device).triu(1)
    scores = (query @ first.key.mT).masked_fill(hidden_ones, float("-inf"))
    own = [(query * step.key).sum(-1, keepdim=True) for step in steps[1:]]
    shares = torch.cat((scores, *own), dim=-1).softmax(dim=-1)
    mixed = shares[..., :length].to(first.value.dtype) @ first.value
    for index, step in enumerate(steps[1:]):
        mixed = mixed + shares[..., length + index, None] * step.value
    return mixed
