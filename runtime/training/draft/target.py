"""The target in a form that training can ask: whole texts in, hidden states and logits out, nothing kept. Every model that is
served can be a target, quantized ones too.

Which hidden states a head reads is said by three numbers: a state *after n layers* is the residual stream when n decoder
layers have added to it, before the next one and before any norm. Where a head does not name them they are those of SGLang and
vLLM: after 2, L // 2 and L - 3 of L layers. In a head's `config.json` SGLang's `eagle_config.eagle_aux_hidden_state_layer_ids`
counts one less (the index of the layer whose output it is) than vLLM's top-level key of that name.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from runtime.layers.rotary import RotaryTable
from runtime.runner.whole_texts import WholeTexts, load_whole_texts
from runtime.weights.loading import Progress


@dataclass(frozen=True)
class TargetRows:
    """What the target says of a block of texts."""

    captured: Tensor
    """[batch, length, 3 * hidden_size] float32."""
    last: Tensor
    """[batch, length, hidden_size], after all layers; see `Target.logits`."""


class Target:
    """One model, and what a head shares with it."""

    def __init__(self, texts: WholeTexts, *, num_positions: int) -> None:
        """
        Args:
            num_positions: of the head's entries, of which the last steps stand behind the longest text.
        """
        self.config = texts.config
        self._texts = texts
        self.embedding = texts.parameters["embedding.weight"]
        """[vocab_size, hidden_size], which the head shares."""
        self.norm = texts.parameters["norm.weight"]
        """[hidden_size], of the last norm."""
        head = texts.parameters.get("head.weight")
        self.head = self.embedding if head is None or not head.dtype.itemsize > 1 else head
        """[vocab_size, hidden_size], what a head begins with; the embedding where the output matrix is quantized."""
        config = texts.config
        self.rotary = RotaryTable(
            config.rope, config.head_dim, num_positions, device=self.embedding.device, dtype=torch.float32
        )
        """Of the head's entries."""

    @torch.no_grad()
    def read(self, tokens: Tensor, captured_layers: Sequence[int]) -> TargetRows:
        """One pass over right-padded [batch, length] int64. Capture-safe."""
        states = self._texts.states(tokens)
        captured = torch.cat([states[after] for after in captured_layers], dim=-1).float()
        return TargetRows(captured, states[-1])

    def logits(self, last: Tensor) -> Tensor:
        """`TargetRows.last` at some places [batch, count, hidden_size] → [batch, count, vocab_size] float32. Capture-safe."""
        return self._texts.logits(last)

    def embed(self, tokens: Tensor) -> Tensor:
        """Token ids of any shape → [..., hidden_size] float32."""
        return functional.embedding(tokens, self.embedding).float()


def load_target(folder: Path, *, device: str, num_positions: int, progress: Progress | None = None) -> Target:
    """Read a model folder as serving does.

    Args:
        num_positions: width of the widest block, and the steps of drafting.
    Raises: CheckpointRejected for the folder, EngineMisconfigured for the device.
    """
    texts = load_whole_texts(folder, device=device, num_positions=num_positions, progress=progress)
    return Target(texts, num_positions=num_positions)
