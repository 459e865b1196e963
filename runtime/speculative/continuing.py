"""A step whose sequences continue chains of the step before, once the tokens of these are known.

On a CPU a step has run when it was launched, so the reference resolves the whole batch here and treats it like any other. The
same arithmetic on a GPU, where the host does not wait, is `runtime.runner.chains`'s.
"""

from dataclasses import dataclass, replace

import numpy as np

from runtime.batch import Int32, Int64, StepBatch
from runtime.identifiers import PAGE_SIZE


@dataclass(frozen=True, slots=True)
class ChainEnds:
    """Where the chains of a step stand."""

    num_tokens: Int32
    """[num_chains]"""
    last_ids: Int64
    """[num_chains]; each one's newest token."""
    drafts: Int64
    """[num_chains, num_steps]"""


NO_CHAINS = ChainEnds(np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros((0, 0), np.int64))


def resolve(batch: StepBatch, ends: ChainEnds) -> StepBatch:
    """The same step with all ids and places known.

    Args:
        batch: a step with `speculation`.
        ends: of the step before.
    """
    speculation = batch.speculation
    assert speculation is not None
    going_on = np.flatnonzero(speculation.continued >= 0)
    if not going_on.size:
        return batch
    chains = speculation.continued[going_on]
    extra = np.zeros(len(batch.context_lengths), np.int64)
    extra[going_on] = ends.num_tokens[chains] - 1
    lengths = np.diff(batch.query_starts)
    positions = batch.positions + np.repeat(extra, lengths)
    context_lengths = (batch.context_lengths + extra).astype(np.int32)
    tables = _widened(batch.page_tables, context_lengths)
    sequences = np.repeat(np.arange(len(lengths)), lengths)
    slots = tables[sequences, positions // PAGE_SIZE].astype(np.int64) * PAGE_SIZE + positions % PAGE_SIZE
    sampled_sequences = sequences[batch.sample_rows]
    return replace(
        batch,
        token_ids=_token_ids(batch, going_on, ends),
        positions=positions,
        slots=slots,
        context_lengths=context_lengths,
        page_tables=tables,
        sampling=replace(batch.sampling, position=batch.sampling.position + extra[sampled_sequences]),
    )


def _token_ids(batch: StepBatch, going_on: Int64, ends: ChainEnds) -> Int64:
    speculation = batch.speculation
    assert speculation is not None
    token_ids = batch.token_ids.copy()
    for sequence in going_on.tolist():
        first, chain = int(batch.query_starts[sequence]), int(speculation.continued[sequence])
        count = int(speculation.num_drafts[sequence])
        token_ids[first] = ends.last_ids[chain]
        token_ids[first + 1 : first + 1 + count] = ends.drafts[chain, :count]
    return token_ids


def _widened(tables: Int32, context_lengths: Int32) -> Int32:
    """With columns of page 0 behind, as far as any sequence reaches."""
    missing = -(-int(context_lengths.max()) // PAGE_SIZE) - tables.shape[1]
    return np.pad(tables, ((0, 0), (0, missing))) if missing > 0 else tables
