"""Steps on a GPU: one copy in, one graph or one pass of kernels, one copy out, and the host waits for none of it.

The life of a step: (1) pages are copied, for forks; (2) its inputs are packed into pinned memory and sent; (3) a batch of
decodes replays the smallest graph that holds it, anything else runs kernel by kernel; both end with the chosen tokens in
a buffer that the next step reads on the device; (4) rows that ask for masks, penalties or logprobs are done over again
from the same logits; (5) tokens and flags start on their way to the host. `result` waits for (5) and nothing later.

Up to `NUM_IN_FLIGHT` steps may be launched and not read; their pinned memory is apart. Everything runs on one stream.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from runtime.attention.device import DeviceAttention, DevicePlan, SequenceTables
from runtime.attention.pages import copy_pages
from runtime.batch import StepBatch, StepResult
from runtime.models.fused import FusedDecoder
from runtime.models.operations import Operations, TokenSource
from runtime.runner.graphs import Replay, capture, capture_order, graph_sizes, smallest_holding
from runtime.runner.readback import Readback, ReadbackPool
from runtime.runner.rows import WholeRows
from runtime.runner.scoring import score_prompt
from runtime.runner.step_inputs import EMPTY_STEP, StepLayout, StepShape, StepViews, build_tables, num_words, pack_step
from runtime.runner.upload import UploadPool
from runtime.runner.verification import verify_ids
from runtime.sampling.logprobs import logprobs_of
from runtime.sampling.sampler import Sampler
from runtime.weights.config import ModelConfig

NUM_IN_FLIGHT = 3


@dataclass(frozen=True, slots=True)
class RunnerLimits:
    """Sizes of the buffers."""

    max_rows: int
    """Tokens in one step."""
    max_sequences: int
    """Sequences, and samples, in one step."""
    max_table_pages: int
    """Entries of all page tables of a step together."""
    cuda_graph_max_bs: int
    """Largest captured batch; 0: no graphs."""


@dataclass(frozen=True, slots=True)
class CapturedDecode:
    """The graph of one batch size."""

    layout: StepLayout
    plan: DevicePlan
    replay: Replay
    """Its output: logits [size, vocab_size]."""


@dataclass(frozen=True, slots=True)
class DeviceStep:
    """A launched step."""

    readback: Readback
    captured_size: int

    def result(self) -> StepResult:
        """See `LaunchedStep.result`."""
        host = self.readback.wait()
        return StepResult(
            token_ids=host.token_ids,
            is_finite=host.is_finite,
            logprobs=host.logprobs,
            prompt_logprobs=host.prompt_logprobs,
            embeddings=host.embeddings,
            captured_size=self.captured_size,
            busy_s=host.busy_s,
        )


class DeviceRunner:
    """A `ModelRunner` on one GPU. Built by `runtime.runner.building`; one thread calls it."""

    def __init__(
        self,
        config: ModelConfig,
        model: FusedDecoder,
        operations: Operations,
        attention: DeviceAttention,
        pages: Tensor,
        limits: RunnerLimits,
        *,
        weights_digest: str,
    ) -> None:
        self.config = config
        self.weights_digest = weights_digest
        self.pages = pages
        self._model = model
        self._operations = operations
        self._attention = attention
        self._device = pages.device
        words = num_words(
            max_rows=limits.max_rows, max_sequences=limits.max_sequences, max_pages=limits.max_table_pages
        )
        self._inputs = torch.zeros(words, dtype=torch.int32, device=self._device)
        self._samples = torch.zeros(2 * _stride(limits.max_sequences), dtype=torch.int32, device=self._device)
        self._uploads = UploadPool(words, NUM_IN_FLIGHT, self._device)
        self._readbacks = ReadbackPool(2 * _stride(limits.max_sequences), NUM_IN_FLIGHT, self._device)
        self._sampler = Sampler(config.vocab_size, self._device)
        self._num_previous = 0
        self._sizes = graph_sizes(min(limits.cuda_graph_max_bs, limits.max_sequences))
        self._graphs: dict[int, CapturedDecode] = {}

    @property
    def vocab_size(self) -> int:
        return self.config.vocab_size

    @property
    def num_pages(self) -> int:
        """Pages in the pool, the padding page included."""
        return self.pages.shape[1]

    @torch.inference_mode()
    def capture_graphs(self, *, largest_only: bool = False, advance: Callable[[], None] = lambda: None) -> None:
        """Capture every size, largest first, in one pool. Before the first step only.

        Args:
            advance: called after each.
        """
        pool = torch.cuda.graph_pool_handle() if self._device.type == "cuda" else None
        if largest_only:
            del self._sizes[:-1]
        for size in capture_order(self._sizes):
            layout = StepLayout(StepShape(size, size, size))
            views = StepViews(self._inputs, layout)
            tables = build_tables(EMPTY_STEP, size)
            self._send(layout, EMPTY_STEP, tables)
            plan = self._attention.plan_capture(views.tables, size)
            self._attention.refresh(plan, tables)
            run = partial(self._decode, views, plan)
            self._graphs[size] = CapturedDecode(layout, plan, capture(run, self._device, pool))
            advance()

    @torch.inference_mode()
    def launch(self, batch: StepBatch) -> DeviceStep:
        """See `ModelRunner.launch`."""
        verify_ids(batch, self.config.vocab_size, self._num_previous)
        readback = self._readbacks.begin()
        if batch.page_copies.size:  # (1)
            copy_pages(
                self.pages, torch.from_numpy(batch.page_copies.astype(np.int64)).to(self._device, non_blocking=True)
            )
        size = smallest_holding(self._sizes, len(batch.context_lengths)) if _is_decode(batch) else None
        hidden, logits = (None, self._replay(batch, size)) if size else self._run(batch)  # (2), (3)
        num_samples = len(batch.sample_rows)
        self._resample(batch, logits[:num_samples])  # (4)
        if batch.prompt_logprob_rows.size:
            assert hidden is not None
            readback.add_prompt_logprobs(
                score_prompt(self._model, WholeRows(), hidden, batch.prompt_logprob_rows.astype(np.int64), batch)
            )
        if batch.embedding_rows.size:
            assert hidden is not None
            rows = torch.from_numpy(batch.embedding_rows.astype(np.int64)).to(self._device, non_blocking=True)
            readback.add_embeddings(self._model.final(hidden.index_select(0, rows)))
        self._add_sample_logprobs(readback, batch, logits[:num_samples])
        stride = _stride(size or num_samples)
        readback.finish(self._samples[: 2 * stride], num_samples, stride)  # (5)
        self._num_previous = num_samples
        return DeviceStep(readback, size or 0)

    def _replay(self, batch: StepBatch, size: int) -> Tensor:
        graph = self._graphs[size]
        tables = build_tables(batch, size)
        self._send(graph.layout, batch, tables)
        self._attention.refresh(graph.plan, tables)
        graph.replay.replay()
        return graph.replay.output

    def _run(self, batch: StepBatch) -> tuple[Tensor, Tensor]:
        num_sequences = len(batch.context_lengths)
        layout = StepLayout(StepShape(len(batch.token_ids), num_sequences, len(batch.sample_rows)))
        tables = build_tables(batch, num_sequences)
        self._send(layout, batch, tables)
        views = StepViews(self._inputs, layout)
        plan = self._attention.plan(tables, views.tables)
        hidden = self._model.hidden_states(self._source(views), views.places, self.pages, plan)
        if not views.shape.num_samples:
            return hidden, hidden.new_empty(0, self.config.vocab_size)
        (logits,) = self._model.logits(hidden.index_select(0, views.sample_rows))
        self._operations.sample(logits, views.columns, self._samples_of(views))
        return hidden, logits

    def _decode(self, views: StepViews, plan: DevicePlan) -> Tensor:
        """What a graph holds: every row is sampled."""
        hidden = self._model.hidden_states(self._source(views), views.places, self.pages, plan)
        (logits,) = self._model.logits(hidden)
        self._operations.sample(logits, views.columns, self._samples_of(views))
        return logits

    def _samples_of(self, views: StepViews) -> Tensor:
        stride = _stride(views.shape.num_samples)
        return self._samples[: 2 * stride].view(2, stride)

    def _source(self, views: StepViews) -> TokenSource:
        return TokenSource(views.token_ids, views.previous_rows, self._samples)

    def _resample(self, batch: StepBatch, logits: Tensor) -> None:
        """Choose again by the full sampler, if some row needs more than temperature and noise."""
        if _is_simple(batch):
            return
        sampled = self._sampler.sample(logits.float(), batch.sampling)
        self._samples[: len(logits)] = sampled.token_ids

    def _add_sample_logprobs(self, readback: Readback, batch: StepBatch, logits: Tensor) -> None:
        counts = batch.sampling.num_logprobs
        asking = np.flatnonzero(counts >= 0)
        if not asking.size:
            return
        rows = torch.from_numpy(asking).to(self._device, non_blocking=True)
        chosen = self._samples[: len(counts)].long()
        given = logprobs_of(logits[rows].float(), chosen[rows], int(counts.max()))
        readback.add_logprobs(given.spread(rows, len(counts)))

    def _send(self, layout: StepLayout, batch: StepBatch, tables: SequenceTables) -> None:
        upload = self._uploads.next()
        upload.send(self._inputs, pack_step(upload.words, layout, batch, tables))


def _stride(num_samples: int) -> int:
    """Words from the samples' ids to their flags: kernels want both aligned to 16 bytes."""
    return -(-num_samples // 4) * 4


def _is_decode(batch: StepBatch) -> bool:
    """Whether every sequence has one token, which is sampled once, and nothing else is asked."""
    count = len(batch.context_lengths)
    return (
        len(batch.token_ids) == count
        and len(batch.sample_rows) == count
        and not batch.prompt_logprob_rows.size
        and not batch.embedding_rows.size
        and bool((batch.sample_rows == np.arange(count)).all())
    )


def _is_simple(batch: StepBatch) -> bool:
    """Whether temperature and noise are all that any row's choice needs."""
    sampling = batch.sampling
    if sampling.bias_rows.size or sampling.seen_rows.size or sampling.banned_rows.size or sampling.allowed_rows.size:
        return False
    drawn = sampling.temperature > 0
    masked = (sampling.top_p < 1) | (sampling.top_k > 0) | (sampling.min_p > 0)
    return not bool((drawn & masked).any())
