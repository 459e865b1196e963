"""The head's part of a step, in plain torch: entries for all that the target computed, then a draft token by token.

The reference, as `runtime.runner.torch_runner` is for the target; on a GPU `runtime.runner.device_drafting` does the same.
"""

import numpy as np
import torch
from torch import Tensor

from runtime.attention.backend import AttentionBatch
from runtime.attention.pages import allocate_pages, copy_pages, key_rows, write_kv
from runtime.attention.reference import ReferenceAttention
from runtime.batch import Int32, Int64, StepBatch
from runtime.identifiers import PAGE_SIZE
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
        next_ids = speculation.next_ids.copy()
        next_ids[batch.sample_rows[::-1]] = chosen[::-1]  # of choices that share a row the first counts
        entries = self._enter(next_ids, self._head.combine(captured), batch.positions, batch.slots)
        drafts = np.zeros((len(num_tokens), speculation.num_steps), np.int64)
        chains = np.flatnonzero(speculation.drafts)
        if not (speculation.num_steps and chains.size):
            return drafts
        rows = batch.sample_rows[speculation.chain_starts[:-1] + num_tokens - 1][chains].astype(np.int64)
        sequences = np.searchsorted(batch.query_starts, rows, side="right") - 1
        chosen_entries = entries.select(torch.from_numpy(rows).to(captured.device))
        tables = batch.page_tables[sequences]
        drafts[chains] = self._chain(chosen_entries, batch.positions[rows], tables, speculation.num_steps).cpu().numpy()
        return drafts

    def _enter(self, token_ids: Int64 | Tensor, hidden: Tensor, positions: Int64, slots: Int64) -> Entries:
        """Compute entries and write their keys and values; a key follows from its own row, as there is one layer."""
        device = hidden.device
        ids = token_ids if isinstance(token_ids, Tensor) else torch.from_numpy(token_ids).to(device)
        bounded = torch.from_numpy(np.minimum(positions, self._head.rotary.num_positions - 1)).to(device)
        entries = self._head.enter(ids, hidden, bounded)
        write_kv(self.pages[0], entries.key, entries.value, key_rows(torch.from_numpy(slots).to(device)))
        return entries

    def _chain(self, entries: Entries, ends: Int64, tables: Int32, num_steps: int) -> Tensor:
        """Drafts behind entries at positions `ends` → [num_chains, num_steps]."""
        width = -(-(int(ends.max()) + num_steps) // PAGE_SIZE)
        tables = np.pad(tables, ((0, 0), (0, max(0, width - tables.shape[1]))))
        hidden = self._ask(entries, ends, tables)
        drafted = [self._head.best(hidden)]
        for step in range(1, num_steps):
            positions = ends + step
            entries = self._enter(drafted[-1], hidden, positions, _slots_of(positions, tables))
            hidden = self._ask(entries, positions, tables)
            drafted.append(self._head.best(hidden))
        return torch.stack(drafted, dim=1)

    def _ask(self, entries: Entries, positions: Int64, tables: Int32) -> Tensor:
        """The rest of the layer for one row of each chain, at these positions."""
        count = len(positions)
        batch = AttentionBatch(
            query_starts=np.arange(count + 1, dtype=np.int32),
            context_lengths=(positions + 1).astype(np.int32),
            page_tables=tables,
            rows=np.arange(count, dtype=np.int64),
            num_rows=count,
            slots=_slots_of(positions, tables),
        )
        attended = self._attention.plan(batch).attend(0, entries.query, entries.key, entries.value)
        return self._head.ask(entries, attended)


def _slots_of(positions: Int64, tables: Int32) -> Int64:
    """[num_chains] positions → slots, in page 0 for what is beyond a table's pages."""
    pages = tables[np.arange(len(positions)), positions // PAGE_SIZE].astype(np.int64)
    return pages * PAGE_SIZE + positions % PAGE_SIZE
