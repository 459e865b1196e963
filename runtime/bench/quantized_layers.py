"""Linear layers in e4m3: each way to multiply up to 64 rows, and from 1 to 4,096 rows beside cuBLAS in bf16.

The layers are those of Llama-3.1-8B but for its head, which checkpoints leave in bf16. Times of few rows are of the product
alone; those over all rows have the rounding of the inputs in them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from runtime.bench.compiling import CompilingLauncher
from runtime.bench.device_time import num_rotated, seconds_per_call
from runtime.kernels.blocks import E4M3_MOST_ROWS, MAX_ROWS, GemvBlocks
from runtime.kernels.launching import Launcher
from runtime.kernels.linear import Norm
from runtime.kernels.quantized import multiply_quantized, quantize_gated, quantize_rows
from runtime.layers.quantized import BLOCK, E4M3, InputScaling, QuantizedLinear, QuantizedRows, dequantize_rows

LAYERS = {"qkv": (6144, 4096), "o": (4096, 4096), "gate_up": (28672, 4096), "down": (4096, 14336)}
"""Outputs and inputs."""
MANY_ROWS = (16, 64, 256, 512, 1024, 4096)

_WEIGHT_SCALE = 0.001


@dataclass(frozen=True, slots=True)
class QuantizedResult:
    """One way to compute one layer."""

    layer: str
    rows: int
    by_block: bool
    blocks: GemvBlocks | None
    """None: whatever the engine would choose."""
    error: float
    seconds: float
    bf16_seconds: float
    """Of cuBLAS's bare product."""

    @property
    def bytes_per_second(self) -> float:
        """Of the weights in e4m3, which are read once."""
        n, k = LAYERS[self.layer]
        return n * k / self.seconds

    @property
    def operations_per_second(self) -> float:
        """A multiplication and an addition for each weight and row."""
        n, k = LAYERS[self.layer]
        return 2.0 * self.rows * n * k / self.seconds


def candidates(rows: int, *, by_block: bool) -> Iterator[GemvBlocks]:
    """What is worth trying for up to E4M3_MOST_ROWS rows."""
    if rows > MAX_ROWS:
        dots = [(64, 128, 4, 5), (64, 128, 4, 8), (128, 128, 4, 5), (128, 128, 8, 5), (32, 128, 2, 6)]
        if not by_block:
            dots += [(64, 256, 4, 3), (64, 256, 4, 4), (32, 256, 2, 5), (16, 512, 1, 4)]
        yield from (GemvBlocks("dot", *cut) for cut in dots)
        return
    if by_block:
        dots = [(16, 128, 1, 6), (32, 128, 2, 5), (64, 128, 4, 4)]
        split_dots = [
            (16, 128, 2, 4),
            (16, 128, 4, 2),
            (16, 128, 4, 3),
            (16, 128, 4, 4),
            (16, 128, 8, 2),
            (32, 128, 4, 3),
        ]
    else:
        dots = [
            (16, 512, 1, 4), (16, 256, 1, 6), (16, 256, 1, 8), (16, 1024, 1, 2), (16, 1024, 2, 3), (32, 256, 2, 4), (32, 512, 2, 3),
            (64, 128, 4, 5),
        ]  # fmt: skip
        split_dots = [
            (16, 128, 4, 3), (16, 256, 4, 2), (16, 256, 4, 3), (16, 128, 8, 2), (16, 256, 8, 2), (16, 512, 4, 2), (32, 128, 4, 3),
        ]  # fmt: skip
        yield GemvBlocks("dot", 16, 256, 1, 6, late=True)
    yield from (GemvBlocks("dot", *cut) for cut in dots)
    yield from (GemvBlocks("split_dot", *cut) for cut in split_dots)
    if rows <= 2 and not by_block:
        reduces = [
            (1, 4096, 4), (2, 4096, 4), (4, 4096, 4), (2, 2048, 4), (4, 2048, 4), (8, 1024, 4), (4, 1024, 4), (2, 4096, 8),
            (4, 4096, 8), (1, 16384, 8),
        ]  # fmt: skip
        yield from (GemvBlocks("multiply_reduce", *cut) for cut in reduces)


