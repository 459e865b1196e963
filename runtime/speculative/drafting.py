"""The head's part of a step, in plain torch: entries for all that the target computed, then a draft token by token.

The reference, as `runtime.runner.torch_runner` is for the target; on a GPU `runtime.runner.device_drafting` does the same.
"""

import numpy as np
import torch
from torch import Tensor

from runtime.attention.backend import AttentionBatch, AttentionPlan
from runtime.attention.pages import allocate_pages, copy_pages
from runtime.attention.reference import ReferenceAttention
from runtime.batch import Int32, Int64, StepBatch
from runtime.identifiers import PAGE_SIZE
from runtime.speculative.head import DraftHead


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
        hidden = self._extend(batch, captured, next_ids)
        drafts = np.zeros((len(num_tokens), speculation.num_steps), np.int64)
        chains = np.flatnonzero(speculation.drafts)
        if not (speculation.num_steps and chains.size):
            return drafts
        rows = batch.sample_rows[speculation.chain_starts[:-1] + num_tokens - 1][chains]
        sequences = np.searchsorted(batch.query_starts, rows, side="right") - 1
        ends, tables = batch.positions[rows], batch.page_tables[sequences]
        hidden = hidden[torch.from_numpy(rows.astype(np.int64)).to(hidden.device)]
        drafts[chains] = self._chain(hidden, ends, tables, speculation.num_steps).cpu().numpy()
        return drafts

    def _extend(self, batch: StepBatch, captured: Tensor, next_ids: Int64) -> Tensor:
        plan = self._plan(batch.query_starts, batch.context_lengths, batch.page_tables, batch.slots)
        return self._forward(next_ids, self._head.combine(captured), batch.positions, plan)

    def _chain(self, hidden: Tensor, ends: Int64, tables: Int32, num_steps: int) -> Tensor:
        """Drafts behind entries at positions `ends` whose outputs are `hidden` → [num_chains, num_steps]."""
        drafted = [self._head.best(hidden)]
        starts = np.arange(len(ends) + 1, dtype=np.int32)
        width = -(-(int(ends.max()) + num_steps) // PAGE_SIZE)
        tables = np.pad(tables, ((0, 0), (0, max(0, width - tables.shape[1]))))
        for step in range(1, num_steps):
            positions = ends + step
            slots = tables[starts[:-1], positions // PAGE_SIZE].astype(np.int64) * PAGE_SIZE + positions % PAGE_SIZE
            plan = self._plan(starts, (positions + 1).astype(np.int32), tables, slots)
            hidden = self._forward(drafted[-1], hidden, positions, plan)
            drafted.append(self._head.best(hidden))
        return torch.stack(drafted, dim=1)

    def _forward(self, token_ids: Int64 | Tensor, hidden: Tensor, positions: Int64, plan: AttentionPlan) -> Tensor:
        device = hidden.device
        ids = token_ids if isinstance(token_ids, Tensor) else torch.from_numpy(token_ids).to(device)
        bounded = np.minimum(positions, self._head.rotary.num_positions - 1)
        places = torch.from_numpy(bounded).to(device)
        return self._head.forward(ids, hidden, places, lambda *heads: plan.attend(0, *heads))

    def _plan(self, query_starts: Int32, context_lengths: Int32, tables: Int32, slots: Int64) -> AttentionPlan:
        count = int(query_starts[-1])
        return self._attention.plan(
            AttentionBatch(query_starts, context_lengths, tables, np.arange(count, dtype=np.int64), count, slots)
        )
