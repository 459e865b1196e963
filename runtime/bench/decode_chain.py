"""A whole decode step of our kernels in one graph: what the fused layers, their launches and attention cost together.

The weights are random, in the shape of Llama-3.1-8B; every sequence has the same context. What a kernel costs depends on
its neighbours: a kernel that starts early hides its latency behind the one ahead, and takes room on the multiprocessors from
it. So ways to cut the products are compared here, in the chain, by `compare`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from runtime.attention.device import DeviceTables
from runtime.attention.pages import allocate_pages
from runtime.attention.triton import DEFAULT_BLOCKS, AttentionBlocks, TritonAttention
from runtime.bench.compiling import CompilingLauncher
from runtime.bench.device_time import seconds_per_call
from runtime.identifiers import PAGE_SIZE
from runtime.kernels.activation import silu_and_multiply
from runtime.kernels.blocks import MAX_ROWS, GemvBlocks, Shape, choose_blocks
from runtime.kernels.embedding import gather_embeddings
from runtime.kernels.launching import Launcher
from runtime.kernels.linear import Norm, multiply_rows
from runtime.kernels.norm import add_rms_norm
from runtime.kernels.quantized import multiply_quantized, quantize_gated, quantize_rows
from runtime.kernels.rotary import rotate_and_store
from runtime.kernels.sampling import SamplingWorkspace, sample_rows
from runtime.layers.quantized import E4M3, InputScaling, QuantizedLinear, QuantizedRows

HIDDEN, INNER, HEADS, KV_HEADS, HEAD_DIM, VOCAB = 4096, 14336, 32, 8, 128, 128256
_EPS = 1e-5

BlockTable = Mapping[str, GemvBlocks | None]
"""Blocks by the layer's name in `linear_layers`; None is cuBLAS with kernels of its own for what is fused otherwise; what is
absent is left to `choose_blocks`."""

SHAPES = {
    "qkv": Shape((HEADS + 2 * KV_HEADS) * HEAD_DIM, HIDDEN),
    "o": Shape(HIDDEN, HEADS * HEAD_DIM),
    "gate_up": Shape(INNER, HIDDEN, swiglu=True),
    "down": Shape(HIDDEN, INNER),
    "head": Shape(VOCAB, HIDDEN),
}
E4M3_SHAPES = SHAPES | {"gate_up": Shape(2 * INNER, HIDDEN)}
"""In e4m3 the activation is a kernel of its own, which rounds what it gives; the head is bf16."""


AnyWeight = Tensor | QuantizedLinear


@dataclass(frozen=True, slots=True)
class ChainResult:
    """One way to cut a step."""

    rows: int
    variant: str
    seconds: float


@dataclass(frozen=True, slots=True)
class _LayerWeights:
    qkv: AnyWeight
    output: AnyWeight
    gate_up: AnyWeight
    down: AnyWeight


class DecodeChain:
    """One model and cache, for some sizes of batch.

    Args:
        quantized: weights in e4m3 with scales by channel, but for the head.
    """

    def __init__(
        self, launcher: Launcher, *, num_layers: int = 32, max_rows: int = 8, context: int = 640, quantized: bool = False
    ) -> None:  # fmt: skip
        self._launcher = launcher
        make: Callable[[int, int], AnyWeight] = _quantized_weight if quantized else _weight
        self._layers = [
            _LayerWeights(
                make((HEADS + 2 * KV_HEADS) * HEAD_DIM, HIDDEN), make(HIDDEN, HEADS * HEAD_DIM),
                make(2 * INNER, HIDDEN), make(HIDDEN, INNER),
            )
            for _ in range(num_layers)
        ]  # fmt: skip
        self._head, self._embedding = _weight(VOCAB, HIDDEN), _weight(VOCAB, HIDDEN)
        self._norm = Norm(torch.ones(HIDDEN, dtype=torch.bfloat16, device="cuda"), _EPS)
        pages_each = -(-context // PAGE_SIZE)
        self._pages = allocate_pages(
            num_layers=num_layers, num_pages=max_rows * pages_each + 1, num_kv_heads=KV_HEADS, head_dim=HEAD_DIM,
            device=torch.device("cuda"), dtype=torch.bfloat16,
        ).normal_()  # fmt: skip
        rows = torch.arange(max_rows, dtype=torch.int32, device="cuda")
        self._tables = DeviceTables(
            query_starts=torch.arange(max_rows + 1, dtype=torch.int32, device="cuda"),
            context_lengths=torch.full_like(rows, context),
            page_starts=torch.arange(max_rows + 1, dtype=torch.int32, device="cuda") * pages_each,
            page_ids=torch.arange(1, max_rows * pages_each + 1, dtype=torch.int32, device="cuda"),
            last_page_lengths=torch.full_like(rows, (context - 1) % PAGE_SIZE + 1),
        )
        self._token_ids, self._previous_rows = rows.long() + 1, torch.full_like(rows, -1)
        self._positions = torch.full_like(rows, context - 1)
        self._slots = (
            self._tables.page_ids[self._tables.page_starts[1:].long() - 1] * PAGE_SIZE + (context - 1) % PAGE_SIZE
        )
        angles = torch.rand(context, HEAD_DIM, device="cuda")
        self._cosines, self._sines = angles.cos().bfloat16(), angles.sin().bfloat16()
        self._temperatures, self._seeds = torch.zeros(max_rows, device="cuda"), rows.long()
        self._workspace = SamplingWorkspace(max_rows, VOCAB, torch.device("cuda"))

    def seconds(
        self, rows: int, *, pdl: bool = True, blocks: BlockTable | None = None, cut: AttentionBlocks = DEFAULT_BLOCKS,
        only_linear: bool = False,
    ) -> float:  # fmt: skip
        """Time of one step of `rows` sequences."""
        step = _Step(self, self._launcher, rows, pdl, blocks or {}, cut, only_linear)
        return seconds_per_call([step.run])

    def compile(self, rows: int, tables: Sequence[BlockTable]) -> None:
        """All kernels of a step, for each of the tables."""
        compiling = CompilingLauncher()
        for blocks in tables:
            _Step(self, compiling, rows, True, blocks, DEFAULT_BLOCKS, False).run()
        compiling.wait()


def compare(launcher: Launcher, rows: Sequence[int]) -> Iterator[ChainResult]:
    """Whole steps of so many rows: as the engine runs them, then the linear layers alone, then each of `variants`."""
    chain = DecodeChain(launcher, max_rows=max(rows))
    for count in rows:
        tables = variants(count)
        chain.compile(count, list(tables.values()))
        yield ChainResult(count, "linear layers alone", chain.seconds(count, only_linear=True))
        yield ChainResult(count, "no dependent launch", chain.seconds(count, pdl=False))
        for name, blocks in tables.items():
            yield ChainResult(count, name, chain.seconds(count, blocks=blocks))


def variants(rows: int) -> dict[str, BlockTable]:
    """Ways to cut a step of `rows` rows that are worth comparing with the frozen table; beyond MAX_ROWS only cuBLAS."""
    chosen = {name: choose_blocks(shape, rows) for name, shape in SHAPES.items()}
    frozen = {name: blocks for name, blocks in chosen.items() if blocks is not None}

    def every(**changes: Any) -> BlockTable:
        return {name: replace(blocks, **changes) for name, blocks in frozen.items()}

    def same(block_n: int, block_k: int, num_warps: int, num_stages: int, **changes: Any) -> BlockTable:
        return dict.fromkeys(frozen, GemvBlocks("dot", block_n, block_k, num_warps, num_stages, **changes))

    given: dict[str, BlockTable] = {"frozen table": {}, "late": every(late=True), "prefetch 0": every(prefetch=0)}
    if rows > MAX_ROWS:
        return given | {"cuBLAS": dict.fromkeys(SHAPES)}
    if rows == 1:
        return given | {"prefetch 1024": every(prefetch=1024), "prefetch 4096": every(prefetch=4096)}
    if rows == 2:
        reduces = {
            f"reduce {n}x{k}": GemvBlocks("multiply_reduce", n, k, 4) for n, k in ((1, 2048), (2, 1024), (4, 1024))
        }
        given |= {name: dict.fromkeys(frozen, blocks) for name, blocks in reduces.items()}
    given |= {
        "prefetch 512": every(prefetch=512),
        "prefetch 2048": every(prefetch=2048),
        "16x256": same(16, 256, 1, 4, prefetch=1024),
        "16x256 first tile": same(16, 256, 1, 4, first_tile=True),
        "16x256 first tile, late": same(16, 256, 1, 4, first_tile=True, late=True),
        "16x256 first tile, prefetch": same(16, 256, 1, 4, prefetch=1024, first_tile=True),
        "16x512": same(16, 512, 1, 3, prefetch=1024),
        "16x512 first tile": same(16, 512, 1, 3, first_tile=True),
        "32x256": same(32, 256, 2, 3, prefetch=1024),
        "32x256 first tile": same(32, 256, 2, 3, first_tile=True),
        "64x128": same(64, 128, 4, 4, prefetch=1024),
        "best alone": _BEST_ALONE,
        "best alone, prefetch": {name: replace(blocks, prefetch=1024) for name, blocks in _BEST_ALONE.items()},
        "best alone, first tile": {name: replace(blocks, first_tile=True) for name, blocks in _BEST_ALONE.items()},
        "best alone, late": {name: replace(blocks, late=True) for name, blocks in _BEST_ALONE.items()},
    }
    by_cublas: dict[str, BlockTable] = {
        f"cuBLAS: {' and '.join(names)}": frozen | dict.fromkeys(names)
        for names in (("qkv",), ("gate_up",), ("qkv", "gate_up"), tuple(SHAPES))
    }
    return given | by_cublas


_BEST_ALONE = {
    "qkv": GemvBlocks("dot", 16, 512, 1, 3),
    "o": GemvBlocks("dot", 16, 256, 1, 4),
    "gate_up": GemvBlocks("dot", 64, 128, 4, 4),
    "down": GemvBlocks("dot", 16, 256, 1, 4),
    "head": GemvBlocks("dot", 16, 512, 1, 3),
}
"""Of 2 to 8 rows, by `linear_layers`."""


class _Step:
    """The buffers of one size of batch."""

    def __init__(
        self, chain: DecodeChain, launcher: Launcher, rows: int, pdl: bool, blocks: BlockTable, cut: AttentionBlocks,
        only_linear: bool,
    ) -> None:  # fmt: skip
        self._chain, self._launcher, self._rows, self._pdl = chain, launcher, rows, pdl
        self._blocks, self._only_linear = blocks, only_linear

        def buffer(columns: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
            return torch.zeros(rows, columns, dtype=dtype, device="cuda")

        self._hidden, self._inner, self._logits = buffer(HIDDEN), buffer(INNER), buffer(VOCAB, torch.float32)
        self._gate_up = buffer(2 * INNER)
        self._qkv = buffer((HEADS + 2 * KV_HEADS) * HEAD_DIM)
        self._query, self._attended = buffer(HEADS * HEAD_DIM), buffer(HEADS * HEAD_DIM)
        self._sampled = torch.zeros(rows, dtype=torch.int64, device="cuda")
        self._is_finite = torch.zeros(rows, dtype=torch.int8, device="cuda")
        attention = TritonAttention(
            chain._pages, num_heads=HEADS, layer_windows=[None] * len(chain._layers), launcher=launcher,
            max_decodes=rows, num_multiprocessors=torch.cuda.get_device_properties(0).multi_processor_count,
            blocks=cut, pdl=pdl,
        )  # fmt: skip
        self._plan = attention.plan_capture(chain._tables, rows)

    def run(self) -> None:
        chain, rows = self._chain, self._rows
        launcher, pdl = self._launcher, self._pdl
        gather_embeddings(
            chain._token_ids[:rows], chain._previous_rows[:rows], self._sampled, chain._embedding,
            out=self._hidden, launcher=launcher, pdl=False,
        )  # fmt: skip
        for layer, weights in enumerate(chain._layers):
            self._multiply("qkv", self._hidden, weights.qkv, self._qkv, norm=chain._norm)
            if not self._only_linear:
                self._attend(layer)
            self._multiply("o", self._attended, weights.output, self._hidden, residual=self._hidden)
            self._feed_forward(weights)
        self._multiply("head", self._hidden, chain._head, self._logits, norm=chain._norm)
        sample_rows(
            self._logits, chain._temperatures[:rows], chain._seeds[:rows], chain._seeds[:rows],
            workspace=chain._workspace, token_ids=self._sampled, is_finite=self._is_finite, drawn=False,
            launcher=launcher, pdl=pdl,
        )  # fmt: skip

    def _feed_forward(self, weights: _LayerWeights) -> None:
        norm = self._chain._norm
        if isinstance(weights.gate_up, QuantizedLinear):
            assert isinstance(weights.down, QuantizedLinear)
            self._multiply("gate_up", self._hidden, weights.gate_up, self._gate_up, norm=norm)
            rows = quantize_gated(self._gate_up, InputScaling(), launcher=self._launcher, pdl=self._pdl)
            self._multiply_quantized("down", rows, weights.down, self._hidden, self._hidden)
            return
        self._multiply("gate_up", self._hidden, weights.gate_up, self._inner, norm=norm, swiglu=True)
        self._multiply("down", self._inner, weights.down, self._hidden, residual=self._hidden)

    def _attend(self, layer: int) -> None:
        chain, shape = self._chain, (self._rows, HEADS, HEAD_DIM)
        rotate_and_store(
            self._qkv, chain._positions[: self._rows], chain._slots[: self._rows], chain._cosines, chain._sines,
            chain._pages[layer], query=self._query.view(shape), launcher=self._launcher, pdl=self._pdl,
        )  # fmt: skip
        self._plan.attend(layer, self._query.view(shape), self._attended.view(shape))

    def _multiply(
        self, name: str, x: Tensor, weight: AnyWeight, out: Tensor, *, norm: Norm | None = None,
        residual: Tensor | None = None, swiglu: bool = False,
    ) -> None:  # fmt: skip
        if isinstance(weight, QuantizedLinear):
            rows = quantize_rows(x, InputScaling(), launcher=self._launcher, norm=norm, pdl=self._pdl)
            self._multiply_quantized(name, rows, weight, out, residual)
            return
        blocks = self._blocks[name] if name in self._blocks else choose_blocks(SHAPES[name], self._rows)
        if blocks is None:
            self._multiply_by_cublas(x, weight, out, norm, residual, swiglu)
            return
        if norm is not None and self._rows > MAX_ROWS:
            x, norm = self._normed(x, norm), None
        multiply_rows(
            x, weight, out=out, launcher=self._launcher, norm=norm, residual=residual, swiglu=swiglu, blocks=blocks,
            pdl=self._pdl,
        )  # fmt: skip

    def _normed(self, x: Tensor, norm: Norm) -> Tensor:
        out = torch.empty_like(x)
        add_rms_norm(x, None, norm.weight, norm.eps, out=out, launcher=self._launcher, pdl=self._pdl)
        return out

    def _multiply_quantized(
        self, name: str, rows: QuantizedRows, linear: QuantizedLinear, out: Tensor, residual: Tensor | None
    ) -> None:
        product = multiply_quantized(
            rows, linear, launcher=self._launcher, dtype=out.dtype, residual=residual, blocks=self._blocks.get(name),
            pdl=self._pdl,
        )  # fmt: skip
        if name == "gate_up":
            self._gate_up = product
        elif name == "qkv":
            self._qkv = product

    def _multiply_by_cublas(
        self, x: Tensor, weight: Tensor, out: Tensor, norm: Norm | None, residual: Tensor | None, swiglu: bool
    ) -> None:  # fmt: skip
        rows = x if norm is None else self._normed(x, norm)
        if residual is not None:
            out.addmm_(rows, weight.t())
        elif swiglu:
            silu_and_multiply(torch.mm(rows, weight.t()), out=out, launcher=self._launcher, pdl=self._pdl)
        else:
            out.copy_(torch.mm(rows, weight.t()))


def _quantized_weight(rows: int, columns: int) -> QuantizedLinear:
    weight = torch.empty(rows, columns, dtype=torch.bfloat16, device="cuda").normal_(std=30).clamp_(-448, 448)
    scales = torch.full((rows,), columns**-0.5 / 30, device="cuda")
    return QuantizedLinear(weight.to(E4M3), scales)


def _weight(rows: int, columns: int) -> Tensor:
    return torch.empty(rows, columns, dtype=torch.bfloat16, device="cuda").normal_(std=columns**-0.5)
