"""Several steps of drafting at every position of a text at once, as serving would compute them one after the other.

Serving drafts from position i: its first entry has a hidden state of the target's, the ones after it have the head's own.
All entries up to i come from the target's hidden states. So the entry of step s that began at i

    stands at position i + s, has the embedding of token i + s + 1 and, for s > 0, the hidden state that step s - 1 gave at i;
    attends to the entries of step 0 at positions 0 … i, to those of steps 1 … s that began at i, and to nothing else.

Tokens are those of the text: where a draft is right it is that token, and after a wrong one nothing counts. One pass over all
i has the shape of a prompt: a masked product for step 0's keys, and one number a position for each later step.

Source: "training-time test" of EAGLE-3, Li et al. 2025, section 3.2.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from runtime.layers.rotary import RotaryTable
from runtime.training.draft.head import DraftHead, Keys


@dataclass(frozen=True)
class Beginnings:
    """Where rounds begin: some columns of each row, one behind the other."""

    columns: Tensor
    """[batch, count] int64."""
    are_learnt: Tensor
    """[batch, count] bool; where False the round does not count."""
    is_all: bool
    """They are all columns of every row, in order."""

    def of(self, rows: Tensor) -> Tensor:
        """[batch, length, ...] → [batch, count, ...], what stands there."""
        if self.is_all:
            return rows
        places = self.columns.view(*self.columns.shape, *(1,) * (rows.dim() - 2))
        return rows.gather(1, places.expand(*self.columns.shape, *rows.shape[2:]))


def unroll(
    head: DraftHead, rotary: RotaryTable, captured: Tensor, embeddings: Tensor, begin: Beginnings, num_steps: int
) -> Iterator[Tensor]:
    """The head's hidden states, step after step.

    Args:
        captured: [batch, length, 3 * hidden_size], the target's hidden states.
        embeddings: [batch, length, hidden_size], of the tokens themselves; behind the end are zeros.
    Yields: for each step s [batch, count, hidden_size]; for a round that began at position i what predicts token i + s + 2.
    Capture-safe.
    """
    layer, attention = head.midlayer, head.midlayer.self_attn
    batch, length, _ = captured.shape
    # In float32 whatever the products are rounded to: sums of the residual stream, and norms.
    hidden: Tensor = head.fc(captured).float()
    joined = layer.join(shift(embeddings, 1), hidden)
    everywhere = torch.arange(length, device=captured.device).expand(batch, length)
    context = attention.keys(joined, rotary, everywhere)
    hidden, joined = begin.of(hidden), begin.of(joined)
    own: list[Keys] = []
    for step in range(num_steps):
        positions = begin.columns + step
        if step:
            joined = layer.join(begin.of(shift(embeddings, step + 1)), hidden)
            own.append(attention.keys(joined, rotary, positions))
        query = attention.query(joined, rotary, positions)
        hidden = layer.finish(hidden, attend(query, context, own, begin.columns))
        yield hidden


def shift(columns: Tensor, count: int) -> Tensor:
    """[batch, length, ...] → column i holds what column i + count held; zeros where that is behind the end."""
    moved = torch.zeros_like(columns)
    if count < columns.shape[1]:
        moved[:, : columns.shape[1] - count] = columns[:, count:]
    return moved


def attend(query: Tensor, context: Keys, own: list[Keys], columns: Tensor) -> Tensor:
    """Attention of one step's entries → [batch, num_heads, count, head_dim].

    Args:
        query: [batch, num_heads, count, head_dim].
        context: step 0's entries, of all positions.
        own: of each later step the entries, those of one column for the round that began there.
        columns: [batch, count], where the rounds began.
    """
    length, head_dim = context.key.shape[-2:]
    query = query * head_dim**-0.5
    is_later = torch.arange(length, device=query.device) > columns[:, None, :, None]
    scores = (query @ context.key.mT).masked_fill(is_later, float("-inf"))
    alone = [(query * keys.key).sum(-1, keepdim=True) for keys in own]
    shares = torch.cat((scores, *alone), dim=-1).softmax(dim=-1)
    mixed = shares[..., :length].to(context.value.dtype) @ context.value
    for index, keys in enumerate(own):
        mixed = mixed + shares[..., length + index, None] * keys.value
    return mixed
