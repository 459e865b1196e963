"""The decoder of the Llama family as a GPU runs it: the same mathematics as `decoder`, cut into fused operations.

One layer is five operations and the attention between them; everything is enqueued in order on one stream and may be
captured. Weights are those of `decoder`: the two classes share every tensor, and each is tested against the other.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from runtime.attention.device import DevicePlan
from runtime.layers.linear import Linear
from runtime.layers.norm import RMSNorm
from runtime.layers.quantized import AnyLinear
from runtime.layers.rotary import RotaryTable
from runtime.models.operations import Operations, TokenPlaces, TokenSource
from runtime.models.parts import build_linear
from runtime.weights.config import ModelConfig


@dataclass(frozen=True, slots=True)
class FusedLayer:
    """The weights of one layer."""

    attention_norm: RMSNorm
    qkv: AnyLinear
    head_norms: tuple[RMSNorm, RMSNorm] | None
    output: AnyLinear
    mlp_norm: RMSNorm
    gate_up: AnyLinear
    down: AnyLinear


class FusedDecoder:
    """The whole model over a paged cache, from token sources to logits."""

    def __init__(
        self,
        config: ModelConfig,
        parameters: Mapping[str, Tensor],
        operations: Operations,
        *,
        num_positions: int,
    ) -> None:
        """
        Args:
            parameters: by the names of `runtime.weights.layout`, on one device.
            num_positions: bound of the positions that may occur.
        """
        self._operations = operations
        self._embedding = parameters["embedding.weight"]
        self._layers = [_build_layer(config, parameters, f"layers.{index}.") for index in range(config.num_layers)]
        self._norm = RMSNorm(parameters["norm.weight"], config.rms_norm_eps)
        self._head = Linear(self._embedding) if config.tie_word_embeddings else build_linear(config, parameters, "head")
        self._rotary = RotaryTable(
            config.rope,
            config.head_dim,
            min(num_positions, config.max_position),
            device=self._embedding.device,
            dtype=self._embedding.dtype,
        )

    def hidden_states(self, source: TokenSource, places: TokenPlaces, pages: Tensor, plan: DevicePlan) -> Tensor:
        """One forward pass → [num_rows, hidden_size], before the last norm.

        Args:
            pages: the whole cache, see `runtime.attention.pages`; the rows' keys and values are written to it.
        """
        operations = self._operations
        hidden = operations.embed(source, self._embedding)
        for index, layer in enumerate(self._layers):
            heads = operations.norm_linear(hidden, layer.attention_norm, layer.qkv)
            query = operations.rotate_and_store(heads, places, self._rotary, layer.head_norms, pages[index])
            attended = torch.empty_like(query)
            plan.attend(index, query, attended)
            operations.add_linear(hidden, attended.flatten(1), layer.output)
            operations.feed_forward(hidden, layer.mlp_norm, layer.gate_up, layer.down)
        return hidden

    def final(self, hidden: Tensor) -> Tensor:
        """[num_rows, hidden_size] → the same after the last norm, float32: what embeddings are made of."""
        return self._norm(hidden).float()

    def logits(self, hidden: Tensor) -> tuple[Tensor]:
        """[num_rows, hidden_size] → [num_rows, vocab_size], in the weights' dtype."""
        return (self._operations.norm_linear(hidden, self._norm, self._head),)


def _build_layer(config: ModelConfig, parameters: Mapping[str, Tensor], prefix: str) -> FusedLayer:
    def linear(name: str) -> AnyLinear:
        return build_linear(config, parameters, f"{prefix}{name}")

    def norm(name: str) -> RMSNorm:
        return RMSNorm(parameters[f"{prefix}{name}.weight"], config.rms_norm_eps)

    return FusedLayer(
        attention_norm=norm("attention_norm"),
        qkv=linear("qkv"),
        head_norms=(norm("query_norm"), norm("key_norm")) if config.qk_norm else None,
        output=linear("output"),
        mlp_norm=norm("mlp_norm"),
        gate_up=linear("gate_up"),
        down=linear("down"),
    )
