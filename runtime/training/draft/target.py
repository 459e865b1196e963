"""The target in a form that training can ask: whole texts in, hidden states and logits out, nothing kept.

It is the serving engine's own model under its own weights, run over padded rows without a cache, so every model that is
served can be a target, quantized ones too. No gradient reaches it.

Which hidden states a head reads is said by three numbers: a state *after n layers* is the residual stream when n decoder
layers have added to it, before the next one and before any norm. Where a head does not name them they are those of SGLang and
vLLM: after 2, L // 2 and L - 3 of L layers. In a head's `config.json` SGLang's `eagle_config.eagle_aux_hidden_state_layer_ids`
counts one less (the index of the layer whose output it is) than vLLM's top-level key of that name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from runtime.errors import EngineMisconfigured
from runtime.layers.rotary import RotaryTable
from runtime.models.decoder import Decoder
from runtime.runner.building import resolve_device, resolve_dtype
from runtime.weights.config import ModelConfig, load_model_config
from runtime.weights.folder import verify_model_folder
from runtime.weights.loading import Progress, load_weights


@dataclass(frozen=True)
class TargetRows:
    """What the target says of a block of texts."""

    captured: Tensor
    """[batch, length, 3 * hidden_size] float32."""
    logits: Tensor
    """[batch, length, vocab_size] float32; row i is of the token after i."""


def default_layers(num_layers: int) -> tuple[int, ...]:
    """The three places after which heads read that do not say otherwise.

    Raises: EngineMisconfigured where a model is too shallow for them.
    """
    layers = (2, num_layers // 2, num_layers - 3)
    if len(set(layers)) < len(layers) or min(layers) < 1:
        raise EngineMisconfigured(
            f"a model of {num_layers} layers has no three default places for a head to read from: name them with --layers"
        )
    return layers


class Target:
    """One model, frozen."""

    def __init__(self, config: ModelConfig, parameters: Mapping[str, Tensor], *, num_positions: int) -> None:
        """
        Args:
            parameters: by the names of `runtime.weights.layout`.
            num_positions: of the head's entries, of which the last steps stand behind the longest text.
        """
        self.config = config
        self._model = Decoder(config, parameters, num_positions=num_positions)
        self.embedding = parameters["embedding.weight"]
        """[vocab_size, hidden_size], which the head shares."""
        self.norm = parameters["norm.weight"]
        """[hidden_size], of the last norm."""
        head = parameters.get("head.weight")
        self.head = self.embedding if head is None or not head.dtype.itemsize > 1 else head
        """[vocab_size, hidden_size], what a head begins with; the embedding where the output matrix is quantized."""
        self.rotary = RotaryTable(
            config.rope, config.head_dim, num_positions, device=self.embedding.device, dtype=torch.float32
        )
        """Of the head's entries."""

    @torch.no_grad()
    def read(self, tokens: Tensor, captured_layers: Sequence[int]) -> TargetRows:
        """One pass over right-padded [batch, length] int64. Capture-safe."""
        batch, length = tokens.shape
        # Padding may reach beyond the model's last position.
        positions = (
            torch.arange(length, device=tokens.device).clamp(max=self._model.rotary.num_positions - 1).repeat(batch)
        )
        attend = _Dense(batch, length, self.config.layer_windows)
        states = self._states(tokens.flatten(), positions, attend)
        captured = torch.cat([states[after] for after in captured_layers], dim=-1).float()
        (logits,) = self._model.logits(states[-1])
        return TargetRows(captured.view(batch, length, -1), logits.view(batch, length, -1))

    def embed(self, tokens: Tensor) -> Tensor:
        """Token ids of any shape → [..., hidden_size] float32."""
        return functional.embedding(tokens, self.embedding).float()

    def _states(self, ids: Tensor, positions: Tensor, attend: "_Dense") -> list[Tensor]:
        """The residual stream after 0, 1, … all layers, each [rows, hidden_size]."""
        cosines, sines = self._model.rotary.at(positions)
        states = [functional.embedding(ids, self.embedding)]
        for index, layer in enumerate(self._model.layers):
            attended = attend(index, *layer.project(states[-1], cosines, sines))
            states.append(layer.finish(states[-1], attended)[0])
        return states


class _Dense:
    """Causal attention within each row of a block."""

    def __init__(self, batch: int, length: int, windows: Sequence[int | None]) -> None:
        self._batch, self._length, self._windows = batch, length, windows

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Shapes as in `runtime.models.decoder.Attend`."""
        window = self._windows[layer]
        mask = None
        if window is not None and window < self._length:
            ones = torch.ones(self._length, self._length, dtype=torch.bool, device=query.device)
            mask = ones.tril() & ones.triu(1 - window)
        group = query.shape[1] // key.shape[1]
        mixed = functional.scaled_dot_product_attention(
            self._rows(query),
            self._rows(key).repeat_interleave(group, dim=1),
            self._rows(value).repeat_interleave(group, dim=1),
            attn_mask=mask,
            is_causal=mask is None,
        )
        return mixed.transpose(1, 2).reshape(query.shape)

    def _rows(self, heads: Tensor) -> Tensor:
        rows: Tensor = heads.unflatten(0, (self._batch, self._length))
        return rows.transpose(1, 2)


def load_target(folder: Path, *, device: str, num_positions: int, progress: Progress | None = None) -> Target:
    """Read a model folder as serving does.

    Args:
        num_positions: width of the widest block, and the steps of drafting.
    Raises: CheckpointRejected for the folder, EngineMisconfigured for the device.
    """
    verify_model_folder(folder)
    config = load_model_config(folder)
    place = resolve_device(device)
    weights = load_weights(folder, config, device=place, dtype=resolve_dtype("auto", device, config), progress=progress)
    return Target(config, weights.parameters, num_positions=num_positions)
