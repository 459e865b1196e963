"""Which rows of a step are sampled, and how samples of one answer follow each other: a plan's chains as arrays.

A decoding row's chain has one sample, and one more for each draft that it verifies; a prompt that is through gives each of
its choices a chain of one. See `SpeculationBatch`. Where drafts are trees, a chain's samples are in the order of the tree's rows.
"""

from dataclasses import dataclass

import numpy as np

from runtime.batch import Int32, Int64, SpeculationBatch, TreeBatch
from runtime.scheduling.planning import Chunk, StepPlan
from runtime.scheduling.sampling_table import SampledChains
from runtime.scheduling.table import NO_SAMPLE, SequenceTable


@dataclass(frozen=True, slots=True)
class ChainLayout:
    """The chains of one step."""

    rows: Int64
    """[num_chains] row of the table."""
    num_drafts: Int64
    """[num_chains]"""
    starts: Int64
    """[num_chains + 1] first sample of each."""
    sample_rows: Int32
    """[num_samples] token row of the batch."""
    sampled_rows: Int64
    """[num_samples] row of the table."""
    positions: Int64
    """[num_samples] position of the token that is chosen."""

    def with_drafts(self, table: SequenceTable) -> SampledChains:
        """The chains with the drafts that the host knows of."""
        parents = table.parents[self.rows] if table.shape.is_tree else None
        return SampledChains(self.starts, table.drafts[self.rows], parents)


@dataclass(frozen=True, slots=True)
class TreeLayout:
    """How the rows of a step's trees stand to each other, as far as the host knows; both [num_tokens], 0 for other rows."""

    parents: Int64
    """See `TreeBatch.parents`."""
    offsets: Int64
    """From a row's place to its position: its depth, less its number in the tree."""


def lay_out_trees(plan: StepPlan, table: SequenceTable, lengths: Int64) -> TreeLayout:
    """The trees of the decoding rows.

    Args:
        lengths: [num_sequences] token rows of each sequence of the step.
    """
    rows, most = plan.decode_rows, int(plan.num_drafts.max(initial=0)) + 1
    parents = np.zeros((len(rows), most), np.int64)
    parents[:, 1:] = np.where(table.sample[rows, None] == NO_SAMPLE, table.parents[rows, : most - 1], 0)
    depths, above = np.zeros_like(parents), np.arange(most) * (table.sample[rows, None] == NO_SAMPLE)
    for _ in range(table.shape.num_steps):
        depths += above > 0
        above = np.take_along_axis(parents, above, axis=1)
    numbers = np.arange(most)
    is_row = numbers <= plan.num_drafts[:, None]
    of_chunks = np.zeros(int(lengths[len(rows) :].sum()), np.int64)
    return TreeLayout(
        parents=np.concatenate([parents[is_row], of_chunks]),
        offsets=np.concatenate([(depths - numbers)[is_row], of_chunks]),
    )


def lay_out_chains(plan: StepPlan, table: SequenceTable, token_starts: Int64, tree: TreeLayout | None) -> ChainLayout:
    """Chains of the decoding rows first, then those of the chunks.

    Args:
        token_starts: [num_sequences + 1] first token row of each sequence of the step.
        tree: of its rows; None: each stands one position behind the one before.
    """
    num_decoding, chunks = len(plan.decode_rows), plan.chunks
    per_chunk = np.array([len(chunk.sampled_rows) for chunk in chunks], np.int64)
    rows = np.concatenate([plan.decode_rows, *(np.array(chunk.sampled_rows, np.int64) for chunk in chunks)])
    num_drafts = np.concatenate([plan.num_drafts, np.zeros(per_chunk.sum(), np.int64)])
    starts = starts_of(num_drafts + 1)
    firsts = np.concatenate([token_starts[:num_decoding], np.repeat(token_starts[num_decoding + 1 :] - 1, per_chunk)])
    places = np.arange(starts[-1]) - np.repeat(starts[:-1], num_drafts + 1)
    sample_rows = np.repeat(firsts, num_drafts + 1) + places
    if tree is not None:
        places = places + tree.offsets[sample_rows]
    return ChainLayout(
        rows=rows,
        num_drafts=num_drafts,
        starts=starts,
        sample_rows=sample_rows.astype(np.int32),
        sampled_rows=np.repeat(rows, num_drafts + 1),
        positions=np.repeat(table.length[rows], num_drafts + 1) + places,
    )


def speculate(
    plan: StepPlan, table: SequenceTable, chains: ChainLayout, token_starts: Int64, tree: TreeLayout | None
) -> SpeculationBatch:
    """What a speculating engine's step says beside its tokens."""
    shape = table.shape
    num_decoding = len(plan.decode_rows)
    of_chunks = [_next_ids(chunk, table) for chunk in plan.chunks]
    no_drafts, not_continued = np.zeros(len(plan.chunks), np.int64), np.full(len(plan.chunks), NO_SAMPLE)
    drafts = np.isin(chains.rows, plan.drafting_rows)
    rows = np.concatenate([plan.decode_rows, np.array([chunk.row for chunk in plan.chunks], np.int64)])
    return SpeculationBatch(
        num_decodes=num_decoding,
        num_pages=table.num_pages[rows].astype(np.int32),
        chain_starts=chains.starts.astype(np.int32),
        continued=np.concatenate([table.sample[plan.decode_rows], not_continued]).astype(np.int32),
        num_drafts=np.concatenate([plan.num_drafts, no_drafts]).astype(np.int32),
        next_ids=np.concatenate([np.full(token_starts[num_decoding], -1, np.int64), *of_chunks]),
        num_steps=plan.num_steps,
        drafts=drafts,
        tree=None
        if tree is None
        else TreeBatch(tree.parents.astype(np.int32), shape.topk, shape.drafts_at(plan.num_steps)),
        deferred=plan.deferred,
        late=plan.late,
        first_pages=np.where(drafts, table.blind_pages[chains.rows], 0).astype(np.int32),
    )


def starts_of(counts: Int64) -> Int64:
    """[n] → [n + 1]: where each of some runs, one after the other, starts, and where the last ends."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])


def _next_ids(chunk: Chunk, table: SequenceTable) -> Int64:
    """The token after each of the chunk's; -1 for the one that the step chooses."""
    ids = table.tokens[chunk.row, chunk.start + 1 : chunk.end + 1].astype(np.int64)
    if chunk.sampled_rows:
        ids = np.append(ids[: chunk.end - chunk.start - 1], -1)
    return ids
