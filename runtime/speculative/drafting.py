"""The head's part of a step, in plain torch: entries for all that the target computed, then drafts token by token.

The reference, as `runtime.runner.torch_runner` is for the target; on a GPU `runtime.runner.head_drafting` does the same.
"""

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from runtime.attention.backend import AttentionBatch, Tails
from runtime.attention.pages import allocate_pages, copy_pages, key_rows, move_slots, write_kv
from runtime.attention.reference import ReferenceAttention
from runtime.batch import Int32, Int64, StepBatch, TreeBatch
from runtime.identifiers import PAGE_SIZE
from runtime.speculative.backlog import DROPPED, Backlog
from runtime.speculative.config import NUM_CAPTURED
from runtime.speculative.growing import GrowingTrees
from runtime.speculative.head import DraftHead, Entries


class Drafter:
    """A head over pages of its own, which have the numbers of the target's."""

    def __init__(self, head: DraftHead, *, num_pages: int) -> None:
        config = head.config
        self._head = head
        self.captured_layers = config.captured_layers
        self.pages = allocate_pages(
            num_layers=1,
            num_pages=num_pages,
            num_kv_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            device=head.embedding.device,
            dtype=head.embedding.dtype,
        )
        self._attention = ReferenceAttention(self.pages, num_heads=config.num_heads, layer_windows=(None,))
        embedding = head.embedding
        width = NUM_CAPTURED * config.target_hidden_size
        self._backlog = Backlog(width, dtype=embedding.dtype, device=embedding.device)
        self.prefill_s = 0.0
        """That the last step's entries took, if it had prompts or late ones."""

    def copy_pages(self, copies: Tensor) -> None:
        """See `runtime.attention.pages.copy_pages`."""
        copy_pages(self.pages, copies)

    def draft(self, batch: StepBatch, captured: Tensor, chosen: Int64, num_tokens: Int32) -> Int64:
        """Store the head's entries of a step, and draft.

        Args:
            batch: with `speculation`, its places known.
            captured: [num_tokens of the batch, 3 * target_hidden_size], the target's hidden states at the rows.
            chosen: [num_samples] token ids.
            num_tokens: [num_chains], see `ChainResult`.
        Returns: [num_chains, num_steps]; rows of chains that do not ask for drafts are 0.
        """
        speculation = batch.speculation
        assert speculation is not None
        entries = self._take_in(batch, captured, chosen)
        drafts = np.zeros((len(num_tokens), speculation.num_steps), np.int64)
        start = self._start(batch, entries, speculation.chain_starts[:-1] + num_tokens - 1)
        if start is not None:
            drafts[start.chains] = self._chain(start, speculation.num_steps).cpu().numpy()
        return drafts

    def draft_trees(
        self, batch: StepBatch, captured: Tensor, chosen: Int64, last_samples: Int64, moves: tuple[Tensor, Tensor]
    ) -> tuple[Int64, Int64]:
        """The same with `SpeculationBatch.tree`.

        Args:
            last_samples: [num_chains], the sample that chose each one's newest token.
            moves: slots of what was accepted and where they go, see `move_slots`.
        Returns: drafts and their parents, [num_chains, num_drafts] each.
        """
        speculation = batch.speculation
        assert speculation is not None
        assert speculation.tree is not None
        entries = self._take_in(batch, captured, chosen)
        move_slots(self.pages, *moves)
        shape = (len(last_samples), speculation.tree.num_drafts)
        drafts, parents = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        start = self._start(batch, entries, last_samples)
        if start is not None:
            kept = self._tree(start, speculation.num_steps, speculation.tree)
            drafts[start.chains], parents[start.chains] = (part.cpu().numpy() for part in kept)
        return drafts, parents

    def _take_in(self, batch: StepBatch, captured: Tensor, chosen: Int64) -> Entries | None:
        """Late entries, and those of all rows of a step; or their rows go to the backlog: None."""
        speculation = batch.speculation
        assert speculation is not None
        next_ids = speculation.next_ids.copy()
        next_ids[batch.sample_rows[::-1]] = chosen[::-1]  # of choices that share a row the first counts
        started = time.perf_counter()
        if (late := speculation.late) is not None:
            states, late_ids = self._backlog.take(torch.from_numpy(late.places.astype(np.int64)).to(captured.device))
            self._enter(late_ids.long(), self._head.combine(states), late.positions, late.slots)
        entries = None
        if speculation.deferred is None:
            entries = self._enter(next_ids, self._head.combine(captured), batch.positions, batch.slots)
        else:
            places = np.where(speculation.deferred < 0, DROPPED, speculation.deferred).astype(np.int64)
            ids = torch.from_numpy(next_ids).to(captured.device)
            self._backlog.keep(torch.from_numpy(places).to(captured.device), captured, ids)
        is_prefill = entries is not None and (late is not None or speculation.num_decodes < len(batch.context_lengths))
        self.prefill_s = time.perf_counter() - started if is_prefill else 0.0
        return entries

    def _start(self, batch: StepBatch, entries: Entries | None, last_samples: Int64 | Int32) -> "_Start | None":
        """Where drafts begin, of the chains that ask for some; None where nobody does."""
        speculation = batch.speculation
        assert speculation is not None
        chains = np.flatnonzero(speculation.drafts)
        if entries is None or not (speculation.num_steps and chains.size):
            return None
        rows = batch.sample_rows[last_samples[chains]].astype(np.int64)
        sequences = np.searchsorted(batch.query_starts, rows, side="right") - 1
        chosen_entries = entries.select(torch.from_numpy(rows).to(entries.query.device))
        first_pages = (
            np.zeros(len(chains), np.int32) if speculation.first_pages is None else speculation.first_pages[chains]
        )
        return _Start(chains, chosen_entries, batch.positions[rows], batch.page_tables[sequences], first_pages)

    def _enter(self, token_ids: Int64 | Tensor, hidden: Tensor, positions: Int64, slots: Int64) -> Entries:
        """Compute entries and write their keys and values; a key follows from its own row, as there is one layer."""
        device = hidden.device
        ids = token_ids if isinstance(token_ids, Tensor) else torch.from_numpy(token_ids).to(device)
        bounded = torch.from_numpy(np.minimum(positions, self._head.rotary.num_positions - 1)).to(device)
        entries = self._head.enter(ids, hidden, bounded)
        write_kv(self.pages[0], entries.key, entries.value, key_rows(torch.from_numpy(slots).to(device)))
        return entries

    def _chain(self, start: "_Start", num_steps: int) -> Tensor:
        """[num_chains, num_steps]"""
        ends, tables = start.ends, _widened(start.tables, int(start.ends.max()) + num_steps)
        seen, firsts = _seen(tables, start.first_pages), start.first_pages
        hidden = self._ask(start.entries, ends, seen, firsts, _slots_of(ends, tables))
        drafted = [self._head.best(hidden)]
        for step in range(1, num_steps):
            positions = ends + step
            slots = _slots_of(positions, tables)
            entries = self._enter(drafted[-1], hidden, positions, slots)
            hidden = self._ask(entries, positions, seen, firsts, slots)
            drafted.append(self._head.best(hidden))
        return torch.stack(drafted, dim=1)

    def _tree(self, start: "_Start", num_steps: int, tree: TreeBatch) -> tuple[Tensor, Tensor]:
        """Drafts, by the target's ids, and their parents; [num_chains, num_drafts] each.

        Beams' entries lie one after the other behind the newest one, `topk` for each step; each sees those on its path.
        """
        topk, ends = tree.topk, start.ends
        tables = _widened(start.tables, int(ends.max()) + 1 + topk * (num_steps - 1))
        places = ends[:, None] + 1 + np.arange(topk * (num_steps - 1))
        all_slots = _slots_of(places.reshape(-1), np.repeat(tables, places.shape[1], axis=0)).reshape(places.shape)
        seen, firsts = _seen(tables, start.first_pages), start.first_pages
        hidden = self._ask(start.entries, ends, seen, firsts, _slots_of(ends, tables))
        trees, seen, firsts = GrowingTrees(topk), np.repeat(seen, topk, axis=0), np.repeat(firsts, topk)
        beams = trees.grow(self._head.logits(hidden))
        for step in range(1, num_steps):
            positions = np.repeat(ends + step, topk)
            slots = all_slots[:, topk * (step - 1) : topk * step].reshape(-1)
            ids = self._head.target_ids[beams.ids.flatten()]
            entries = self._enter(ids, hidden[beams.parent_rows], positions, slots)
            path = beams.path.cpu().numpy().reshape(len(ends), -1)
            on_path = np.take_along_axis(all_slots, path, axis=1).reshape(len(positions), step)
            tails = Tails(on_path, np.full(len(positions), step))
            hidden = self._ask(entries, positions, seen, firsts, slots, tails)
            beams = trees.grow(self._head.logits(hidden))
        ids, parents = trees.keep(tree.num_drafts)
        return self._head.target_ids[ids], parents

    def _ask(
        self,
        entries: Entries,
        positions: Int64,
        tables: Int32,
        first_pages: Int32,
        slots: Int64,
        tails: Tails | None = None,
    ) -> Tensor:
        """The rest of the layer for rows at these positions, each in a sequence of its own.

        Args:
            tables: from the first page on that each row sees.
        """
        count = len(positions)
        batch = AttentionBatch(
            query_starts=np.arange(count + 1, dtype=np.int32),
            context_lengths=(positions + 1 - PAGE_SIZE * first_pages.astype(np.int64)).astype(np.int32),
            page_tables=tables,
            rows=np.arange(count, dtype=np.int64),
            num_rows=count,
            slots=slots,
            tails=tails,
        )
        attended = self._attention.plan(batch).attend(0, entries.query, entries.key, entries.value)
        return self._head.ask(entries, attended)


