"""The draft head in training form: modules whose parameter names are those of published EAGLE-3 heads.

One decoder layer over `concat(norm(embedding), norm(hidden))`, with `fc` before it that makes one hidden state of three of
the target's, and a vocabulary of its own behind it. The embedding is the target's and is not learnt. An *entry* of the head
combines the hidden state of one position with the token of the next, and predicts the token after that.

Source: EAGLE-3, Li et al. 2025, section 3; names and residual as in the heads that SGLang and vLLM load.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from runtime.layers.rotary import RotaryTable, apply_rotary
from runtime.runner.whole_texts import for_queries
from runtime.training.llama import FeedForward, RMSNorm
from runtime.weights.config import ModelConfig
from runtime.weights.rope import RopeConfig

NUM_CAPTURED = 3


@dataclass(frozen=True)
class HeadShape:
    """The sizes of one head. Hidden size, vocabulary and rotation are those of its target."""

    vocab_size: int
    draft_vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_position: int
    rms_norm_eps: float
    rope: RopeConfig
    captured_layers: tuple[int, ...]
    """How many of the target's layers each of the three hidden states has passed, see `runtime.training.draft.target`."""

    @property
    def num_parameters(self) -> int:
        """Learnt numbers."""
        hidden, attended = self.hidden_size, self.num_heads * self.head_dim
        keys = self.num_kv_heads * self.head_dim
        matrices = NUM_CAPTURED * hidden + 2 * (attended + 2 * keys) + attended + 3 * self.intermediate_size
        return hidden * (matrices + self.draft_vocab_size + 4)


def shape_for(
    config: ModelConfig, *, draft_vocab_size: int, intermediate_size: int | None, captured_layers: Sequence[int]
) -> HeadShape:
    """The head of a target: its own sizes, but for the vocabulary and the feed-forward."""
    return HeadShape(
        vocab_size=config.vocab_size,
        draft_vocab_size=draft_vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=intermediate_size or config.intermediate_size,
        num_heads=config.num_heads,
        num_kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        max_position=config.max_position,
        rms_norm_eps=config.rms_norm_eps,
        rope=config.rope,
        captured_layers=tuple(captured_layers),
    )


@dataclass(frozen=True)
class Keys:
    """Keys, turned, and values of some entries: [batch, num_heads, length, head_dim] each, repeated for their group's heads."""

    key: Tensor
    value: Tensor


class HeadAttention(nn.Module):
    """The projections of the layer's attention; who attends to what is not decided here."""

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        self.head_dim, self.group = shape.head_dim, shape.num_heads // shape.num_kv_heads
        query_size, kv_size = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
        self.q_proj = nn.Linear(2 * shape.hidden_size, query_size, bias=False)
        self.k_proj = nn.Linear(2 * shape.hidden_size, kv_size, bias=False)
        self.v_proj = nn.Linear(2 * shape.hidden_size, kv_size, bias=False)
        self.o_proj = nn.Linear(query_size, shape.hidden_size, bias=False)

    def query(self, joined: Tensor, rotary: RotaryTable, positions: Tensor) -> Tensor:
        """joined: [batch, length, 2 * hidden_size]; positions: [batch, length] → [batch, num_heads, length, head_dim]."""
        return self._turned(self.q_proj(joined), rotary, positions)

    def keys(self, joined: Tensor, rotary: RotaryTable, positions: Tensor) -> Keys:
        """Arguments as for `query`."""
        key = self._turned(self.k_proj(joined), rotary, positions)
        value = self._split(self.v_proj(joined)).transpose(1, 2)
        return Keys(for_queries(key, self.group), for_queries(value, self.group))

    def finish(self, attended: Tensor) -> Tensor:
        """[batch, num_heads, length, head_dim] → [batch, length, hidden_size]."""
        out: Tensor = self.o_proj(attended.transpose(1, 2).flatten(2))
        return out

    def _turned(self, flat: Tensor, rotary: RotaryTable, positions: Tensor) -> Tensor:
        heads = self._split(flat)
        turned = apply_rotary(heads.flatten(0, 1), *rotary.at(positions.flatten()))
        return turned.view_as(heads).transpose(1, 2)

    def _split(self, flat: Tensor) -> Tensor:
        heads: Tensor = flat.unflatten(-1, (-1, self.head_dim))
        return heads


class HeadLayer(nn.Module):
    """The one decoder layer. `hidden_norm` is of hidden states, `input_layernorm` of embeddings."""

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        self.hidden_norm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.input_layernorm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.self_attn = HeadAttention(shape)
        self.post_attention_layernorm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.mlp = FeedForward(shape.hidden_size, shape.intermediate_size)

    def join(self, embeddings: Tensor, hidden: Tensor) -> Tensor:
        """Both [batch, length, hidden_size] → what the projections read, twice as wide."""
        return torch.cat((self.input_layernorm(embeddings), self.hidden_norm(hidden)), dim=-1)

    def finish(self, hidden: Tensor, attended: Tensor) -> Tensor:
        """The rest of the layer after attention, with both residual additions; the residual is not normalized."""
        hidden = hidden + self.self_attn.finish(attended)
        out: Tensor = hidden + self.mlp(self.post_attention_layernorm(hidden))
        return out


class DraftHead(nn.Module):
    """All that is learnt."""

    def __init__(self, shape: HeadShape, seed: int) -> None:
        """Draw the first weights from `seed`: normal with deviation 0.02, zero where the layer writes to the residual."""
        super().__init__()
        self.shape = shape
        self.fc = nn.Linear(NUM_CAPTURED * shape.hidden_size, shape.hidden_size, bias=False)
        self.midlayer = HeadLayer(shape)
        self.norm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.lm_head = nn.Linear(shape.hidden_size, shape.draft_vocab_size, bias=False)
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                nn.init.zeros_(parameter)
            elif parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02, generator=generator)

    @torch.no_grad()
    def start_from(self, head: Tensor, norm: Tensor) -> None:
        """Begin as the target ends.

        Args:
            head: [draft_vocab_size, hidden_size], the target's rows of the draft vocabulary.
            norm: [hidden_size], of the target's last norm.
        """
        self.lm_head.weight.copy_(head)
        self.norm.weight.copy_(norm)

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., hidden_size] after the layer → [..., draft_vocab_size]."""
        out: Tensor = self.lm_head(self.norm(hidden))
        return out
