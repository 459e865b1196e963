"""Root mean square normalization. Source: Zhang and Sennrich 2019."""

from dataclasses import dataclass

import torch.nn.functional as functional
from torch import Tensor


@dataclass(frozen=True, slots=True)
class RMSNorm:
    """weight: [dim]; eps is added to the mean square."""

    weight: Tensor
    eps: float

    def __call__(self, rows: Tensor) -> Tensor:
        """[..., dim] → [..., dim], in the input's dtype, accumulated in float32. Capture-safe."""
        return functional.rms_norm(rows, (self.weight.shape[0],), self.weight, self.eps)
