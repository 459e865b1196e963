"""Speculation on a GPU: a step that verifies drafts, and the head that makes the next ones, as two captured graphs.

    verify:  rows are moved to where the chains before ended; the target's pass over the same number of rows of each
             sequence; logits and the choice of a token at every row
    draft:   which drafts are accepted; the head's entries for all rows; a draft, and its entry, and the next draft …

They are captured for each of a few *levels*: how many drafts a step verifies and makes. At level 0 it is a plain decode, after
which the head does nothing: what its entries follow from is kept (`runtime.speculative.backlog`), and entered in one pass
before the step in which drafts are wanted again.

Between the two the host may have tokens chosen again, from the same logits, where a mask or a penalty is asked for. Neither
needs a number that the device does not have. Steps with prompts' chunks, and those larger than any graph, run the same
functions kernel by kernel; their chunks attend by the engine's own backend.

The head attends by our own kernels over pages of its own. Its drafts are greedy, whatever the temperature: at each position
one token is chosen by the seed's noise, and the likeliest is most often that one.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from runtime.attention.device import DevicePlan, SequenceTables
from runtime.attention.pages import copy_pages, move_slots
from runtime.attention.verifying import TreeRows
from runtime.batch import SpeculationBatch, StepBatch, TreeBatch
from runtime.draft_shape import DraftShape
from runtime.errors import EngineMisconfigured
from runtime.models.fused import FusedDecoder
from runtime.models.operations import DraftTokens, Operations, SampleColumns, TokenPlaces
from runtime.runner.chain_inputs import ChainLayout, layout_of, num_chain_words, pack_chains
from runtime.runner.chains import ChainState, ChainViews, DraftStart, draft_places
from runtime.runner.graphs import Capture, Replay, capture_order, graph_sizes
from runtime.runner.passes import Pass
from runtime.runner.speculation_parts import SpeculationParts
from runtime.runner.step_buffers import RunnerLimits, StepBuffers, sample_stride
from runtime.runner.step_inputs import EMPTY_STEP, StepLayout, StepShape, StepViews, build_tables, pack_step
from runtime.runner.stopwatch import Stopwatch
from runtime.runner.trees import TreeDrafting, TreeState, accept_trees, new_tree_state, place_trees
from runtime.runner.uniform import UniformStep, make_uniform
from runtime.runner.upload import UploadPool
from runtime.speculative.backlog import Backlog
from runtime.speculative.fused import Entries
from runtime.step_sizes import smallest_holding


@dataclass(frozen=True, slots=True)
class _Inputs:
    """The inputs of one step on the device."""

    layout: StepLayout
    views: StepViews
    chain_layout: ChainLayout
    chains: ChainViews


@dataclass(frozen=True, slots=True)
class _Graphs:
    """Those of one number of sequences."""

    inputs: _Inputs
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
        self._attention, self._head = parts.attention, parts.head
        self._model, self._operations, self._pages = model, operations, pages
        self._buffers, self._uploads = buffers, uploads
        self._shape = shape = parts.shape
        assert limits.num_queries == shape.num_drafts + 1
        self._device = pages.device
        words = num_chain_words(limits)
        self._chain_inputs = torch.zeros(words, dtype=torch.int32, device=self._device)
        self._chain_uploads = UploadPool(words, num_in_flight, self._device)
        most = limits.max_sequences

        def ints(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.int32, device=self._device)

        self._backlog = Backlog(parts.head.captured_size, dtype=model.dtype, device=self._device)
        self._max_rows = limits.max_rows
        self.state = ChainState(ints(most), ints(most), ints(most, shape.num_drafts))
        self._trees: TreeState | None = None
        if shape.is_tree:
            assert parts.attention.head_rows is not None
            self._trees = new_tree_state(shape, most, self._device)
            self._tree_drafting = TreeDrafting(parts.head, parts.attention.head_rows, shape)
        self._draft_samples = ints(2 * sample_stride(most))
        longs = torch.zeros(most, dtype=torch.int64, device=self._device)
        self._greedy = SampleColumns(torch.zeros(most, dtype=torch.float32, device=self._device), longs, longs)
        self._sizes = graph_sizes(min(limits.cuda_graph_max_bs, most))
        self._levels = self._captured_levels = parts.levels
        self._graphs: dict[tuple[int, int], _Graphs] = {}
        """By sequences, and rows of each."""

    def keep_largest(self) -> None:
        """Only the largest size will be captured: it needs as much memory as all."""
        del self._sizes[:-1]
        self._captured_levels = self._levels[-1:]

    def copy_pages(self, copies: Tensor) -> None:
        """See `runtime.attention.pages.copy_pages`."""
        copy_pages(self._parts.head_pages, copies)

    def make_uniform(self, batch: StepBatch) -> tuple[UniformStep, int]:
        """A step as it will run, and the size of its graphs; 0: it runs outside."""
        speculation = batch.speculation
        assert speculation is not None, "a step of a speculating engine says nothing of it"
        self._verify_shape(speculation)
        only_verifies = speculation.num_decodes == len(batch.context_lengths)
        size = smallest_holding(self._sizes, speculation.num_decodes) if only_verifies else None
        most, drafts_at = int(speculation.num_drafts.max(initial=0)), self._shape.drafts_at
        wanted = max(drafts_at(speculation.num_steps), most)
        num_queries = next(drafts_at(level) for level in self._levels if drafts_at(level) >= wanted) + 1
        if (size, num_queries) not in self._graphs:
            size = None
        return make_uniform(batch, num_queries, size or speculation.num_decodes), size or 0

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
        for size in capture_order(self._sizes):
            for level in capture_order(self._captured_levels):
                self._graphs[size, self._shape.drafts_at(level) + 1] = self._capture(size, level, capture)
                advance()

    def rehearse(self, num_sequences: int, level: int) -> None:
        """Enqueue what a step that only decodes does at a level, whatever its inputs hold; where kernels are only recorded."""
        step = self._empty_step(num_sequences, level)
        inputs = self._inputs_of(step)
        self._verify(inputs, self._planner(step, build_tables(step.batch, num_sequences), inputs))
        self._draft(inputs, level)

    def catch_up(self, step: UniformStep, watch: Stopwatch) -> None:
        """Enqueue the late entries that the step asks for."""
        late = step.speculation.late
        if late is None:
            return
        columns = torch.from_numpy(np.stack([late.places, late.positions, late.slots]).astype(np.int32))
        with watch.running():
            for piece in columns.to(self._device, non_blocking=True).split(self._max_rows, dim=1):
                captured, next_ids = self._backlog.take(piece[0].long())
                places = TokenPlaces(piece[1].clone(), piece[2].clone())  # aligned
                self._head.enter(DraftTokens(next_ids), self._head.combine(captured), places)

    def verify(self, step: UniformStep, size: int) -> Pass:
        """Enqueue the target's pass, and the choice of all samples by temperature and noise."""
        tables = build_tables(step.batch, len(step.batch.context_lengths))
        if size:
            graphs = self._graphs[size, step.num_queries]
            inputs = graphs.inputs
            self._send(inputs, step, tables)
            graphs.verify.replay()
        else:
            inputs = self._inputs_of(step)
            self._send(inputs, step, tables)
            self._verify(inputs, self._planner(step, tables, inputs))
        num_samples = len(step.batch.sample_rows)
        num_captured = size * step.num_queries
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
            self._draft(self._inputs_of(step), num_steps)
        else:
            self._draft(self._inputs_of(step), num_steps, watch)

    def result_of(self, step: UniformStep) -> Tensor:
        """[num_chains, 1 + num_drafts] int32, on the device: how many tokens each chain got, and its drafts.

        Of trees the parents of drafts and then the paths of accepted tokens stand behind them, see `TreeResult`.
        """
        count, state, num_drafts = step.num_chains, self.state, self._shape.drafts_at(step.speculation.num_steps)
        parts = [state.num_tokens[:count, None], state.drafts[:count, :num_drafts]]
        if self._trees is not None:
            parts += [self._trees.parents[:count, :num_drafts].int(), self._trees.paths[:count].int()]
        return torch.cat(parts, dim=1)

    def _verify(self, inputs: _Inputs, plan: "_PlanFor") -> None:
        views, rows = inputs.views, self._buffers.rows_of(inputs.views)
        tree = self._place_rows(inputs) if len(inputs.chains.continued) else None
        self._model.run(rows, self._pages, plan(tree))
        self._model.finish_all(rows)
        num_samples = views.shape.num_samples
        if not num_samples:
            return
        hidden = rows.hidden
        if num_samples != views.shape.num_rows:
            hidden = hidden.index_select(0, views.sample_rows)
        (logits,) = self._model.logits(hidden, self._buffers.logits[:num_samples])
        self._operations.sample(logits, views.columns, self._buffers.samples_of(views))

    def _place_rows(self, inputs: _Inputs) -> TreeRows | None:
        """Single rows are no trees, and see all that is before them."""
        views, chains, num_positions = inputs.views, inputs.chains, self._model.num_positions
        if self._trees is None or chains.num_queries == 1:
            self._parts.chains.place_rows(views, chains, self.state, num_positions)
            return None
        return place_trees(
            views, chains, self.state, self._trees, num_steps=self._shape.num_steps, num_positions=num_positions
        )

    def _draft(self, inputs: _Inputs, num_steps: int, watch: Stopwatch | None = None) -> None:
        """`watch`: of the entries, where the step is not captured."""
        views, chains = inputs.views, inputs.chains
        samples = self._buffers.samples[: views.shape.num_samples]
        if not len(chains.chain_sequences):
            self._take_in(inputs, samples, watch)
        elif self._trees is not None:
            self._draft_trees(inputs, samples, num_steps, self._trees, watch)
        else:
            start = self._parts.chains.accept(
                views, chains, samples, self.state, num_steps=num_steps, num_positions=self._head.num_positions
            )
            entries = self._take_in(inputs, samples, watch)
            if entries is not None and num_steps:
                self._chain(entries.select(start.last_rows), start)

    def _take_in(self, inputs: _Inputs, samples: Tensor, watch: Stopwatch | None) -> Entries | None:
        """The head's entries for all rows; None: what they follow from is kept instead."""
        views, rows = inputs.views, self._buffers.rows_of(inputs.views)
        assert rows.captured is not None
        next_ids = samples
        if views.shape.num_samples != views.shape.num_rows:
            next_ids = inputs.chains.next_ids.index_copy(0, views.sample_rows.long(), samples)
        if inputs.chains.deferred is not None:
            self._backlog.keep(inputs.chains.deferred.long(), rows.captured, next_ids)
            return None
        with watch.running() if watch is not None else nullcontext():
            return self._head.enter(DraftTokens(next_ids), self._head.combine(rows.captured), views.places)

    def _draft_trees(
        self, inputs: _Inputs, samples: Tensor, num_steps: int, trees: TreeState, watch: Stopwatch | None
    ) -> None:
        """Accept, move what both caches hold of it, and grow trees behind the newest entries, into the state."""
        views, chains = inputs.views, inputs.chains
        last_rows, moves = accept_trees(views, chains, samples, self.state, trees, num_steps=self._shape.num_steps)
        entries = self._take_in(inputs, samples, watch)
        move_slots(self._pages, *moves)
        move_slots(self._parts.head_pages, *moves)
        if entries is None or not num_steps:
            return
        start = draft_places(views, chains, last_rows, 1, self._head.num_positions)[0]
        count, num_drafts = len(last_rows), self._shape.drafts_at(num_steps)
        plan = self._attention.head.plan_capture(start.tables, count)
        hidden = self._head.ask(entries.select(last_rows), plan)
        drafts, parents = self._tree_drafting.grow(hidden, start, views, chains, num_steps)
        self.state.drafts[:count, :num_drafts].copy_(drafts)
        trees.parents[:count, :num_drafts].copy_(parents)

    def _chain(self, entries: Entries, start: DraftStart) -> None:
        """Draft behind the newest entries of all chains, into `state`."""
        count, last = len(entries.query), len(start.places) - 1
        for step, place in enumerate(start.places):
            hidden = self._head.ask(entries, self._attention.head.plan_capture(place.tables, count))
            best = self._best(hidden)
            if step < last:
                tokens = DraftTokens(best, self._head.target_ids, self.state.drafts, step)
                entries = self._head.enter(tokens, hidden, start.places[step + 1].places)
        self.state.drafts[:count, last].copy_(self._head.target_ids.index_select(0, best))

    def _best(self, hidden: Tensor) -> Tensor:
        """[num_chains, hidden_size] → the likeliest of the draft vocabulary, [num_chains] int32."""
        logits = self._head.logits(hidden)
        count = len(logits)
        stride = sample_stride(count)
        samples = self._draft_samples[: 2 * stride].view(2, stride)
        greedy = self._greedy
        columns = SampleColumns(greedy.temperature[:count], greedy.seeds[:count], greedy.positions[:count])
        self._operations.sample(logits, columns, samples)
        return samples[0, :count]

    def _capture(self, size: int, level: int, capture: Capture) -> _Graphs:
        step = self._empty_step(size, level)
        inputs = self._inputs_of(step)
        tables = build_tables(step.batch, size)
        self._send(inputs, step, tables)
        plan = self._planner(step, tables, inputs)

        def verify() -> None:
            self._verify(inputs, plan)

        def draft() -> None:
            self._draft(inputs, level)

        capture.warm_up(verify)
        capture.warm_up(draft)
        return _Graphs(inputs, capture.capture(verify), capture.capture(draft))

    def _empty_step(self, num_sequences: int, level: int) -> UniformStep:
        """Of padding alone."""
        return make_uniform(_empty_speculation(level, self._shape), self._shape.drafts_at(level) + 1, num_sequences)

    def _inputs_of(self, step: UniformStep) -> _Inputs:
        batch = step.batch
        shape = StepShape(len(batch.token_ids), len(batch.context_lengths), len(batch.sample_rows))
        layout, chain_layout = StepLayout(shape), layout_of(step)
        views = StepViews(self._buffers.inputs, layout)
        return _Inputs(layout, views, chain_layout, chain_layout.views(self._chain_inputs))

    def _planner(self, step: UniformStep, tables: SequenceTables, inputs: _Inputs) -> "_PlanFor":
        """Attention of the target, planned before a capture begins where it can be: not where trees are found in it."""
        if self._trees is None or step.num_queries == 1 or not step.speculation.num_decodes:
            plan = self._plan(step, tables, inputs, None)
            return lambda _tree: plan
        return partial(self._plan, step, tables, inputs)

    def _plan(self, step: UniformStep, tables: SequenceTables, inputs: _Inputs, tree: TreeRows | None) -> "_Parts":
        """Attention of the target."""
        attention, device = self._attention, inputs.views.tables
        num_decodes, num_queries = step.speculation.num_decodes, step.num_queries
        parts: list[DevicePlan] = []
        if num_decodes and num_queries == 1:
            parts.append(attention.target_decodes.plan_capture(device, num_decodes))
        elif num_decodes:
            parts.append(attention.target_rows.plan(device, num_decodes, num_queries, tree))
        if len(step.batch.token_ids) > num_decodes * num_queries:
            parts.append(attention.target_chunks.plan_chunks(replace(tables, num_decodes=num_decodes), device))
        return _Parts(parts)

    def _send(self, inputs: _Inputs, step: UniformStep, tables: SequenceTables) -> None:
        upload, chain_upload = self._uploads.next(), self._chain_uploads.next()
        upload.send(self._buffers.inputs, pack_step(upload.words, inputs.layout, step.batch, tables))
        chain_upload.send(self._chain_inputs, pack_chains(chain_upload.words, inputs.chain_layout, step))


_PlanFor = Callable[[TreeRows | None], DevicePlan]


class _Parts:
    """The plans of a step's parts, each over rows of its own."""

    def __init__(self, parts: list[DevicePlan]) -> None:
        self._parts = parts

    def attend(self, layer: int, query: Tensor, out: Tensor) -> None:
        """See `DevicePlan.attend`."""
        for part in self._parts:
            part.attend(layer, query, out)