class QuantizedCase:
    """Weights, and rounded inputs, of one layer."""

    def __init__(self, layer: str, rows: int, *, by_block: bool, device: str = "cuda") -> None:
        n, k = LAYERS[layer]
        self.layer, self.rows, self.by_block = layer, rows, by_block
        scales = torch.full((n // BLOCK, k // BLOCK) if by_block else (n,), _WEIGHT_SCALE, device=device)
        self.scaling = InputScaling(by_group=by_block)
        self.linears = [
            QuantizedLinear(_random_e4m3(n, k, device), scales, None, self.scaling)
            for _ in range(num_rotated(n * k) if device != "meta" else 1)
        ]
        self.x = torch.randn(rows, k, device=device).to(torch.bfloat16)
        self.norm = Norm(torch.ones(k, dtype=torch.bfloat16, device=device), 1e-5)
        self.gate_up = torch.randn(rows, 2 * k, device=device).to(torch.bfloat16)

    def round(self, launcher: Launcher) -> QuantizedRows:
        """The inputs as the engine makes them: after the norm, the activation or attention."""
        if self.layer == "down":
            return quantize_gated(self.gate_up, self.scaling, launcher=launcher, pdl=self.rows <= MAX_ROWS)
        norm = None if self.layer == "o" else self.norm
        return quantize_rows(self.x, self.scaling, launcher=launcher, norm=norm, pdl=self.rows <= MAX_ROWS)

    def multiply(
        self, launcher: Launcher, rows: QuantizedRows, linear: QuantizedLinear, blocks: GemvBlocks | None = None
    ) -> Tensor:
        """One product."""
        return multiply_quantized(
            rows, linear, launcher=launcher, dtype=torch.bfloat16, blocks=blocks, pdl=self.rows <= MAX_ROWS
        )

    def measure(self, launcher: Launcher, blocks: GemvBlocks | None, bf16_seconds: float) -> QuantizedResult:
        """Error and time; with `blocks` of the product alone."""
        rows = self.round(launcher)

        def whole(linear: QuantizedLinear) -> None:
            self.multiply(launcher, self.round(launcher), linear)

        def product(linear: QuantizedLinear) -> None:
            self.multiply(launcher, rows, linear, blocks)

        run: Callable[[QuantizedLinear], None] = whole if blocks is None else product
        out = self.multiply(launcher, rows, self.linears[0], blocks)
        wanted = dequantize_rows(rows) @ self.linears[0].dequantized().T
        error = float((out.double() - wanted.double()).norm() / wanted.double().norm())
        seconds = seconds_per_call([partial(run, linear) for linear in self.linears])
        return QuantizedResult(self.layer, self.rows, self.by_block, blocks, error, seconds, bf16_seconds)

    def measure_bf16(self) -> float:
        """Seconds of the bare product by cuBLAS."""
        n, k = LAYERS[self.layer]
        weights = [torch.randn(n, k, device="cuda", dtype=torch.bfloat16) for _ in range(num_rotated(2 * n * k))]

        def multiply(weight: Tensor) -> None:
            torch.mm(self.x, weight.t())

        return seconds_per_call([partial(multiply, weight) for weight in weights])


def sweep(launcher: Launcher, rows: Sequence[int]) -> Iterator[list[QuantizedResult]]:
    """For each layer and number of rows: what the engine does, then all candidates for few rows."""
    _compile(rows)
    for layer in LAYERS:
        for count in (*rows, *MANY_ROWS):
            bf16_seconds = QuantizedCase(layer, count, by_block=False).measure_bf16()
            for by_block in (False, True):
                case = QuantizedCase(layer, count, by_block=by_block)
                yield [case.measure(launcher, blocks, bf16_seconds) for blocks in (None, *_few(count, by_block))]


def _few(rows: int, by_block: bool) -> Sequence[GemvBlocks]:
    return tuple(candidates(rows, by_block=by_block)) if rows <= E4M3_MOST_ROWS else ()


def _compile(rows: Sequence[int]) -> None:
    compiling = CompilingLauncher()
    for layer in LAYERS:
        for count in (*rows, *MANY_ROWS):
            for by_block in (False, True):
                case = QuantizedCase(layer, count, by_block=by_block, device="meta")
                rounded = case.round(compiling)
                for blocks in (None, *_few(count, by_block)):
                    case.multiply(compiling, rounded, case.linears[0], blocks)
    compiling.wait()


def _random_e4m3(rows: int, columns: int, device: str) -> Tensor:
    return torch.empty(rows, columns, dtype=torch.bfloat16, device=device).normal_(std=30).clamp_(-448, 448).to(E4M3)
