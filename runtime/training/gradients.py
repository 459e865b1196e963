"""The gradient of one step, summed over its blocks: by threads on a CPU, by captured graphs on a GPU.

A small model's kernels are so short that a GPU waits for Python between them; a CUDA graph of one block's forward and
backward pass, one for each shape of block, takes that away. Matrix products then run in bfloat16 (autocast), sums and
the weights stay in float32.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import torch
from torch import Tensor, nn

from runtime.training.documents import Rows


class Trainable(Protocol):
    """What training asks of a model."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """All parameters, tied ones once."""

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Sum of the loss over the positions whose target is not -1."""


class GradientSum(Protocol):
    """Computes a step's gradient."""

    whole_blocks: bool

    def __call__(self, blocks: Sequence[Rows]) -> tuple[Tensor, list[Tensor]]:
        """The summed loss and its gradient by every parameter, in the model's order; valid until the next call."""


class ThreadedGradients:
    """Plain passes, in float32 unless told otherwise; threads each take a share of the blocks.

    On a CPU one thread a core: they meet once a step, where torch's own threads meet in every operation, which costs most
    of the speed as soon as something else runs on the machine. The order of the sums, and so the weights' last digits,
    depends on the number of threads.
    """

    whole_blocks = False

    def __init__(self, model: Trainable, *, device: str, num_threads: int = 1, in_bfloat16: bool = False) -> None:
        """With `in_bfloat16` matrix products are rounded to it, which CPUs with AMX or AVX512-BF16 do several times as fast."""
        self.model, self.device, self.num_threads, self.in_bfloat16 = model, device, num_threads, in_bfloat16
        self.parameters = [parameter for _, parameter in model.named_parameters()]
        self.threads = ThreadPoolExecutor(num_threads, initializer=torch.set_flush_denormal, initargs=(True,))

    def __call__(self, blocks: Sequence[Rows]) -> tuple[Tensor, list[Tensor]]:
        """See `GradientSum`."""
        shares = [blocks[first :: self.num_threads] for first in range(min(self.num_threads, len(blocks)))]
        results = list(self.threads.map(self._share, shares))
        loss, gradients = results[0]
        for more, others in results[1:]:
            loss += more
            torch._foreach_add_(gradients, others)
        return loss, gradients

    def _share(self, blocks: Sequence[Rows]) -> tuple[Tensor, list[Tensor]]:
        """One thread's share."""
        total = torch.zeros((), device=self.device)
        summed = [torch.zeros_like(parameter) for parameter in self.parameters]
        for rows in blocks:
            with torch.autocast("cpu", torch.bfloat16, enabled=self.in_bfloat16):
                loss = self.model.loss(rows.tokens.to(self.device), rows.targets.to(self.device))
            torch._foreach_add_(summed, torch.autograd.grad(loss, self.parameters))
            total += loss.detach()
        return total, summed


class CapturedGradients:
    """bfloat16 passes replayed from CUDA graphs, which are captured when a shape first occurs.

    All graphs share one pool of memory: nothing in it is read after the replay that wrote it, because each adds its
    gradients to buffers outside of the pool before it ends.
    """

    whole_blocks = True
    _NUM_WARM_UPS = 2

    def __init__(self, model: Trainable, *, device: str, captures: bool = True) -> None:
        """Without `captures` every pass is launched anew: the same sums, for comparison and for a CPU."""
        self.model, self.device, self.captures = model, torch.device(device), captures
        self.parameters = [parameter for _, parameter in model.named_parameters()]
        self.total = torch.zeros((), device=device)
        self.summed = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.pool = torch.cuda.graph_pool_handle() if captures else None
        self.replays: dict[torch.Size, tuple[Rows, Callable[[], None]]] = {}

    def __call__(self, blocks: Sequence[Rows]) -> tuple[Tensor, list[Tensor]]:
        """See `GradientSum`."""
        for rows in blocks:
            if rows.tokens.shape not in self.replays:
                self.replays[rows.tokens.shape] = self._prepare(rows)
        self.total.zero_()
        torch._foreach_zero_(self.summed)
        for rows in blocks:
            inputs, replay = self.replays[rows.tokens.shape]
            inputs.tokens.copy_(self._pinned(rows.tokens), non_blocking=True)
            inputs.targets.copy_(self._pinned(rows.targets), non_blocking=True)
            replay()
        return self.total, self.summed

    def _pinned(self, tensor: Tensor) -> Tensor:
        """Where a copy to the device need not be waited for."""
        return tensor.pin_memory() if self.device.type == "cuda" else tensor

    def _prepare(self, rows: Rows) -> tuple[Rows, Callable[[], None]]:
        """Buffers for blocks of this shape, and what runs the passes over them."""
        inputs = Rows(rows.tokens.to(self.device, copy=True), rows.targets.to(self.device, copy=True))
        return inputs, self._capture(inputs) if self.captures else lambda: self._add(inputs)

    def _capture(self, inputs: Rows) -> Callable[[], None]:
        """Record one block's passes; what they add meanwhile to the buffers is left to the caller to clear."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(self._NUM_WARM_UPS):
                self._add(inputs)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            self._add(inputs)
        return graph.replay

    def _add(self, rows: Rows) -> None:
        """Add one block's loss and gradients to the buffers. Capture-safe."""
        # The cache of autocast would keep weights that were cast in another capture.
        with torch.autocast(self.device.type, torch.bfloat16, cache_enabled=False):
            loss = self.model.loss(rows.tokens, rows.targets)
        torch._foreach_add_(self.summed, torch.autograd.grad(loss, self.parameters))
        self.total += loss.detach()