@dataclass(frozen=True, slots=True)
class _Start:
    """Where the drafts of some chains begin."""

    chains: Int64
    entries: Entries
    """Each one's newest."""
    ends: Int64
    """Their positions."""
    tables: Int32
    first_pages: Int32
    """See `SpeculationBatch`."""


def _seen(tables: Int32, first_pages: Int32) -> Int32:
    """Tables from some page of each row on, filled up with page 0."""
    if not first_pages.any():
        return tables
    columns = np.arange(tables.shape[1]) + first_pages[:, None]
    kept = np.take_along_axis(tables, np.minimum(columns, tables.shape[1] - 1), axis=1)
    seen: Int32 = np.where(columns < tables.shape[1], kept, 0).astype(np.int32)
    return seen


def _widened(tables: Int32, num_places: int) -> Int32:
    """With columns of page 0 behind, for so many places."""
    return np.pad(tables, ((0, 0), (0, max(0, -(-num_places // PAGE_SIZE) - tables.shape[1]))))


def _slots_of(positions: Int64, tables: Int32) -> Int64:
    """[num_chains] positions → slots, in page 0 for what is beyond a table's pages."""
    pages = tables[np.arange(len(positions)), positions // PAGE_SIZE].astype(np.int64)
    return pages * PAGE_SIZE + positions % PAGE_SIZE
