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
    """[num_chains, num_drafts]"""
    parents: Int64 | None = None
    """As `drafts`, of trees; see `TreeResult.parents`."""


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
    context_lengths = (batch.context_lengths + extra).astype(np.int32)
    tables = _widened(batch.page_tables, context_lengths)
    sequences = np.repeat(np.arange(len(lengths)), lengths)
    places = np.repeat(context_lengths - batch.query_starts[1:], lengths) + np.arange(len(sequences))
    ahead = extra[sequences]  # of each row's position as the batch has it
    tree = speculation.tree
    if tree is not None:
        parents = _parents(batch, tree.parents, going_on, ends)
        continued = (speculation.continued >= 0)[sequences]
        ahead = ahead + depths_of(parents, batch.query_starts) * continued
        tree = replace(tree, parents=parents)
    slots = tables[sequences, places // PAGE_SIZE].astype(np.int64) * PAGE_SIZE + places % PAGE_SIZE
    sampling = replace(batch.sampling, position=batch.sampling.position + ahead[batch.sample_rows])
    return replace(
        batch,
        token_ids=_token_ids(batch, going_on, ends),
        positions=batch.positions + ahead,
        slots=slots,
        context_lengths=context_lengths,
        page_tables=tables,
        sampling=sampling,
        speculation=replace(speculation, tree=tree),
    )


def depths_of(parents: Int32, query_starts: Int32) -> Int64:
    """How many drafts each row stands behind, itself included.

    Args:
        parents: [num_tokens], see `TreeBatch`.
    """
    firsts = np.repeat(query_starts[:-1], np.diff(query_starts)).astype(np.int64)
    rows = np.arange(len(parents)) - firsts
    depths = np.zeros(len(parents), np.int64)
    while rows.any():
        depths += rows > 0
        rows = np.where(rows > 0, parents[firsts + rows], 0)
    return depths


def _parents(batch: StepBatch, known: Int32, going_on: Int64, ends: ChainEnds) -> Int32:
    speculation = batch.speculation
    assert speculation is not None
    assert ends.parents is not None
    parents = known.copy()
    for sequence in going_on.tolist():
        first, count = int(batch.query_starts[sequence]), int(speculation.num_drafts[sequence])
        parents[first + 1 : first + 1 + count] = ends.parents[speculation.continued[sequence], :count]
    return parents


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
