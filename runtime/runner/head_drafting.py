"""The head's part of a step on a GPU: which drafts are accepted, the head's entries for all rows, and a draft, its entry, and the
next draft …, along a chain or in a tree.

Its drafts are greedy, whatever the temperature: at each position one token is chosen by the seed's noise, and the likeliest is
most often that one. What a step gives stays on the device, in `ChainState` and `TreeState`, where the next one finds it.

`draft` is capture-safe; `runtime.speculative.drafting` does the same in plain torch.
"""

from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from runtime.attention.pages import copy_pages, move_slots
from runtime.models.operations import DraftTokens, Operations, SampleColumns, TokenPlaces
from runtime.runner.chain_inputs import ChainLayout
from runtime.runner.chains import ChainState, ChainViews, DraftStart, draft_places
from runtime.runner.speculation_parts import SpeculationParts
from runtime.runner.step_buffers import RunnerLimits, StepBuffers, sample_stride
from runtime.runner.step_inputs import StepLayout, StepViews
from runtime.runner.stopwatch import Stopwatch
from runtime.runner.trees import TreeDrafting, TreeState, accept_trees, new_tree_state
from runtime.runner.uniform import UniformStep
from runtime.speculative.backlog import Backlog
from runtime.speculative.fused import Entries


@dataclass(frozen=True, slots=True)
class StepInputs:
    """The inputs of one step on the device."""

    layout: StepLayout
    views: StepViews
    chain_layout: ChainLayout
    chains: ChainViews
    piece_size: int | None = None
    """Rows of the target's graphs, padding included, in a step that goes through it by pieces; `chains` are of its own rows."""

    @property
    def is_verification(self) -> bool:
        """Whether all rows are of answers: then each of them is sampled."""
        return len(self.chains.continued) * self.chains.num_queries == len(self.chains.next_ids)


class HeadDrafting:
    """The head of one runner, over pages of its own and the runner's buffers."""

    def __init__(
        self,
        parts: SpeculationParts,
        operations: Operations,
        pages: Tensor,
        buffers: StepBuffers,
        limits: RunnerLimits,
        dtype: torch.dtype,
    ) -> None:
        """
        Args:
            pages: the target's cache: what is accepted of a tree is moved in both.
            dtype: of activations.
        """
        self._parts, self._head, self._shape = parts, parts.head, parts.shape
        self._operations, self._pages, self._buffers = operations, pages, buffers
        self._device, most, shape = pages.device, limits.max_sequences, parts.shape

        def ints(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.int32, device=self._device)

        self._backlog = Backlog(parts.head.captured_size, dtype=dtype, device=self._device)
        self._max_rows = limits.max_rows
        self.state = ChainState(ints(most), ints(most), ints(most, shape.num_drafts))
        self.trees: TreeState | None = None
        if shape.is_tree:
            assert parts.attention.head_rows is not None
            self.trees = new_tree_state(shape, most, self._device)
            self._tree_drafting = TreeDrafting(parts.head, parts.attention.head_rows, shape)
        self._draft_samples = ints(2 * sample_stride(most))
        longs = torch.zeros(most, dtype=torch.int64, device=self._device)
        self._greedy = SampleColumns(torch.zeros(most, dtype=torch.float32, device=self._device), longs, longs)

    def copy_pages(self, copies: Tensor) -> None:
        """See `runtime.attention.pages.copy_pages`."""
        copy_pages(self._parts.head_pages, copies)

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

    def draft(self, inputs: StepInputs, num_steps: int, watch: Stopwatch | None = None) -> None:
        """Enqueue what comes after the tokens are chosen; `state` then holds what the step gave.

        Args:
            num_steps: drafts to make for the next step.
            watch: of the entries, where the step is not captured.
        """
        views, chains = inputs.views, inputs.chains
        samples = self._buffers.samples[: views.shape.num_samples]
        if not len(chains.chain_sequences):
            self._take_in(inputs, samples, watch)
        elif self.trees is not None:
            self._draft_trees(inputs, samples, num_steps, self.trees, watch)
        else:
            start = self._parts.chains.accept(
                views, chains, samples, self.state, num_steps=num_steps, num_positions=self._head.num_positions
            )
            entries = self._take_in(inputs, samples, watch)
            if entries is not None and num_steps:
                self._chain(entries.select(start.last_rows), start)

    def result_of(self, step: UniformStep) -> Tensor:
        """[num_chains, 1 + num_drafts] int32, on the device: how many tokens each chain got, and its drafts.

        Of trees the parents of drafts and then the paths of accepted tokens stand behind them, see `TreeResult`.
        """
        count, state, num_drafts = step.num_chains, self.state, self._shape.drafts_at(step.speculation.num_steps)
        parts = [state.num_tokens[:count, None], state.drafts[:count, :num_drafts]]
        if self.trees is not None:
            parts += [self.trees.parents[:count, :num_drafts].int(), self.trees.paths[:count].int()]
        return torch.cat(parts, dim=1)

    def _take_in(self, inputs: StepInputs, samples: Tensor, watch: Stopwatch | None) -> Entries | None:
        """The head's entries for all rows; None: what they follow from is kept instead."""
        views, num_rows = inputs.views, len(inputs.chains.next_ids)
        captured = self._buffers.rows_of(views).captured
        assert captured is not None
        next_ids, captured = samples, captured[:num_rows]
        if not inputs.is_verification:
            next_ids = inputs.chains.next_ids.index_copy(0, views.sample_rows.long(), samples)
        if inputs.chains.deferred is not None:
            self._backlog.keep(inputs.chains.deferred.long(), captured, next_ids)
            return None
        places = TokenPlaces(views.places.positions[:num_rows], views.places.slots[:num_rows])
        with watch.running() if watch is not None else nullcontext():
            return self._head.enter(DraftTokens(next_ids), self._head.combine(captured), places)

    def _draft_trees(
        self, inputs: StepInputs, samples: Tensor, num_steps: int, trees: TreeState, watch: Stopwatch | None
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
        plan = self._parts.attention.head.plan_capture(start.tables, count)
        hidden = self._head.ask(entries.select(last_rows), plan)
        drafts, parents = self._tree_drafting.grow(hidden, start, views, chains, num_steps)
        self.state.drafts[:count, :num_drafts].copy_(drafts)
        trees.parents[:count, :num_drafts].copy_(parents)

    def _chain(self, entries: Entries, start: DraftStart) -> None:
        """Draft behind the newest entries of all chains, into `state`."""
        count, last = len(entries.query), len(start.places) - 1
        for step, place in enumerate(start.places):
            hidden = self._head.ask(entries, self._parts.attention.head.plan_capture(place.tables, count))
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
