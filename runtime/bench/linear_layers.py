"""Linear layers of few rows: every candidate of `runtime.kernels.linear` beside cuBLAS, and the best of them.

The layers are those of Llama-3.1-8B, each with the fusions that the decoder uses; cuBLAS does the bare product.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as functional
from torch import Tensor

from runtime.bench.compiling import CompilingLauncher
from runtime.bench.device_time import num_rotated, seconds_per_call
from runtime.kernels.blocks import GemvBlocks
from runtime.kernels.launching import Launcher
from runtime.kernels.linear import Norm, multiply_rows

EPS = 1e-5


@dataclass(frozen=True, slots=True)
class Layer:
    """A linear layer and what is fused with it."""

    name: str
    n: int
    """Output columns."""
    k: int
    norm: bool = False
    residual: bool = False
    swiglu: bool = False
    out_dtype: torch.dtype = torch.bfloat16

    @property
    def weight_rows(self) -> int:
        """Two for each output column where a gate is multiplied in."""
        return 2 * self.n if self.swiglu else self.n

    @property
    def weight_bytes(self) -> int:
        """In bf16."""
        return 2 * self.weight_rows * self.k


LAYERS = (
    Layer("qkv", 6144, 4096, norm=True),
    Layer("o", 4096, 4096, residual=True),
    Layer("gate_up", 14336, 4096, norm=True, swiglu=True),
    Layer("down", 4096, 14336, residual=True),
    Layer("head", 128256, 4096, norm=True, out_dtype=torch.float32),
)


@dataclass(frozen=True, slots=True)
class LinearResult:
    """One way to compute one layer; `blocks` None is cuBLAS, without the fusions."""

    layer: Layer
    rows: int
    blocks: GemvBlocks | None
    error: float
    seconds: float

    @property
    def bytes_per_second(self) -> float:
        """Of the weights, which are read once."""
        return self.layer.weight_bytes / self.seconds


def candidates(layer: Layer, rows: int) -> Iterator[GemvBlocks]:
    """What is worth trying: 6 to 10 ways."""
    wide = layer.swiglu
    if rows == 1:
        yield from (
            GemvBlocks("multiply_reduce", *cut) for cut in ((1, 2048, 4), (2, 1024, 4), (2, 2048, 4), (4, 512, 4))
        )
        if layer.k <= 4096:
            yield from (
                GemvBlocks("multiply_reduce", *cut) for cut in ((1, 4096, 4), (4, 1024, 4), (8, 512, 4), (1, 4096, 8))
            )
            if not wide:
                yield GemvBlocks("multiply_reduce", 2, 4096, 4)
        else:
            yield from (
                GemvBlocks("multiply_reduce", *cut)
                for cut in ((1, 4096, 8), (1, 16384, 8), (4, 1024, 4), (1, 2048, 4, 1, 16384), (2, 2048, 8, 1, 16384))
            )
    elif rows <= 4:
        cuts = [(1, 1024, 4), (1, 2048, 4), (2, 512, 4), (2, 1024, 4)] + ([(4, 512, 4)] if rows == 2 else [])
        yield from (GemvBlocks("multiply_reduce", *cut) for cut in cuts)
    if rows > 1:
        yield from (
            GemvBlocks("dot", *cut)
            for cut in (
                (16, 256, 1, 4),
                (16, 256, 1, 4, 1024),
                (16, 512, 1, 3),
                (16, 128, 1, 6),
                (32, 256, 2, 3),
                (32, 128, 2, 5),
                (64, 128, 4, 4),
            )
        )


class LayerCase:
    """Weights and inputs of one layer, or on the device `meta` nothing, for compiling ahead."""

    def __init__(self, layer: Layer, rows: int, device: str) -> None:
        self.layer, self.rows = layer, rows
        count = num_rotated(layer.weight_bytes) if device != "meta" else 1
        self.weights = [
            torch.empty(layer.weight_rows, layer.k, dtype=torch.bfloat16, device=device).normal_(std=layer.k**-0.5)
            for _ in range(count)
        ]
        self.x = torch.randn(rows, layer.k, device=device).to(torch.bfloat16)
        self.norm = Norm(torch.randn(layer.k, device=device).to(torch.bfloat16), EPS) if layer.norm else None
        self.residual = torch.randn(rows, layer.n, device=device).to(torch.bfloat16) if layer.residual else None
        self.out = torch.empty(rows, layer.n, dtype=layer.out_dtype, device=device)

    def run(self, launcher: Launcher, weight: Tensor, blocks: GemvBlocks, *, pdl: bool) -> None:
        """One product with its fusions."""
        multiply_rows(
            self.x, weight, out=self.out, launcher=launcher, norm=self.norm, residual=self.residual,
            swiglu=self.layer.swiglu, blocks=blocks, pdl=pdl,
        )  # fmt: skip

    def reference(self) -> Tensor:
        """With the first weights, in float32."""
        wide = self.x.float()
        if self.norm is not None:
            wide = functional.rms_norm(wide, (self.layer.k,), self.norm.weight.float(), EPS)
        result = wide @ self.weights[0].float().T
        if self.layer.swiglu:
            result = functional.silu(result[:, : self.layer.n]) * result[:, self.layer.n :]
        return result if self.residual is None else result + self.residual.float()

    def measure(self, launcher: Launcher, blocks: GemvBlocks, wanted: Tensor, *, pdl: bool) -> LinearResult:
        """Error and time of one candidate."""
        self.run(launcher, self.weights[0], blocks, pdl=pdl)
        error = float((self.out.double() - wanted.double()).norm() / wanted.double().norm())
        calls = [partial(self.run, launcher, weight, blocks, pdl=pdl) for weight in self.weights]
        return LinearResult(self.layer, self.rows, blocks, error, seconds_per_call(calls))

    def measure_cublas(self) -> LinearResult:
        """The bare product."""
        out = torch.empty(self.rows, self.layer.weight_rows, dtype=torch.bfloat16, device=self.x.device)

        def multiply(weight: Tensor) -> None:
            torch.mm(self.x, weight.T, out=out)

        calls = [partial(multiply, weight) for weight in self.weights]
        return LinearResult(self.layer, self.rows, None, 0.0, seconds_per_call(calls))


def sweep(launcher: Launcher, rows: Sequence[int], *, pdl: bool = True) -> Iterator[list[LinearResult]]:
    """For each layer and number of rows all results, cuBLAS first."""
    _compile(rows, pdl)
    for layer in LAYERS:
        for count in rows:
            case = LayerCase(layer, count, "cuda")
            wanted = case.reference()
            results = [case.measure_cublas()]
            results += [case.measure(launcher, blocks, wanted, pdl=pdl) for blocks in candidates(layer, count)]
            yield results


def _compile(rows: Sequence[int], pdl: bool) -> None:
    compiling = CompilingLauncher()
    for layer in LAYERS:
        for count in rows:
            case = LayerCase(layer, count, "meta")
            for blocks in candidates(layer, count):
                case.run(compiling, case.weights[0], blocks, pdl=pdl)
    compiling.wait()
