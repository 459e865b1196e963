"""A step's way through the model, with as few launches as its kind allows.

- Decodes, one row a sequence: one graph holds the whole pass, sampling included. One for each of `graph_sizes`, and one for each of
  `shared_sizes` in which beginnings of contexts are read once for several decodes.
- Prompt chunks, alone or beside decodes: attention runs outside a graph; what lies between those of two layers is one (`pieces`).
- What is larger than any graph: kernel by kernel. There the device is busy longer than the host needs to launch.

Behind the last attention only rows that are sampled go on, which are few in a step with prompts: that saves most of a layer.
Where somebody asks for more of a prompt than its next token, all rows do.

All of them work on the same buffers. Rows of padding are tokens at position 0 of page 0, where what is written means
nothing; attention is over the step's own rows, so what it leaves in those of padding is older, and read by nobody else.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from runtime.attention.device import DeviceAttention, DevicePlan, SequenceTables
from runtime.attention.shared_prefixes import NO_PREFIXES, SharedPrefixes
from runtime.batch import StepBatch
from runtime.models.fused import FusedDecoder, StepRows
from runtime.models.operations import Operations
from runtime.runner.graphs import Capture, Replay, capture_order, graph_sizes, shared_sizes
from runtime.runner.pieces import Pieces
from runtime.runner.step_buffers import RunnerLimits, StepBuffers
from runtime.runner.step_inputs import (
    EMPTY_STEP,
    StepLayout,
    StepShape,
    StepViews,
    build_tables,
    is_decode,
    pack_step,
)
from runtime.runner.upload import UploadPool
from runtime.step_sizes import smallest_holding


@dataclass(frozen=True, slots=True)
class Pass:
    """An enqueued pass; its tensors are buffers that the next pass writes over."""

    hidden: Tensor
    """[at least num_rows, hidden_size], before the last norm, if the step is asked for logprobs or embeddings of prompts."""
    logits: Tensor
    """[at least num_samples, vocab_size]"""
    num_captured: int
    """Rows of its graphs, padding included; 0: it ran outside."""
    num_samples: int
    """Padding included."""


@dataclass(frozen=True, slots=True)
class _DecodeGraph:
    """The whole pass of a number of decodes."""

    views: StepViews
    layout: StepLayout
    plan: DevicePlan
    replay: Replay


class Passes:
    """All passes of one runner."""

    def __init__(
        self,
        model: FusedDecoder,
        operations: Operations,
        attention: DeviceAttention,
        pages: Tensor,
        buffers: StepBuffers,
        uploads: UploadPool,
        limits: RunnerLimits,
    ) -> None:
        self._model = model
        self._operations = operations
        self._attention = attention
        self._pages = pages
        self._buffers = buffers
        self._uploads = uploads
        self._decode_sizes = graph_sizes(min(limits.cuda_graph_max_bs, limits.max_sequences))
        self._pieces = Pieces(model, pages, buffers, uploads, limits)
        self._decodes: dict[int, _DecodeGraph] = {}
        self._shared: dict[int, _DecodeGraph] = {}
        """For steps in which beginnings of contexts are read once for several decodes."""
        self._shared_sizes: list[int] = []

    def keep_largest(self) -> None:
        """Only the largest size of each kind will be captured: they need as much memory as all."""
        del self._decode_sizes[:-1]
        self._pieces.keep_largest()

    def capture(self, capture: Capture, advance: Callable[[], None]) -> None:
        """Capture every size, the largest first. Before the first step only.

        Args:
            advance: called after each.
        """
        self._pieces.capture(capture, advance)
        for size in capture_order(self._decode_sizes):
            self._decodes[size] = self._capture_decode(size, capture)
            advance()
        for size in capture_order(shared_sizes(self._decode_sizes)):
            graph = self._capture_shared(size, capture)
            if graph is not None:
                self._shared[size] = graph
                advance()
        self._shared_sizes = sorted(self._shared)

    def run(self, batch: StepBatch) -> Pass:
        """Enqueue the pass of a step, and its samples' choice by temperature and noise."""
        if not is_decode(batch):
            return self._run(batch, self._pieces.size_of(len(batch.token_ids)))
        prefixes = self._attention.share(batch.page_tables, batch.context_lengths)
        sizes = self._decode_sizes if prefixes is None else self._shared_sizes
        size = smallest_holding(sizes, len(batch.context_lengths))
        return self._replay(batch, size, prefixes) if size else self._run(batch, None)

    def _replay(self, batch: StepBatch, size: int, prefixes: SharedPrefixes | None) -> Pass:
        graph = self._decodes[size] if prefixes is None else self._shared[size]
        tables = replace(build_tables(batch, size), prefixes=prefixes)
        self._send(graph.layout, batch, tables)
        self._attention.refresh(graph.plan, tables)
        graph.replay.replay()
        return Pass(self._buffers.rows_of(graph.views).hidden, self._buffers.logits, size, size)

    def _run(self, batch: StepBatch, size: int | None) -> Pass:
        """By pieces of so many rows, or kernel by kernel."""
        num_rows, num_sequences = len(batch.token_ids), len(batch.context_lengths)
        layout = StepLayout(StepShape(size or num_rows, num_sequences, self._padded_samples(len(batch.sample_rows))))
        tables = build_tables(batch, num_sequences)
        decodes = slice(tables.num_decodes)
        tables = replace(
            tables, prefixes=self._attention.share(batch.page_tables[decodes], batch.context_lengths[decodes])
        )
        self._send(layout, batch, tables)
        views = StepViews(self._buffers.inputs, layout)
        plan = self._attention.plan(tables, views.tables)
        rows = self._buffers.rows_of(views)
        if size:
            self._pieces.run(size, plan, rows, num_rows)
        else:
            self._model.run(rows, self._pages, plan)
        self._sample(views, self._finish(batch, views, rows))
        return Pass(rows.hidden, self._buffers.logits, size or 0, views.shape.num_samples)

    def _padded_samples(self, num_samples: int) -> int:
        """As many as some decode graph has: its capture has loaded the kernels for that number, and a kernel's first use waits for
        all steps in flight."""
        return num_samples and (smallest_holding(self._decode_sizes, num_samples) or num_samples)

    def _finish(self, batch: StepBatch, views: StepViews, rows: StepRows) -> Tensor:
        """Last hidden states of the samples; of all rows, in place, if some are asked for."""
        if batch.prompt_logprob_rows.size or batch.embedding_rows.size:
            self._model.finish_all(rows)
            return rows.hidden.index_select(0, views.sample_rows)
        hidden = rows.hidden.index_select(0, views.sample_rows)
        if len(hidden):
            self._model.finish(hidden, rows.attended.index_select(0, views.sample_rows))
        return hidden

    def _sample(self, views: StepViews, hidden: Tensor) -> None:
        if not len(hidden):
            return
        (logits,) = self._model.logits(hidden, self._buffers.logits[: len(hidden)])
        self._operations.sample(logits, views.columns, self._buffers.samples_of(views))

    def _capture_decode(self, size: int, capture: Capture) -> _DecodeGraph:
        layout, views, tables = self._lay_out_decodes(size)
        plan = self._attention.plan_capture(views.tables, size)
        self._attention.refresh(plan, tables)
        return self._capture_pass(views, layout, plan, capture)

    def _capture_shared(self, size: int, capture: Capture) -> _DecodeGraph | None:
        layout, views, _ = self._lay_out_decodes(size)
        plan = self._attention.plan_shared(views.tables, size)
        return None if plan is None else self._capture_pass(views, layout, plan, capture)

    def _lay_out_decodes(self, size: int) -> tuple[StepLayout, StepViews, SequenceTables]:
        """Padding alone, and no groups, on the device."""
        layout = StepLayout(StepShape(size, size, size))
        tables = replace(build_tables(EMPTY_STEP, size), prefixes=NO_PREFIXES)
        self._send(layout, EMPTY_STEP, tables)
        return layout, StepViews(self._buffers.inputs, layout), tables

    def _capture_pass(self, views: StepViews, layout: StepLayout, plan: DevicePlan, capture: Capture) -> _DecodeGraph:
        rows = self._buffers.rows_of(views)

        def run() -> None:
            self._model.run(rows, self._pages, plan)
            self._model.finish_all(rows)
            self._sample(views, rows.hidden)

        capture.warm_up(run)
        return _DecodeGraph(views, layout, plan, capture.capture(run))

    def _send(self, layout: StepLayout, batch: StepBatch, tables: SequenceTables) -> None:
        upload = self._uploads.next()
        upload.send(self._buffers.inputs, pack_step(upload.words, layout, batch, tables))
