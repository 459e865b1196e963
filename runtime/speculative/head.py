"""The network of a head, in plain torch: one decoder layer over a token and what the target thought before it.

An entry at position p combines the hidden state of p, of the target or, further out, of the head itself, with the token
that follows it, and predicts the token after that:

    normed = [norm(embedding of token p + 1), norm(hidden p)]        concatenated: twice as wide
    hidden = hidden + attention(normed), over the head's own entries up to p, turned by position p
    hidden = hidden + feed_forward(norm(hidden))
    logits = lm_head(norm(hidden)), over the head's own vocabulary

`hidden` after the layer, before the last norm, stands for the target's hidden state in the next entry of a draft.
Source: EAGLE-3, Li et al. 2025, section 3.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch import Tensor

from runtime.layers.activation import silu_and_multiply
from runtime.layers.linear import Linear
from runtime.layers.norm import RMSNorm
from runtime.layers.rotary import RotaryTable, apply_rotary
from runtime.speculative.config import HeadConfig
from runtime.speculative.loading import EMBEDDING, HeadWeights

AttendDraft = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(query [num_rows, num_heads, head_dim], key, value [num_rows, num_kv_heads, head_dim]) → the shape of query."""


@dataclass(frozen=True, slots=True)
class Entries:
    """Rows on their way through the layer."""

    query: Tensor
    """[num_rows, num_heads, head_dim], turned."""
    key: Tensor
    """[num_rows, num_kv_heads, head_dim], turned."""
    value: Tensor
    """As `key`."""
    residual: Tensor
    """[num_rows, hidden_size]"""

    def select(self, rows: Tensor) -> "Entries":
        """Some of the rows."""
        return Entries(*(part[rows] for part in (self.query, self.key, self.value, self.residual)))


class DraftHead:
    """The layer with what stands before and behind it. Rows are entries; each is treated by itself but for attention."""

    def __init__(self, config: HeadConfig, weights: HeadWeights, embedding: Tensor, *, num_positions: int) -> None:
        """
        Args:
            embedding: [vocab_size, hidden_size] of the target, for weights without one of the head's own.
            num_positions: bound of the positions that may occur.
        """
        parameters = weights.parameters

        def norm(name: str) -> RMSNorm:
            return RMSNorm(parameters[f"{name}.weight"], config.rms_norm_eps)

        def linear(name: str) -> Linear:
            return Linear(parameters[f"{name}.weight"])

        self.config = config
        self.embedding = parameters.get(EMBEDDING, embedding)
        self.target_ids = weights.target_ids
        self.fc, self.qkv, self.output = linear("fc"), linear("qkv"), linear("midlayer.self_attn.o_proj")
        self.gate_up, self.down, self.lm_head = linear("gate_up"), linear("midlayer.mlp.down_proj"), linear("lm_head")
        self.embedding_norm, self.hidden_norm = norm("midlayer.input_layernorm"), norm("midlayer.hidden_norm")
        self.mlp_norm, self.norm = norm("midlayer.post_attention_layernorm"), norm("norm")
        self.num_bytes = sum(tensor.numel() * tensor.element_size() for tensor in parameters.values())
        """Of its weights."""
        dtype, device = self.embedding.dtype, self.embedding.device
        self.rotary = RotaryTable(config.rope, config.head_dim, num_positions, device=device, dtype=dtype)

    def combine(self, captured: Tensor) -> Tensor:
        """Three hidden states of the target, [num_rows, 3 * target_hidden_size] → one, [num_rows, hidden_size]."""
        return self.fc(captured)

    def forward(self, token_ids: Tensor, hidden: Tensor, positions: Tensor, attend: AttendDraft) -> Tensor:
        """Entries → [num_rows, hidden_size], before the last norm; arguments as for `enter`."""
        entries = self.enter(token_ids, hidden, positions)
        return self.ask(entries, attend(entries.query, entries.key, entries.value))

    def enter(self, token_ids: Tensor, hidden: Tensor, positions: Tensor) -> Entries:
        """What is attended with and to: all that a row needs if nobody drafts behind it.

        Args:
            token_ids: [num_rows] int64: the token after each position.
            hidden: [num_rows, hidden_size]: the hidden state at each position.
            positions: [num_rows] int64.
        """
        normed = self.hidden_norm(hidden)
        embedded = self.embedding_norm(functional.embedding(token_ids, self.embedding))
        residual = normed if self.config.norm_before_residual else hidden
        config = self.config
        heads = self.qkv(torch.cat((embedded, normed), dim=-1)).view(len(token_ids), -1, config.head_dim)
        num_turned = config.num_heads + config.num_kv_heads
        turned = apply_rotary(heads[:, :num_turned], *self.rotary.at(positions))
        return Entries(turned[:, : config.num_heads], turned[:, config.num_heads :], heads[:, num_turned:], residual)

    def ask(self, entries: Entries, attended: Tensor) -> Tensor:
        """The rest of the layer: entries and what they attended [num_rows, num_heads, head_dim] → [num_rows, hidden_size]."""
        residual = entries.residual + self.output(attended.flatten(1))
        return residual + self.down(silu_and_multiply(self.gate_up(self.mlp_norm(residual))))

    def logits(self, hidden: Tensor) -> Tensor:
        """[num_rows, hidden_size] → [num_rows, draft_vocab_size]."""
        return self.lm_head(self.norm(hidden))

    def best(self, hidden: Tensor) -> Tensor:
        """[num_rows, hidden_size] → [num_rows] int64: the likeliest token, by the target's ids; in range even for NaN."""
        return self.target_ids[self.logits(hidden).argmax(dim=-1)]
