"""The gated activation of the feed-forward layer. Source: SwiGLU, Shazeer 2020."""

import torch.nn.functional as functional
from torch import Tensor


def silu_and_multiply(gate_up: Tensor) -> Tensor:
    """[num_rows, 2 * inner], gate before up → silu(gate) * up, [num_rows, inner]. Capture-safe."""
    inner = gate_up.shape[-1] // 2
    return functional.silu(gate_up[:, :inner]).mul_(gate_up[:, inner:])
