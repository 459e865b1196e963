"""The training loop: steps, progress, checkpoints, resumption.

It knows nothing of what it trains: anything with named parameters and a `loss(tokens, targets)` that sums over learnt
positions will do, the demo model now and a draft head later. A run that was interrupted continues from its last
checkpoint and ends with the weights that it would have had.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from runtime.training.documents import Documents, cut_rows
from runtime.training.gradients import GradientSum, Trainable
from runtime.training.muon import MuonAdamW
from runtime.training.schedule import WarmHoldDecay
from runtime.training.storing import store_tensors


@dataclass(frozen=True)
class TrainingPlan:
    """Everything that decides the weights, besides model and documents."""

    cycles: tuple[int, ...]
    tokens_per_block: int = 1024
    muon_lr: float = 0.02
    adam_lr: float = 0.004
    weight_decay: float = 0.1
    num_warmup: int = 50
    decay_share: float = 0.7
    clip_norm: float = 1.0

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
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}, bfloat16 products, float32 weights"
    hardware = f"CPU ({torch.backends.cpu.get_cpu_capability()}), {torch.get_num_threads()} threads"
    return f"{hardware}, torch {torch.__version__}, float32"


class Training:
    """One run of one model over the documents of each step."""

    def __init__(
        self,
        model: Trainable,
        steps: Iterable[Documents],
        plan: TrainingPlan,
        gradient_sum: GradientSum,
        *,
        state: Path | None = None,
    ) -> None:
        """Continue from the file `state` where it exists.

        Args:
            model: on its device already.
            steps: the documents of every step from the first on, at least as many as the plan has.
        """
        self.model, self.steps, self.plan, self.gradient_sum, self.state_path = model, steps, plan, gradient_sum, state
        self.optimizer = MuonAdamW(
            model.named_parameters(),
            muon_lr=plan.muon_lr,
            adam_lr=plan.adam_lr,
            weight_decay=plan.weight_decay,
        )
        self.elapsed_s, self.num_tokens = 0.0, 0
        self.schedule = WarmHoldDecay(plan.cycles, num_warmup=plan.num_warmup, decay_share=plan.decay_share)
        if state is not None and state.exists():
            self._load(state)

    def run(self, report: Callable[[Progress], None], *, report_every: int = 1, save_every: int = 100) -> None:
        """Train to the end of the plan, reporting and saving the state now and then.

        `elapsed_s` is the time of all runs together that led to these weights. A report waits for the device.
        """
        num_steps, done = self.plan.num_steps, self.optimizer.num_steps
        started, before, num_tokens = time.monotonic(), self.elapsed_s, 0
        for step, documents in zip(range(num_steps), self.steps, strict=False):
            self.num_tokens += documents.num_tokens
            if step < done:
                continue
            loss = self._step(step, documents)
            num_tokens += documents.num_tokens
            if (step + 1) % report_every == 0 or step + 1 == num_steps:
                mean = float(loss)
                elapsed = time.monotonic() - started
                self.elapsed_s = before + elapsed
                remaining = elapsed / (step + 1 - done) * (num_steps - step - 1)
                report(Progress(step + 1, num_steps, mean, num_tokens / elapsed, remaining))
            if self.state_path is not None and (step + 1) % save_every == 0:
                self._save(self.state_path)
        if self.optimizer.num_steps != num_steps:
            raise ValueError(f"a plan of {num_steps} steps got documents for {self.optimizer.num_steps}")

    def _step(self, step: int, documents: Documents) -> Tensor:
        """Sum the gradients of all blocks, clip, apply; return the mean loss of a learnt token, still on the device."""
        blocks = list(cut_rows(documents, self.plan.tokens_per_block, whole=self.gradient_sum.whole_blocks))
        num_learnt = documents.num_learnt
        loss, gradients = self.gradient_sum(blocks)
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))) / num_learnt
        torch._foreach_mul_(gradients, (self.plan.clip_norm / (norm + 1e-6)).clamp(max=1.0) / num_learnt)
        self.optimizer.step(gradients, self.schedule.scale(step))
        return loss / num_learnt

    def _save(self, path: Path) -> None:
        """Write parameters and optimizer state to one file, replacing the last one in one move."""
        tensors = {f"parameter/{name}": parameter.detach() for name, parameter in self.model.named_parameters()}
        tensors.update({f"optimizer/{name}": value for name, value in self.optimizer.state.items()})
        metadata = {"step": str(self.optimizer.num_steps), "elapsed_s": f"{self.elapsed_s:.1f}"}
        store_tensors(tensors, path, metadata)

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
