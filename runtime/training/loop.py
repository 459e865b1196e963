"""The training loop: steps, progress, checkpoints, resumption.

It knows nothing of what it trains: anything with named parameters and a `loss(tokens, targets)` that sums over learnt
positions will do, the demo model now and a draft head later. A run that was interrupted continues from its last
checkpoint and ends with the weights that it would have had.
"""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from runtime.training.documents import Documents, cut_rows, plan_steps
from runtime.training.muon import MuonAdamW
from runtime.training.schedule import WarmHoldDecay


class Trainable(Protocol):
    """What the loop asks of a model."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """All parameters, tied ones once."""

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Sum of the loss over the positions whose target is not -1."""


@dataclass(frozen=True)
class TrainingPlan:
    """Everything that decides the weights, besides model and documents."""

    num_steps: int
    tokens_per_step: int = 8192
    tokens_per_block: int = 2048
    muon_lr: float = 0.02
    adam_lr: float = 0.004
    weight_decay: float = 0.05
    decay_share: float = 0.5
    clip_norm: float = 1.0
    seed: int = 1


@dataclass(frozen=True)
class Progress:
    """One report of a running training."""

    step: int
    num_steps: int
    loss: float
    tokens_per_s: float
    remaining_s: float


def pin_arithmetic(num_threads: int | None) -> None:
    """Ask torch for deterministic algorithms, for this process; `num_threads` of None keeps torch's own choice."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    if num_threads is not None:
        torch.set_num_threads(num_threads)


class Training:
    """One run of one model over one set of documents."""

    def __init__(
        self, model: Trainable, documents: Documents, plan: TrainingPlan, *, device: str, state: Path | None
    ) -> None:
        """Continue from the file `state` where it exists; `device` is where the model's parameters are already."""
        self.model, self.documents, self.plan, self.device, self.state_path = model, documents, plan, device, state
        self.optimizer = MuonAdamW(
            model.named_parameters(),
            muon_lr=plan.muon_lr,
            adam_lr=plan.adam_lr,
            weight_decay=plan.weight_decay,
        )
        self.schedule = WarmHoldDecay(plan.num_steps, decay_share=plan.decay_share)
        if state is not None and state.exists():
            self._load(state)

    def run(self, report: Callable[[Progress], None], *, save_every: int = 100) -> None:
        """Train to the end of the plan, reporting each step and saving the state now and then."""
        plan = self.plan
        done = self.optimizer.num_steps
        steps = plan_steps(
            self.documents, num_steps=plan.num_steps, tokens_per_step=plan.tokens_per_step, seed=plan.seed
        )
        started, num_tokens = time.monotonic(), 0
        for step, chosen in enumerate(steps):
            if step < done:
                continue
            loss = self._step(step, chosen)
            num_tokens += sum(self.documents.size(index) for index in chosen)
            elapsed = time.monotonic() - started
            remaining = elapsed / (step + 1 - done) * (plan.num_steps - step - 1)
            report(Progress(step + 1, plan.num_steps, loss, num_tokens / elapsed, remaining))
            if self.state_path is not None and (step + 1) % save_every == 0:
                self._save(self.state_path)

    def _step(self, step: int, chosen: list[int]) -> float:
        """Accumulate the gradient of all blocks, clip it, apply it; return the mean loss of a learnt token."""
        total, num_learnt = 0.0, 0
        for rows in cut_rows(self.documents, chosen, self.plan.tokens_per_block):
            loss = self.model.loss(rows.tokens.to(self.device), rows.targets.to(self.device))
            torch.autograd.backward(loss)
            total += float(loss.detach())
            num_learnt += int((rows.targets >= 0).sum())
        gradients = [parameter.grad for _, parameter in self.model.named_parameters() if parameter.grad is not None]
        norm = float(torch.linalg.vector_norm(torch.stack([gradient.norm() for gradient in gradients]))) / num_learnt
        factor = min(1.0, self.plan.clip_norm / (norm + 1e-6)) / num_learnt
        for gradient in gradients:
            gradient.mul_(factor)
        self.optimizer.step(self.schedule.scale(step))
        for _, parameter in self.model.named_parameters():
            parameter.grad = None
        return total / num_learnt

    def _save(self, path: Path) -> None:
        """Write parameters and optimizer state to one file, replacing the last one in one move."""
        tensors = {f"parameter/{name}": parameter.detach() for name, parameter in self.model.named_parameters()}
        tensors.update({f"optimizer/{name}": value for name, value in self.optimizer.state.items()})
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, fresh, {"step": str(self.optimizer.num_steps)})
        os.replace(fresh, path)

    @torch.no_grad()
    def _load(self, path: Path) -> None:
        with safe_open(path, framework="pt") as held:
            self.optimizer.num_steps = int(held.metadata()["step"])
            for name, parameter in self.model.named_parameters():
                parameter.copy_(held.get_tensor(f"parameter/{name}"))
            for name, value in self.optimizer.state.items():
                value.copy_(held.get_tensor(f"optimizer/{name}"))
