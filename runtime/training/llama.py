"""The Llama architecture in training form.

Plain modules whose parameter names are those of the Hugging Face layout (`model.layers.0.self_attn.q_proj.weight`), so
that a state dict is a checkpoint. It is separate from the serving engine's model on purpose: no paged cache, no fused
weights, rows that start at position 0 while it learns, and autograd. Tied embeddings only.

Source: LLaMA (Touvron et al. 2023); grouped-query attention (Ainslie et al. 2023); rotary embedding in the half-split
convention of Hugging Face.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class LlamaShape:
    """The sizes of one model; field names follow Hugging Face's `config.json`."""

    vocab_size: int
    hidden_size: int = 256
    intermediate_size: int = 704
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 64
    max_position_embeddings: int = 2048
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5


class RMSNorm(nn.Module):
    """Root-mean-square normalization with a learnt gain, computed in float32."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden: [..., size] in any float dtype; the result has the same."""
        return functional.rms_norm(hidden, self.weight.shape, self.weight, self.eps)


class Rotary(nn.Module):
    """The table of rotations for every position, and their application."""

    cos: Tensor
    sin: Tensor

    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        exponent = torch.arange(0, shape.head_dim, 2, dtype=torch.float64) / shape.head_dim
        angles = torch.outer(
            torch.arange(shape.max_position_embeddings, dtype=torch.float64), shape.rope_theta**-exponent
        )
        angles = torch.cat((angles, angles), dim=-1)
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)

    def forward(self, heads: Tensor, positions: Tensor | None) -> Tensor:
        """Rotate queries or keys.

        Args:
            heads: [batch, num_heads, length, head_dim].
            positions: [batch, length] int64; None counts every row from 0.
        """
        if positions is None:
            cos, sin = self.cos[: heads.shape[2]], self.sin[: heads.shape[2]]
        else:
            cos, sin = self.cos[positions].unsqueeze(1), self.sin[positions].unsqueeze(1)
        low, high = heads.chunk(2, dim=-1)
        return heads * cos + torch.cat((-high, low), dim=-1) * sin


class KVCache:
    """Keys and values of one batch of rows of different lengths, for decoding in evaluation."""

    def __init__(self, shape: LlamaShape, num_rows: int, capacity: int, device: torch.device) -> None:
        """Room for `capacity` positions of each row."""
        sizes = (shape.num_hidden_layers, num_rows, shape.num_key_value_heads, capacity, shape.head_dim)
        self.keys, self.values = torch.zeros(sizes, device=device), torch.zeros(sizes, device=device)
        self.lengths = torch.zeros(num_rows, dtype=torch.int64, device=device)

    def positions(self, length: int) -> Tensor:
        """Where the next `length` tokens of each row stand: [num_rows, length] int64."""
        return self.lengths[:, None] + torch.arange(length, device=self.lengths.device)

    def write(self, layer: int, key: Tensor, value: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Store [num_rows, num_kv_heads, new, head_dim] at `positions`; return all of the layer's keys and values."""
        places = positions[:, None, :, None].expand_as(key)
        self.keys[layer].scatter_(2, places, key)
        self.values[layer].scatter_(2, places, value)
        return self.keys[layer], self.values[layer]

    def mask(self, positions: Tensor) -> Tensor:
        """What may be attended to from `positions`: [num_rows, 1, length, capacity], true up to the position itself."""
        return torch.arange(self.keys.shape[3], device=positions.device) <= positions[:, None, :, None]

    def select(self, rows: Tensor) -> None:
        """Keep only the given rows of the batch, in that order."""
        self.keys, self.values, self.lengths = self.keys[:, rows], self.values[:, rows], self.lengths[rows]


class Attention(nn.Module):
    """Causal grouped-query attention."""

    def __init__(self, shape: LlamaShape, layer: int) -> None:
        super().__init__()
        self.shape, self.layer = shape, layer
        query_size, kv_size = shape.num_attention_heads * shape.head_dim, shape.num_key_value_heads * shape.head_dim
        self.q_proj = nn.Linear(shape.hidden_size, query_size, bias=False)
        self.k_proj = nn.Linear(shape.hidden_size, kv_size, bias=False)
        self.v_proj = nn.Linear(shape.hidden_size, kv_size, bias=False)
        self.o_proj = nn.Linear(query_size, shape.hidden_size, bias=False)

    def forward(self, hidden: Tensor, rotary: Rotary, cache: KVCache | None) -> Tensor:
        """hidden: [batch, length, hidden_size]; with a cache, its columns come before these."""
        batch, length, _ = hidden.shape
        positions = None if cache is None else cache.positions(length)
        query = rotary(self._heads(self.q_proj(hidden)), positions)
        key = rotary(self._heads(self.k_proj(hidden)), positions)
        value = self._heads(self.v_proj(hidden))
        mask = None
        if cache is not None and positions is not None:
            key, value = cache.write(self.layer, key, value, positions)
            mask = cache.mask(positions)
        mixed = functional.scaled_dot_product_attention(
            query, self._for_queries(key), self._for_queries(value), attn_mask=mask, is_causal=mask is None
        )
        out: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(batch, length, -1))
        return out

    def _for_queries(self, heads: Tensor) -> Tensor:
        """Repeat each key or value head for the query heads of its group."""
        group = self.shape.num_attention_heads // self.shape.num_key_value_heads
        return heads[:, :, None].expand(-1, -1, group, -1, -1).flatten(1, 2)

    def _heads(self, flat: Tensor) -> Tensor:
        """[batch, length, heads * head_dim] → [batch, heads, length, head_dim]."""
        batch, length, _ = flat.shape
        return flat.view(batch, length, -1, self.shape.head_dim).transpose(1, 2)


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020)."""

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden: [..., hidden_size]."""
        out: Tensor = self.down_proj(functional.silu(self.gate_proj(hidden)) * self.up_proj(hidden))
        return out


