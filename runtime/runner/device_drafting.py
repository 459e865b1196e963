"""Speculation on a GPU: a step that verifies drafts, and the head that makes the next ones, as two captured graphs.

    verify:  rows are moved to where the chains before ended; the target's pass over the same number of rows of each
             sequence; logits and the choice of a token at every row
    draft:   which drafts are accepted; the head's entries for all rows; a draft, and its entry, and the next draft …

They are captured for each of a few *levels*: how many drafts a step verifies and makes. At level 0 it is a plain decode, which
reads what several contexts begin with once, as `passes` do; after it the head does nothing: what its entries follow from is kept
(`runtime.speculative.backlog`), and entered in one pass before the step in which drafts are wanted again.

Between the two the host may have tokens chosen again, from the same logits, where a mask or a penalty is asked for. Neither
needs a number that the device does not have. Steps with prompts' chunks go through the target as those of an engine without a head
do: by `pieces`, with the engine's own attention, and behind the last only the rows that are sampled go on. The rest of them, and
steps larger than any graph, run the same functions kernel by kernel.

What the head does is `head_drafting`'s; it attends by our own kernels over pages of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from runtime.attention.beside import BothPlan
from runtime.attention.device import DevicePlan, SequenceTables
from runtime.attention.shared_prefixes import NO_PREFIXES, SharedPrefixes
from runtime.attention.verifying import TreeRows
from runtime.batch import SpeculationBatch, StepBatch, TreeBatch
from runtime.draft_shape import DraftShape
from runtime.errors import EngineMisconfigured
from runtime.models.fused import FusedDecoder, StepRows
from runtime.models.operations import Operations
from runtime.runner.chain_inputs import layout_of, num_chain_words, pack_chains
from runtime.runner.graphs import Capture, Replay, capture_order, graph_sizes, shared_sizes
from runtime.runner.head_drafting import HeadDrafting, StepInputs
from runtime.runner.passes import Pass
from runtime.runner.pieces import Pieces
from runtime.runner.speculation_parts import SpeculationParts
from runtime.runner.step_buffers import RunnerLimits, StepBuffers
from runtime.runner.step_inputs import EMPTY_STEP, StepLayout, StepShape, StepViews, build_tables, pack_step
from runtime.runner.stopwatch import Stopwatch
from runtime.runner.trees import place_trees
from runtime.runner.uniform import UniformStep, make_uniform
from runtime.runner.upload import UploadPool
from runtime.step_sizes import smallest_holding


@dataclass(frozen=True, slots=True)
class _Graphs:
    """Those of one number of sequences."""

    inputs: StepInputs
    verify: Replay
    draft: Replay


def _empty_speculation(num_steps: int, shape: DraftShape) -> StepBatch:
    ints = np.zeros(0, np.int32)
    tree = TreeBatch(ints, shape.topk, shape.drafts_at(num_steps)) if shape.is_tree else None
    speculation = SpeculationBatch(
        num_decodes=0, num_pages=ints, chain_starts=np.zeros(1, np.int32), continued=ints, num_drafts=ints,
        next_ids=np.zeros(0, np.int64), num_steps=num_steps, drafts=np.zeros(0, np.bool_),
        tree=tree, deferred=None if num_steps else ints,
    )  # fmt: skip
    return replace(EMPTY_STEP, speculation=speculation)


class DeviceSpeculation:
    """Speculation of one runner, on its buffers and its stream."""

    def __init__(
        self,
        parts: SpeculationParts,
        model: FusedDecoder,
        operations: Operations,
        pages: Tensor,
        buffers: StepBuffers,
        uploads: UploadPool,
        limits: RunnerLimits,
        num_in_flight: int,
    ) -> None:
        self._parts = parts
        self._attention = parts.attention
        self._model, self._operations, self._pages = model, operations, pages
        self._buffers, self._uploads = buffers, uploads
        self._shape = shape = parts.shape
        assert limits.num_queries == shape.num_drafts + 1
        self._device = pages.device
        words = num_chain_words(limits)
        self._chain_inputs = torch.zeros(words, dtype=torch.int32, device=self._device)
        self._chain_uploads = UploadPool(words, num_in_flight, self._device)
        self.drafting = HeadDrafting(parts, operations, pages, buffers, limits, model.dtype)
        """What is done before the target's pass and behind it."""
        self._sizes = graph_sizes(min(limits.cuda_graph_max_bs, limits.max_sequences))
        self._levels = self._captured_levels = parts.levels
        self._graphs: dict[tuple[int, int], _Graphs] = {}
        """By sequences, and rows of each."""
        self._shared: dict[int, Replay] = {}
        """By sequences with one row each, for steps in which beginnings of contexts are read once for several: what verifies."""
        self._shared_sizes: list[int] = []
        self._pieces = Pieces(model, pages, buffers, uploads, limits)
        """Of steps with chunks."""
        self._sample_sizes: list[int] = []

    def keep_largest(self) -> None:
        """Only the largest size will be captured: it needs as much memory as all."""
        del self._sizes[:-1]
        self._captured_levels = self._levels[-1:]
        self._pieces.keep_largest()

    def make_uniform(self, batch: StepBatch) -> tuple[UniformStep, int]:
        """A step as it will run, and the size of its graphs; 0: it runs outside."""
        speculation = batch.speculation
        assert speculation is not None, "a step of a speculating engine says nothing of it"
        self._verify_shape(speculation)
        most, drafts_at = int(speculation.num_drafts.max(initial=0)), self._shape.drafts_at
        wanted = max(drafts_at(speculation.num_steps), most)
        num_queries = next(drafts_at(level) for level in self._levels if drafts_at(level) >= wanted) + 1
        prefixes = self._share(batch, speculation.num_decodes) if num_queries == 1 else None
        only_verifies = speculation.num_decodes == len(batch.context_lengths)
        sizes = self._sizes if prefixes is None else self._shared_sizes
        size = smallest_holding(sizes, speculation.num_decodes) if only_verifies else None
        if (size, num_queries) not in self._graphs:
            size = None
        uniform = make_uniform(batch, num_queries, size or speculation.num_decodes)
        return replace(uniform, prefixes=prefixes), size or 0

    def _share(self, batch: StepBatch, num_decodes: int) -> SharedPrefixes | None:
        """By lengths that the host knows, which may be less than the device's: what is shared is in both."""
        decodes = slice(num_decodes)
        return self._attention.target_decodes.share(batch.page_tables[decodes], batch.context_lengths[decodes])

    def _verify_shape(self, speculation: SpeculationBatch) -> None:
        """Buffers and graphs hold one shape of drafts, and would give others for it.

        Raises: EngineMisconfigured for a step of an engine with other options.
        """
        shape, tree = self._shape, speculation.tree
        wanted = (shape.topk, shape.drafts_at(speculation.num_steps)) if shape.is_tree else None
        if (None if tree is None else (tree.topk, tree.num_drafts)) != wanted:
            raise EngineMisconfigured(
                f"speculative_eagle_topk: the runner was built for {shape}, the engine drafts {tree or 'chains'}"
            )

    def capture(self, capture: Capture, advance: Callable[[], None]) -> None:
        """Capture every size, the largest first; see `Passes.capture`."""
        self._pieces.capture(capture, advance)
        for size in capture_order(self._sizes):
            for level in capture_order(self._captured_levels):
                self._graphs[size, self._shape.drafts_at(level) + 1] = self._capture(size, level, capture)
                advance()
        for size in capture_order(shared_sizes(self._sizes)):
            replay = self._capture_shared(size, capture)
            if replay is not None:
                self._shared[size] = replay
                advance()
        self._shared_sizes = sorted(self._shared)
        self._sample_sizes = sorted({size * num_queries for size, num_queries in self._graphs})

    def rehearse(self, num_sequences: int, level: int) -> None:
        """Enqueue what a step that only decodes does at a level, whatever its inputs hold; where kernels are only recorded."""
        step = self._empty_step(num_sequences, level)
        inputs = self._inputs_of(step)
        self._verify(inputs, self._planner(step, _tables_of(step), inputs))
        self.drafting.draft(inputs, level)

    def verify(self, step: UniformStep, size: int) -> Pass:
        """Enqueue the target's pass, and the choice of all samples by temperature and noise."""
        tables = _tables_of(step)
        if size:
            graphs = self._graphs[size, step.num_queries]
            inputs = graphs.inputs
            self._send(inputs, step, tables)
            (graphs.verify if step.prefixes is None else self._shared[size]).replay()
        else:
            inputs = self._inputs_of(step)
            self._send(inputs, step, tables)
            needs_all = bool(step.batch.prompt_logprob_rows.size or step.batch.embedding_rows.size)
            self._verify(inputs, self._planner(step, tables, inputs), needs_all=needs_all)
        num_samples = len(step.batch.sample_rows)
        num_captured = inputs.piece_size or size * step.num_queries
        return Pass(self._buffers.rows_of(inputs.views).hidden, self._buffers.logits, num_captured, num_samples)

    def positions_of_samples(self, step: UniformStep) -> Tensor:
        """[num_samples] int64: the positions of a step that `verify` has enqueued, as only the device knows them."""
        return self._inputs_of(step).views.columns.positions

    def draft(self, step: UniformStep, size: int, watch: Stopwatch) -> None:
        """Enqueue what comes after the tokens are chosen; `state` then holds what the step gave."""
        num_steps, defers = step.speculation.num_steps, step.speculation.deferred is not None
        is_captured = self._shape.drafts_at(num_steps) == step.num_queries - 1 and defers == (num_steps == 0)
        if size and is_captured:
            self._graphs[size, step.num_queries].draft.replay()
        elif defers or step.is_verification:
            self.drafting.draft(self._inputs_of(step), num_steps)
        else:
            self.drafting.draft(self._inputs_of(step), num_steps, watch)

    def _verify(self, inputs: StepInputs, plan: "_PlanFor", *, needs_all: bool = False) -> None:
        """`needs_all`: the last hidden states of all rows are asked for, and left in place."""
        views, rows = inputs.views, self._buffers.rows_of(inputs.views)
        tree = self._place_rows(inputs) if len(inputs.chains.continued) else None
        if inputs.piece_size is not None:
            self._pieces.run(inputs.piece_size, plan(tree), rows, len(inputs.chains.next_ids))
        else:
            self._model.run(rows, self._pages, plan(tree))
        hidden = self._finish(inputs, rows, needs_all=needs_all or self._model.keeps_last)
        if num_samples := views.shape.num_samples:
            (logits,) = self._model.logits(hidden, self._buffers.logits[: len(hidden)])
            self._operations.sample(logits[:num_samples], views.columns, self._buffers.samples_of(views))

    def _finish(self, inputs: StepInputs, rows: StepRows, *, needs_all: bool) -> Tensor:
        """Last hidden states of the samples, and of padding behind them."""
        if inputs.is_verification or needs_all:
            self._model.finish_all(rows)
        if inputs.is_verification:
            return rows.hidden
        sample_rows = self._padded(inputs.views.sample_rows)
        hidden = rows.hidden.index_select(0, sample_rows)
        if len(hidden) and not needs_all:
            self._model.finish(hidden, rows.attended.index_select(0, sample_rows))
        return hidden

    def _padded(self, sample_rows: Tensor) -> Tensor:
        """As many as some graph samples: its capture has loaded the kernels for that number, see `Passes`."""
        num_samples = len(sample_rows)
        size = num_samples and smallest_holding(self._sample_sizes, num_samples)
        return pad(sample_rows, (0, size - num_samples)) if size else sample_rows

    def _place_rows(self, inputs: StepInputs) -> TreeRows | None:
        """Single rows are no trees, and see all that is before them."""
        views, chains, num_positions = inputs.views, inputs.chains, self._model.num_positions
        if self.drafting.trees is None or chains.num_queries == 1:
            self._parts.chains.place_rows(views, chains, self.drafting.state, num_positions)
            return None
        return place_trees(
            views,
            chains,
            self.drafting.state,
            self.drafting.trees,
            num_steps=self._shape.num_steps,
            num_positions=num_positions,
        )

    def _capture(self, size: int, level: int, capture: Capture) -> _Graphs:
        step = self._empty_step(size, level)
        inputs = self._inputs_of(step)
        verify = self._prepare_verify(step, inputs)

        def draft() -> None:
            self.drafting.draft(inputs, level)

        capture.warm_up(verify)
        capture.warm_up(draft)
        return _Graphs(inputs, capture.capture(verify), capture.capture(draft))

    def _capture_shared(self, size: int, capture: Capture) -> Replay | None:
        """Over the same inputs, and with the same way of drafting behind it, as without groups."""
        graphs = self._graphs.get((size, 1))
        if graphs is None or self._attention.target_decodes.plan_shared(graphs.inputs.views.tables, size) is None:
            return None
        verify = self._prepare_verify(replace(self._empty_step(size, 0), prefixes=NO_PREFIXES), graphs.inputs)
        capture.warm_up(verify)
        return capture.capture(verify)

    def _prepare_verify(self, step: UniformStep, inputs: StepInputs) -> Callable[[], None]:
        """What a graph of the target's pass holds, with the inputs of such a step on the device."""
        tables = _tables_of(step)
        self._send(inputs, step, tables)
        return partial(self._verify, inputs, self._planner(step, tables, inputs))

    def _empty_step(self, num_sequences: int, level: int) -> UniformStep:
        """Of padding alone."""
        return make_uniform(_empty_speculation(level, self._shape), self._shape.drafts_at(level) + 1, num_sequences)

    def _inputs_of(self, step: UniformStep) -> StepInputs:
        batch, num_rows = step.batch, len(step.batch.token_ids)
        piece_size = None if step.is_verification else self._pieces.size_of(num_rows)
        shape = StepShape(piece_size or num_rows, len(batch.context_lengths), len(batch.sample_rows))
        layout, chain_layout = StepLayout(shape), layout_of(step)
        views = StepViews(self._buffers.inputs, layout)
        return StepInputs(layout, views, chain_layout, chain_layout.views(self._chain_inputs), piece_size)

    def _planner(self, step: UniformStep, tables: SequenceTables, inputs: StepInputs) -> "_PlanFor":
        """Attention of the target, planned before a capture begins where it can be: not where trees are found in it."""
        if self.drafting.trees is None or step.num_queries == 1 or not step.speculation.num_decodes:
            plan = self._plan(step, tables, inputs, None)
            return lambda _tree: plan
        return partial(self._plan, step, tables, inputs)

    def _plan(self, step: UniformStep, tables: SequenceTables, inputs: StepInputs, tree: TreeRows | None) -> DevicePlan:
        """Attention of the target."""
        num_decodes = step.speculation.num_decodes
        if len(step.batch.token_ids) == num_decodes * step.num_queries:
            return self._plan_answers(step, inputs, tree)
        attention = self._attention.target_chunks
        chunks = attention.plan_chunks(replace(tables, num_decodes=num_decodes), inputs.views.tables)
        return BothPlan(self._plan_answers(step, inputs, tree), chunks, attention.beside) if num_decodes else chunks

    def _plan_answers(self, step: UniformStep, inputs: StepInputs, tree: TreeRows | None) -> DevicePlan:
        attention, device, num_decodes = self._attention, inputs.views.tables, step.speculation.num_decodes
        if step.num_queries == 1:
            shared = None if step.prefixes is None else attention.target_decodes.plan_shared(device, num_decodes)
            return shared if shared is not None else attention.target_decodes.plan_capture(device, num_decodes)
        return attention.target_rows.plan(device, num_decodes, step.num_queries, tree)

    def _send(self, inputs: StepInputs, step: UniformStep, tables: SequenceTables) -> None:
        upload, chain_upload = self._uploads.next(), self._chain_uploads.next()
        upload.send(self._buffers.inputs, pack_step(upload.words, inputs.layout, step.batch, tables))
        chain_upload.send(self._chain_inputs, pack_chains(chain_upload.words, inputs.chain_layout, step))


def _tables_of(step: UniformStep) -> SequenceTables:
    return replace(build_tables(step.batch, len(step.batch.context_lengths)), prefixes=step.prefixes)


_PlanFor = Callable[[TreeRows | None], DevicePlan]
