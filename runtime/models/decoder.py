"""The decoder-only transformer of the Llama family.

A layer is three stages, because its parts differ in what they see: `project` and `finish` look at each row (one token)
by itself, attention at whole sequences. Attention is a callable of the step (`Attend`), and row-wise stages go through
the step's `RowWise`, which may run them in one call (a GPU) or in blocks of a fixed number of rows (bit-exact on a CPU).
Where several ranks share the model, `finish` and `logits` put their parts together (`Group`).

Sources: Llama 2 (Touvron et al. 2023), GQA (Ainslie et al. 2023); Qwen3's per-head norms of queries and keys.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
import torch.nn.functional as functional
from torch import Tensor

from runtime.layers.activation import silu_and_multiply
from runtime.layers.norm import RMSNorm
from runtime.layers.quantized import AnyLinear
from runtime.layers.rotary import RotaryTable, apply_rotary
from runtime.models.parts import build_head, build_linear
from runtime.parallel.host_group import ALONE, Group
from runtime.weights.config import ModelConfig
from runtime.weights.shares import cuts_head

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, query [num_rows, num_heads, head_dim], key, value [num_rows, num_kv_heads, head_dim]) → the shape of query.

Stores keys and values of the rows in the cache before it attends."""


class SeesHidden(Protocol):
    """Who wants hidden states on their way through the layers."""

    def see(self, num_passed: int, hidden: Tensor) -> None:
        """The residual stream [num_rows, hidden_size] after so many layers; it is changed afterwards."""
        ...


class RowWise(Protocol):
    """How stages that treat rows one by one are run."""

    def apply(self, stage: Callable[..., tuple[Tensor, ...]], *rows: Tensor) -> tuple[Tensor, ...]:
        """The stage's result over tensors whose first dimension is the row."""
        ...


class DecoderLayer:
    """Attention and feed-forward with their norms; `prefix` selects its weights."""

    def __init__(self, config: ModelConfig, parameters: Mapping[str, Tensor], prefix: str, group: Group) -> None:
        def linear(name: str) -> AnyLinear:
            return build_linear(config, parameters, f"{prefix}{name}")

        def norm(name: str) -> RMSNorm:
            return RMSNorm(parameters[f"{prefix}{name}.weight"], config.rms_norm_eps)

        self._group = group
        self._num_heads, self._num_kv_heads, self._head_dim = config.num_heads, config.num_kv_heads, config.head_dim
        self._attention_norm, self._mlp_norm = norm("attention_norm"), norm("mlp_norm")
        self._qkv, self._output = linear("qkv"), linear("output")
        self._gate_up, self._down = linear("gate_up"), linear("down")
        self._head_norms = (norm("query_norm"), norm("key_norm")) if config.qk_norm else None

    def project(self, hidden: Tensor, cosines: Tensor, sines: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[num_rows, hidden_size] → query, key and value, each [num_rows, heads, head_dim], rotated."""
        heads = self._qkv(self._attention_norm(hidden)).view(hidden.shape[0], -1, self._head_dim)
        num_heads, num_turned = self._num_heads, self._num_heads + self._num_kv_heads
        turned = heads[:, :num_turned]
        if self._head_norms is not None:
            query_norm, key_norm = self._head_norms
            turned = torch.cat((query_norm(heads[:, :num_heads]), key_norm(heads[:, num_heads:num_turned])), dim=1)
        turned = apply_rotary(turned, cosines, sines)
        return turned[:, :num_heads], turned[:, num_heads:], heads[:, num_turned:]

    def finish(self, hidden: Tensor, attended: Tensor) -> tuple[Tensor]:
        """Output projection and feed-forward, with both residual additions.

        Args:
            hidden: [num_rows, hidden_size], as `project` got it.
            attended: [num_rows, num_heads, head_dim].
        """
        hidden = hidden + self._group.sum(self._output(attended.flatten(1)))
        inner = silu_and_multiply(self._gate_up(self._mlp_norm(hidden)))
        return (hidden + self._group.sum(self._down(inner)),)


class Decoder:
    """The whole model, from token ids to logits.

    `num_positions` bounds the positions that may occur; beyond the configured `max_position` nothing is served.
    """

    def __init__(
        self, config: ModelConfig, parameters: Mapping[str, Tensor], *, num_positions: int, group: Group = ALONE
    ) -> None:
        """
        Args:
            config: what this rank computes, see `share_config`.
            group: the ranks that share the model.
        """
        self._group = group
        self._embedding = parameters["embedding.weight"]
        self.layers = [
            DecoderLayer(config, parameters, f"layers.{layer}.", group) for layer in range(config.num_layers)
        ]
        self._norm = RMSNorm(parameters["norm.weight"], config.rms_norm_eps)
        self._head = build_head(config, parameters, group.share)
        self._joins_logits = cuts_head(config, group.share)
        self.rotary = RotaryTable(
            config.rope,
            config.head_dim,
            min(num_positions, config.max_position),
            device=self._embedding.device,
            dtype=self._embedding.dtype,
        )

    def hidden_states(
        self,
        token_ids: Tensor,
        positions: Tensor,
        attend: Attend,
        rows: RowWise,
        captured: SeesHidden | None = None,
    ) -> Tensor:
        """One forward pass over [num_rows] int64 ids and positions → [num_rows, hidden_size], before the last norm."""
        cosines, sines = self.rotary.at(positions)
        hidden = functional.embedding(token_ids, self._embedding)
        for index, layer in enumerate(self.layers):
            query, key, value = rows.apply(layer.project, hidden, cosines, sines)
            (hidden,) = rows.apply(layer.finish, hidden, attend(index, query, key, value))
            if captured is not None:
                captured.see(index + 1, hidden)
        return hidden

    def final(self, hidden: Tensor) -> Tensor:
        """[num_rows, hidden_size] → the same after the last norm, float32: what embeddings are made of."""
        return self._norm(hidden).float()

    def logits(self, hidden: Tensor) -> tuple[Tensor]:
        """[num_rows, hidden_size] → [num_rows, vocab_size] float32. Row-wise: run it through `RowWise`."""
        logits = self._head(self._norm(hidden)).float()
        return (self._group.join(logits) if self._joins_logits else logits,)
