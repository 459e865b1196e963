"""Muon for matrices, AdamW for everything else.

Muon keeps a momentum of the gradient and takes its orthogonal part as the step, found by a Newton-Schulz iteration; it
needs roughly half the tokens that AdamW does on small models, which is what counts where training runs on a CPU.
Embeddings and gains are not linear maps between hidden states and stay with AdamW.

Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; Loshchilov and Hutter 2019.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

_QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalize(matrix: Tensor, num_iterations: int = 5) -> Tensor:
    """Return a matrix near the closest one whose singular values are all 1 (they come out between about 0.7 and 1.2).

    Args:
        matrix: [rows, columns] float32; not changed.
    """
    a, b, c = _QUINTIC
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    estimate: Tensor = wide / (wide.norm() + 1e-7)
    for _ in range(num_iterations):
        gram = estimate @ estimate.T
        estimate = a * estimate + (b * gram + c * gram @ gram) @ estimate
    return estimate if matrix.shape[0] <= matrix.shape[1] else estimate.T


class MuonAdamW:
    """One optimizer over a model's parameters: Muon for hidden matrices, AdamW for the rest.

    State is plain tensors by parameter name, so that it can be stored without pickle.
    """

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, nn.Parameter]],
        *,
        muon_lr: float = 0.02,
        adam_lr: float = 0.004,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.05,
    ) -> None:
        """A two-dimensional parameter is Muon's unless its name says embedding."""
        self.parameters = dict(named_parameters)
        self.muon_lr, self.adam_lr, self.momentum, self.betas = muon_lr, adam_lr, momentum, betas
        self.weight_decay = weight_decay
        self.num_steps, self.scale = 0, 1.0
        self.state: dict[str, Tensor] = {}
        for name, parameter in self.parameters.items():
            if self._is_muon(name, parameter):
                self.state[f"{name}.momentum"] = torch.zeros_like(parameter)
            else:
                self.state[f"{name}.first"] = torch.zeros_like(parameter)
                self.state[f"{name}.second"] = torch.zeros_like(parameter)

    @staticmethod
    def _is_muon(name: str, parameter: Tensor) -> bool:
        return parameter.dim() == 2 and "embed" not in name

    def begin_step(self, scale: float) -> None:
        """Count a step whose learning rates are multiplied by `scale`; `update` follows for every parameter."""
        self.num_steps += 1
        self.scale = scale

    @torch.no_grad()
    def update(self, name: str, gradient: Tensor) -> None:
        """Move one parameter by its gradient. Parameters are independent, so threads may share the work."""
        parameter = self.parameters[name]
        if self._is_muon(name, parameter):
            self._muon_step(name, parameter, gradient, self.muon_lr * self.scale)
        else:
            self._adam_step(name, parameter, gradient, self.adam_lr * self.scale)

    def _muon_step(self, name: str, parameter: Tensor, gradient: Tensor, lr: float) -> None:
        momentum = self.state[f"{name}.momentum"]
        momentum.lerp_(gradient, 1 - self.momentum)
        nesterov = gradient.lerp(momentum, self.momentum)
        tallness = max(1.0, parameter.shape[0] / parameter.shape[1]) ** 0.5
        parameter.mul_(1 - lr * self.weight_decay)
        parameter.add_(orthogonalize(nesterov), alpha=-lr * tallness)

    def _adam_step(self, name: str, parameter: Tensor, gradient: Tensor, lr: float) -> None:
        first, second = self.state[f"{name}.first"], self.state[f"{name}.second"]
        first.lerp_(gradient, 1 - self.betas[0])
        second.lerp_(gradient.square(), 1 - self.betas[1])
        unbiased_first = first / (1 - self.betas[0] ** self.num_steps)
        unbiased_second = second / (1 - self.betas[1] ** self.num_steps)
        parameter.addcdiv_(unbiased_first, unbiased_second.sqrt_().add_(1e-10), value=-lr)
