"""The linear layer: rows times a matrix, plus a bias if the model has one."""

from dataclasses import dataclass

import torch.nn.functional as functional
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Linear:
    """weight: [out, in], any strides; bias: [out] or None; both of the input's dtype."""

    weight: Tensor
    bias: Tensor | None = None

    def __call__(self, rows: Tensor) -> Tensor:
        """[num_rows, in] → [num_rows, out]. Capture-safe."""
        return functional.linear(rows, self.weight, self.bias)
