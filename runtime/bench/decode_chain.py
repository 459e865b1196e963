"""A whole decode step of our kernels in one graph: what the fused layers, their launches and attention cost together.

The weights are random, in the shape of Llama-3.1-8B; every sequence has the same context.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from runtime.attention.device import DeviceTables
from runtime.attention.pages import allocate_pages
from runtime.attention.triton import DEFAULT_BLOCKS, AttentionBlocks, TritonAttention
from runtime.bench.device_time import seconds_per_call
from runtime.identifiers import PAGE_SIZE
from runtime.kernels.embedding import gather_embeddings
from runtime.kernels.launching import Launcher
from runtime.kernels.linear import GemvBlocks, Norm, multiply_rows
from runtime.kernels.rotary import rotate_and_store
from runtime.kernels.sampling import SamplingWorkspace, sample_rows

HIDDEN, INNER, HEADS, KV_HEADS, HEAD_DIM, VOCAB = 4096, 14336, 32, 8, 128, 128256
_EPS = 1e-5

BlockTable = dict[str, GemvBlocks]
"""Blocks by the layer's name in `linear_layers`; what is absent is left to `choose_blocks`."""


@dataclass(frozen=True, slots=True)
class _LayerWeights:
    qkv: Tensor
    output: Tensor
    gate_up: Tensor
    down: Tensor


class DecodeChain:
    """One model and cache, for some sizes of batch."""

    def __init__(self, launcher: Launcher, *, num_layers: int = 32, max_rows: int = 8, context: int = 640) -> None:
        self._launcher = launcher
        self._layers = [
            _LayerWeights(
                _weight((HEADS + 2 * KV_HEADS) * HEAD_DIM, HIDDEN), _weight(HIDDEN, HEADS * HEAD_DIM),
                _weight(2 * INNER, HIDDEN), _weight(HIDDEN, INNER),
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
        self, rows: int, *, pdl: bool, blocks: BlockTable | None = None, cut: AttentionBlocks = DEFAULT_BLOCKS,
        only_linear: bool = False,
    ) -> float:  # fmt: skip
        """Time of one step of `rows` sequences."""
        step = _Step(self, rows, pdl, blocks or {}, cut, only_linear)
        return seconds_per_call([step.run])


class _Step:
    """The buffers of one size of batch."""

    def __init__(
        self, chain: DecodeChain, rows: int, pdl: bool, blocks: BlockTable, cut: AttentionBlocks, only_linear: bool
    ) -> None:  # fmt: skip
        self._chain, self._rows, self._pdl, self._blocks, self._only_linear = chain, rows, pdl, blocks, only_linear

        def buffer(columns: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
            return torch.zeros(rows, columns, dtype=dtype, device="cuda")

        self._hidden, self._inner, self._logits = buffer(HIDDEN), buffer(INNER), buffer(VOCAB, torch.float32)
        self._qkv = buffer((HEADS + 2 * KV_HEADS) * HEAD_DIM)
        self._query, self._attended = buffer(HEADS * HEAD_DIM), buffer(HEADS * HEAD_DIM)
        self._sampled = torch.zeros(rows, dtype=torch.int64, device="cuda")
        self._is_finite = torch.zeros(rows, dtype=torch.int8, device="cuda")
        attention = TritonAttention(
            chain._pages, num_heads=HEADS, layer_windows=[None] * len(chain._layers), launcher=chain._launcher,
            max_decodes=rows, num_multiprocessors=torch.cuda.get_device_properties(0).multi_processor_count,
            blocks=cut, pdl=pdl,
        )  # fmt: skip
        self._plan = attention.plan_capture(chain._tables, rows)

    def run(self) -> None:
        chain, rows = self._chain, self._rows
        launcher, pdl = chain._launcher, self._pdl
        gather_embeddings(
            chain._token_ids[:rows], chain._previous_rows[:rows], self._sampled, chain._embedding,
            out=self._hidden, launcher=launcher, pdl=False,
        )  # fmt: skip
        for layer, weights in enumerate(chain._layers):
            self._multiply("qkv", self._hidden, weights.qkv, self._qkv, norm=chain._norm)
            if not self._only_linear:
                self._attend(layer)
            self._multiply("o", self._attended, weights.output, self._hidden, residual=self._hidden)
            self._multiply("gate_up", self._hidden, weights.gate_up, self._inner, norm=chain._norm, swiglu=True)
            self._multiply("down", self._inner, weights.down, self._hidden, residual=self._hidden)
        self._multiply("head", self._hidden, chain._head, self._logits, norm=chain._norm)
        sample_rows(
            self._logits, chain._temperatures[:rows], chain._seeds[:rows], chain._seeds[:rows],
            workspace=chain._workspace, token_ids=self._sampled, is_finite=self._is_finite, drawn=False,
            launcher=launcher, pdl=pdl,
        )  # fmt: skip

    def _attend(self, layer: int) -> None:
        chain, shape = self._chain, (self._rows, HEADS, HEAD_DIM)
        rotate_and_store(
            self._qkv, chain._positions[: self._rows], chain._slots[: self._rows], chain._cosines, chain._sines,
            chain._pages[layer], query=self._query.view(shape), launcher=chain._launcher, pdl=self._pdl,
        )  # fmt: skip
        self._plan.attend(layer, self._query.view(shape), self._attended.view(shape))

    def _multiply(
        self, name: str, x: Tensor, weight: Tensor, out: Tensor, *, norm: Norm | None = None,
        residual: Tensor | None = None, swiglu: bool = False,
    ) -> None:  # fmt: skip
        multiply_rows(
            x, weight, out=out, launcher=self._chain._launcher, norm=norm, residual=residual, swiglu=swiglu,
            blocks=self._blocks.get(name), pdl=self._pdl,
        )  # fmt: skip


def _weight(rows: int, columns: int) -> Tensor:
    return torch.empty(rows, columns, dtype=torch.bfloat16, device="cuda").normal_(std=columns**-0.5)
