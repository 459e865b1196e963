"""The training loop: steps, progress, checkpoints, resumption.

It knows nothing of what it trains: anything with named parameters and a `loss(tokens, targets)` that sums over learnt
positions will do, the demo model now and a draft head later. A run that was interrupted continues from its last
checkpoint and ends with the weights that it would have had.
"""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from runtime.training.documents import Documents, Rows, cut_rows, plan_steps
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

    cycles: tuple[int, ...]
    tokens_per_step: int = 8192
    tokens_per_block: int = 1024
    muon_lr: float = 0.02
    adam_lr: float = 0.004
    weight_decay: float = 0.1
    num_warmup: int = 50
    decay_share: float = 0.7
    clip_norm: float = 1.0
    seed: int = 1

    @property
    def num_steps(self) -> int:
        """Steps of all cycles together."""
        return sum(self.cycles)


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
    # Nothing here reads memory that it has not written; filling it first would cost a few per cent.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.set_flush_denormal(True)
    if num_threads is not None:
        torch.set_num_threads(num_threads)


def pick_device() -> str:
    """`cuda` where torch sees a GPU, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def describe_device(device: str) -> str:
    """The hardware and the library that a run used, in words."""
    if device.startswith("cuda"):
        hardware = torch.cuda.get_device_name(device)
    else:
        hardware = f"CPU ({torch.backends.cpu.get_cpu_capability()}), {torch.get_num_threads()} threads"
    return f"{hardware}, torch {torch.__version__}, float32"


class Training:
    """One run of one model over one set of documents."""

    def __init__(
        self,
        model: Trainable,
        documents: Documents,
        plan: TrainingPlan,
        *,
        device: str,
        num_workers: int = 1,
        state: Path | None = None,
    ) -> None:
        """Continue from the file `state` where it exists.

        Args:
            device: where the model's parameters are already.
            num_workers: threads that each compute the gradient of their share of a step's blocks. On a CPU one a core:
                they meet once a step, where torch's own threads meet in every operation, which costs most of the speed
                as soon as something else runs on the machine. The sums' order, and so the weights' last digits,
                depends on it.
        """
        self.num_workers = num_workers
        self.model, self.documents, self.plan, self.device, self.state_path = model, documents, plan, device, state
        self.optimizer = MuonAdamW(
            model.named_parameters(),
            muon_lr=plan.muon_lr,
            adam_lr=plan.adam_lr,
            weight_decay=plan.weight_decay,
        )
        self.elapsed_s = 0.0
        self.schedule = WarmHoldDecay(plan.cycles, num_warmup=plan.num_warmup, decay_share=plan.decay_share)
        if state is not None and state.exists():
            self._load(state)

    def run(self, report: Callable[[Progress], None], *, save_every: int = 100) -> None:
        """Train to the end of the plan, reporting each step and saving the state now and then.

        `elapsed_s` is the time of all runs together that led to these weights.
        """
        plan = self.plan
        done = self.optimizer.num_steps
        num_threads = torch.get_num_threads()
        torch.set_num_threads(max(1, num_threads // self.num_workers))
        steps = plan_steps(
            self.documents, num_steps=plan.num_steps, tokens_per_step=plan.tokens_per_step, seed=plan.seed
        )
        started, before, num_tokens = time.monotonic(), self.elapsed_s, 0
        workers = ThreadPoolExecutor(self.num_workers, initializer=torch.set_flush_denormal, initargs=(True,))
        for step, chosen in enumerate(steps):
            if step < done:
                continue
            loss = self._step(step, chosen, workers)
            num_tokens += sum(self.documents.size(index) for index in chosen)
            elapsed = time.monotonic() - started
            remaining = elapsed / (step + 1 - done) * (plan.num_steps - step - 1)
            self.elapsed_s = before + elapsed
            report(Progress(step + 1, plan.num_steps, loss, num_tokens / elapsed, remaining))
            if self.state_path is not None and (step + 1) % save_every == 0:
                self._save(self.state_path)
        workers.shutdown()
        torch.set_num_threads(num_threads)

    def _step(self, step: int, chosen: list[int], workers: ThreadPoolExecutor) -> float:
        """Sum the gradients of all blocks, clip, apply; return the mean loss of a learnt token."""
        blocks = list(cut_rows(self.documents, chosen, self.plan.tokens_per_block))
        num_learnt = sum(int((rows.targets >= 0).sum()) for rows in blocks)
        shares = [blocks[first :: self.num_workers] for first in range(min(self.num_workers, len(blocks)))]
        results = list(workers.map(self._gradients, shares))
        gradients = results[0][1]
        for _, others in results[1:]:
            torch._foreach_add_(gradients, others)
        norm = float(torch.linalg.vector_norm(torch.stack([gradient.norm() for gradient in gradients]))) / num_learnt
        factor = min(1.0, self.plan.clip_norm / (norm + 1e-6)) / num_learnt
        torch._foreach_mul_(gradients, factor)
        names = list(self.optimizer.parameters)
        self.optimizer.begin_step(self.schedule.scale(step))
        list(workers.map(self.optimizer.update, names, gradients))
        return sum(loss for loss, _ in results) / num_learnt

    def _gradients(self, blocks: list[Rows]) -> tuple[float, list[Tensor]]:
        """One worker's share: the summed loss and its gradient by every parameter."""
        parameters = list(self.optimizer.parameters.values())
        total, summed = 0.0, [torch.zeros_like(parameter) for parameter in parameters]
        for rows in blocks:
            loss = self.model.loss(rows.tokens.to(self.device), rows.targets.to(self.device))
            torch._foreach_add_(summed, torch.autograd.grad(loss, parameters))
            total += float(loss.detach())
        return total, summed

    def _save(self, path: Path) -> None:
        """Write parameters and optimizer state to one file, replacing the last one in one move."""
        tensors = {f"parameter/{name}": parameter.detach() for name, parameter in self.model.named_parameters()}
        tensors.update({f"optimizer/{name}": value for name, value in self.optimizer.state.items()})
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        metadata = {"step": str(self.optimizer.num_steps), "elapsed_s": f"{self.elapsed_s:.1f}"}
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, fresh, metadata)
        os.replace(fresh, path)

    @torch.no_grad()
    def _load(self, path: Path) -> None:
        with safe_open(path, framework="pt") as held:
            metadata = held.metadata()
            self.optimizer.num_steps = int(metadata["step"])
            self.elapsed_s = float(metadata["elapsed_s"])
            for name, parameter in self.model.named_parameters():
                parameter.copy_(held.get_tensor(f"parameter/{name}"))
            for name, value in self.optimizer.state.items():
                value.copy_(held.get_tensor(f"optimizer/{name}"))