class DecoderLayer(nn.Module):
    """Attention and feed-forward, each behind a norm and added to the residual stream."""

    def __init__(self, shape: LlamaShape, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.self_attn = Attention(shape, layer)
        self.post_attention_layernorm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.mlp = FeedForward(shape.hidden_size, shape.intermediate_size)

    def forward(self, hidden: Tensor, rotary: Rotary, cache: KVCache | None) -> Tensor:
        """hidden: [batch, length, hidden_size]."""
        hidden = hidden + self.self_attn(self.input_layernorm(hidden), rotary, cache)
        out: Tensor = hidden + self.mlp(self.post_attention_layernorm(hidden))
        return out


class LlamaBody(nn.Module):
    """Embedding, layers and the last norm: what the layout calls `model.`."""

    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList([DecoderLayer(shape, layer) for layer in range(shape.num_hidden_layers)])
        self.norm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.rotary = Rotary(shape)

    def forward(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """tokens: [batch, length] int64 → hidden states after the last norm, [batch, length, hidden_size].

        A cache takes the keys and values, but counts them only when the caller adds to its `lengths`.
        """
        hidden = self.embed_tokens(tokens)
        for layer in self.layers:
            hidden = layer(hidden, self.rotary, cache)
        out: Tensor = self.norm(hidden)
        return out


class Llama(nn.Module):
    """A Llama language model with tied embeddings."""

    def __init__(self, shape: LlamaShape, seed: int) -> None:
        """Draw the first weights from `seed`: normal with deviation 0.02, zero where a block writes to the residual."""
        super().__init__()
        self.shape = shape
        self.model = LlamaBody(shape)
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                nn.init.zeros_(parameter)
            elif parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02, generator=generator)

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden: [..., hidden_size] → [..., vocab_size], by the tied embedding."""
        return functional.linear(hidden, self.model.embed_tokens.weight)

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Sum of the cross-entropies over the positions that are learnt.

        Args:
            tokens: [batch, length] int64, right-padded.
            targets: [batch, length] int64, the next token, or -1 where nothing is learnt.
        Capture-safe.
        """
        logits = self.logits(self.model(tokens)).float()
        return functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="sum")
