"""A model over whole texts: padded rows in, hidden states and logits out, no cache and no sampling.

It is the serving engine's own decoder under its own weights, so what is read here is what is served, quantized or not. For
whoever must see all places of a text at once: the training of draft heads, and the comparison of two forms of one model.
Arithmetic is that of the reference (plain torch) on every device; no gradient reaches the model.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from runtime.models.decoder import Decoder
from runtime.runner.building import apply_quantization, resolve_device, resolve_dtype
from runtime.weights.config import ModelConfig, load_model_config
from runtime.weights.folder import verify_model_folder
from runtime.weights.loading import Progress, load_weights


class WholeTexts:
    """One model, frozen."""

    def __init__(self, config: ModelConfig, parameters: Mapping[str, Tensor], *, num_positions: int) -> None:
        """
        Args:
            parameters: by the names of `runtime.weights.layout`.
            num_positions: width of the widest block.
        """
        self.config, self.parameters = config, parameters
        self._model = Decoder(config, parameters, num_positions=num_positions)
        self._embedding = parameters["embedding.weight"]

    @torch.no_grad()
    def states(self, tokens: Tensor) -> list[Tensor]:
        """One pass over right-padded [batch, length] int64.

        Returns: the residual stream after 0, 1, … all layers, each [batch, length, hidden_size]. Capture-safe.
        """
        batch, length = tokens.shape
        # Padding may reach beyond the model's last position.
        columns = torch.arange(length, device=tokens.device).clamp(max=self._model.rotary.num_positions - 1)
        cosines, sines = self._model.rotary.at(columns.repeat(batch))
        attend = _Dense(batch, length, self.config.layer_windows)
        states = [functional.embedding(tokens.flatten(), self._embedding)]
        for index, layer in enumerate(self._model.layers):
            attended = attend(index, *layer.project(states[-1], cosines, sines))
            states.append(layer.finish(states[-1], attended)[0])
        return [state.view(batch, length, -1) for state in states]

    @torch.no_grad()
    def logits(self, last: Tensor) -> Tensor:
        """The last of `states` at some places [batch, count, hidden_size] → [batch, count, vocab_size] float32. Capture-safe."""
        (logits,) = self._model.logits(last.flatten(0, 1))
        return logits.view(*last.shape[:2], -1)


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
            for_queries(self._rows(key), group),
            for_queries(self._rows(value), group),
            attn_mask=mask,
            is_causal=mask is None,
        )
        return mixed.transpose(1, 2).reshape(query.shape)

    def _rows(self, heads: Tensor) -> Tensor:
        rows: Tensor = heads.unflatten(0, (self._batch, self._length))
        return rows.transpose(1, 2)


def for_queries(heads: Tensor, group: int) -> Tensor:
    """[batch, num_kv_heads, length, head_dim] → each head repeated for the `group` query heads that read it. Capture-safe."""
    return heads[:, :, None].expand(-1, -1, group, -1, -1).flatten(1, 2)


def load_whole_texts(
    folder: Path, *, device: str, num_positions: int, quantization: str = "auto", progress: Progress | None = None
) -> WholeTexts:
    """Read a model folder as serving does.

    Args:
        num_positions: width of the widest block.
        quantization: as in `runtime.settings`.
    Raises: CheckpointRejected for the folder, EngineMisconfigured for the device.
    """
    verify_model_folder(folder)
    config = apply_quantization(load_model_config(folder), quantization)
    place = resolve_device(device)
    dtype = resolve_dtype("auto", device, config)
    weights = load_weights(folder, config, device=place, dtype=dtype, progress=progress)
    return WholeTexts(config, weights.parameters, num_positions=num_positions)
