"""Muon for matrices, AdamW for everything else.

Muon keeps a momentum of the gradient and takes its orthogonal part as the step, found by a Newton-Schulz iteration; it
needs roughly half the tokens that AdamW does on small models. Matrices of one shape are stacked and iterated together,
which makes the step a few dozen kernels. Embeddings, output matrices and gains are not linear maps between hidden states and
stay with AdamW.

Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; Loshchilov and Hutter 2019.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

_QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalize(matrices: Tensor, num_iterations: int = 5) -> Tensor:
    """Return matrices near the closest ones whose singular values are all 1 (they come out between about 0.7 and 1.2).

    Args:
        matrices: [..., rows, columns] float32; not changed.
    """
    a, b, c = _QUINTIC
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    estimate: Tensor = matrices.mT if is_tall else matrices
    estimate = estimate / (estimate.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(num_iterations):
        gram = estimate @ estimate.mT
        estimate = a * estimate + (b * gram + c * gram @ gram) @ estimate
    return estimate.mT if is_tall else estimate


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
        """A two-dimensional parameter is Muon's unless its name says embedding or output matrix."""
        self.parameters = dict(named_parameters)
        self.muon_lr, self.adam_lr, self.momentum, self.betas = muon_lr, adam_lr, momentum, betas
        self.weight_decay = weight_decay
        self.num_steps = 0
        self.state: dict[str, Tensor] = {}
        self._matrices: dict[torch.Size, list[str]] = {}
        self._others: list[str] = []
        for name, parameter in self.parameters.items():
            if parameter.dim() == 2 and "embed" not in name and "lm_head" not in name:
                self._matrices.setdefault(parameter.shape, []).append(name)
                self.state[f"{name}.momentum"] = torch.zeros_like(parameter)
            else:
                self._others.append(name)
                self.state[f"{name}.first"] = torch.zeros_like(parameter)
                self.state[f"{name}.second"] = torch.zeros_like(parameter)

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], scale: float) -> None:
        """Move every parameter by its gradient, in the model's order, with learning rates multiplied by `scale`."""
        self.num_steps += 1
        by_name = dict(zip(self.parameters, gradients, strict=True))
        for names in self._matrices.values():
            self._muon_step(names, [by_name[name] for name in names], self.muon_lr * scale)
        self._adam_step(self._others, [by_name[name] for name in self._others], self.adam_lr * scale)

    def _state(self, names: list[str], kind: str) -> list[Tensor]:
        return [self.state[f"{name}.{kind}"] for name in names]

    def _muon_step(self, names: list[str], gradients: list[Tensor], lr: float) -> None:
        """One stack of matrices of equal shape."""
        parameters: list[Tensor] = [self.parameters[name] for name in names]
        momentum = self._state(names, "momentum")
        torch._foreach_lerp_(momentum, gradients, 1 - self.momentum)
        nesterov = torch._foreach_lerp(gradients, momentum, self.momentum)
        tallness = max(1.0, parameters[0].shape[0] / parameters[0].shape[1]) ** 0.5
        torch._foreach_mul_(parameters, 1 - lr * self.weight_decay)
        steps = list(orthogonalize(torch.stack(list(nesterov))).unbind())
        torch._foreach_add_(parameters, steps, alpha=-lr * tallness)

    def _adam_step(self, names: list[str], gradients: list[Tensor], lr: float) -> None:
        parameters: list[Tensor] = [self.parameters[name] for name in names]
        first, second = self._state(names, "first"), self._state(names, "second")
        torch._foreach_lerp_(first, gradients, 1 - self.betas[0])
        torch._foreach_mul_(second, self.betas[1])
        torch._foreach_addcmul_(second, gradients, gradients, 1 - self.betas[1])
        deviations = list(torch._foreach_div(second, 1 - self.betas[1] ** self.num_steps))
        torch._foreach_sqrt_(deviations)
        torch._foreach_add_(deviations, 1e-10)
        torch._foreach_addcdiv_(parameters, first, deviations, -lr / (1 - self.betas[0] ** self.num_steps))
