"""The decoder of the Llama family as a GPU runs it: the same mathematics as `decoder`, cut into fused operations.

One layer is five operations and the attention between them; everything is enqueued in order on one stream and may be
captured. What comes before a layer's attention (`advance`) depends on the number of rows alone and works on memory that the
caller gives, so it can be captured where attention cannot. What comes behind the last attention (`finish`) is a matter of each
row by itself, and is computed for those rows only that somebody asks for. Where several ranks share the model, what they add to
the residual stream is summed up behind each product, and their logits are joined (`DeviceGroup`).

Weights are those of `decoder`: the two classes
share every tensor, and each is tested against the other.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from runtime.attention.device import DevicePlan
from runtime.layers.norm import RMSNorm
from runtime.layers.quantized import AnyLinear
from runtime.layers.rotary import RotaryTable
from runtime.models.operations import Operations, TokenPlaces, TokenSource
from runtime.models.parts import build_head, build_linear
from runtime.parallel.device_group import DeviceGroup, Sum
from runtime.weights.config import ModelConfig
from runtime.weights.shares import WHOLE, cuts_head


@dataclass(frozen=True, slots=True)
class StepRows:
    """The rows of a step on their way through the layers."""

    source: TokenSource
    places: TokenPlaces
    hidden: Tensor
    """[num_rows, hidden_size]: the residual stream."""
    query: Tensor
    """[num_rows, num_heads, head_dim]: what a layer's attention asks."""
    attended: Tensor
    """As `query`: what it answers."""
    captured: Tensor | None = None
    """[num_rows, len(captured_layers) * hidden_size]: what a draft head reads, side by side; None: nobody does."""


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
        cache_scales: Tensor | None = None,
        captured_layers: tuple[int, ...] = (),
        group: DeviceGroup | None = None,
    ) -> None:
        """
        Args:
            config: what this rank computes, see `share_config`.
            parameters: by the names of `runtime.weights.layout`, on one device.
            num_positions: bound of the positions that may occur.
            cache_scales: of a cache in e4m3, see `runtime.attention.pages`.
            captured_layers: after how many layers the hidden states are kept that a draft head reads.
            group: the ranks that share the model; None: this one has all of it.
        """
        self._group = group
        self._captured_layers = captured_layers
        self._operations = operations
        self._cache_scales = cache_scales
        self._embedding = parameters["embedding.weight"]
        self._layers = [_build_layer(config, parameters, f"layers.{index}.") for index in range(config.num_layers)]
        self._norm = RMSNorm(parameters["norm.weight"], config.rms_norm_eps)
        share = WHOLE if group is None else group.share
        self._head = build_head(config, parameters, share)
        self._joins_logits = cuts_head(config, share)
        self._vocab_size = config.vocab_size
        self._rotary = RotaryTable(
            config.rope,
            config.head_dim,
            min(num_positions, config.max_position),
            device=self._embedding.device,
            dtype=self._embedding.dtype,
        )

    @property
    def num_layers(self) -> int:
        """Of the model; a draft head has its own."""
        return len(self._layers)

    @property
    def num_positions(self) -> int:
        """Bound of the positions that may occur."""
        return self._rotary.num_positions

    @property
    def keeps_last(self) -> bool:
        """Whether a draft head reads what comes out of the last layer, for all rows."""
        return self.num_layers in self._captured_layers

    @property
    def dtype(self) -> torch.dtype:
        """Of activations."""
        return self._embedding.dtype

    def run(self, rows: StepRows, pages: Tensor, plan: DevicePlan) -> None:
        """All of a forward pass up to and with the last attention; `finish` is left.

        Args:
            pages: the whole cache, see `runtime.attention.pages`; the rows' keys and values are written to it.
        """
        for index in range(self.num_layers):
            self.advance(index, rows, pages)
            plan.attend(index, rows.query, rows.attended)

    def advance(self, index: int, rows: StepRows, pages: Tensor) -> None:
        """What comes before the attention of layer `index`, and behind that of the layer before it. Capture-safe.

        The first begins with the embeddings.
        """
        if index == 0:
            self._operations.embed(rows.source, self._embedding, rows.hidden)
        else:
            self._end_layer(self._layers[index - 1], rows.hidden, rows.attended)
        self._keep(index, rows)
        layer = self._layers[index]
        heads = self._operations.norm_linear(rows.hidden, layer.attention_norm, layer.qkv)
        scales = None if self._cache_scales is None else self._cache_scales[index]
        self._operations.rotate_and_store(
            heads, rows.places, self._rotary, layer.head_norms, pages[index], rows.query, scales
        )

    def finish_all(self, rows: StepRows) -> None:
        """The end of the last layer, for all rows: `rows.hidden` is then as before the last norm. Capture-safe."""
        self.finish(rows.hidden, rows.attended)
        self._keep(self.num_layers, rows)

    def finish(self, hidden: Tensor, attended: Tensor) -> None:
        """The same for some rows of `StepRows.hidden` and `attended`, of which nothing is kept for a draft head."""
        self._end_layer(self._layers[-1], hidden, attended)

    def _end_layer(self, layer: FusedLayer, hidden: Tensor, attended: Tensor) -> None:
        part = self._part(Sum.ATTENTION, hidden)
        self._operations.add_linear(hidden, attended.flatten(1), layer.output, part)
        self._add_up(Sum.ATTENTION, hidden)
        part = self._part(Sum.FEED_FORWARD, hidden)
        self._operations.feed_forward(hidden, layer.mlp_norm, layer.gate_up, layer.down, part)
        self._add_up(Sum.FEED_FORWARD, hidden)

    def _part(self, which: Sum, hidden: Tensor) -> Tensor | None:
        return None if self._group is None else self._group.part(which, len(hidden))

    def _add_up(self, which: Sum, hidden: Tensor) -> None:
        if self._group is not None:
            self._group.add_sum(which, hidden)

    def _keep(self, index: int, rows: StepRows) -> None:
        """For a draft head, if it reads what comes out of so many layers."""
        if rows.captured is not None and index in self._captured_layers:
            size, place = rows.hidden.shape[1], self._captured_layers.index(index)
            rows.captured[:, place * size : (place + 1) * size].copy_(rows.hidden)

    def final(self, hidden: Tensor) -> Tensor:
        """[num_rows, hidden_size] → the same after the last norm, float32: what embeddings are made of."""
        return self._norm(hidden).float()

    def logits(self, hidden: Tensor, out: Tensor | None = None) -> tuple[Tensor]:
        """[num_rows, hidden_size] → [num_rows, vocab_size], in the weights' dtype; `out`, if it is given."""
        if self._group is None or not self._joins_logits:
            return (self._operations.norm_linear(hidden, self._norm, self._head, out),)
        self._operations.norm_linear(hidden, self._norm, self._head, self._group.logits_part(len(hidden)))
        joined = hidden.new_empty(len(hidden), self._vocab_size) if out is None else out
        self._group.join_logits(joined)
        return (joined,)


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
