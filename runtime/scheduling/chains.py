"""Which rows of a step are sampled, and how samples of one answer follow each other: a plan's chains as arrays.

A decoding row's chain has one sample, and one more for each draft that it verifies; a prompt that is through gives each of
its choices a chain of one. See `SpeculationBatch`.
"""

from dataclasses import dataclass

import numpy as np

from runtime.batch import Int32, Int64, SpeculationBatch
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
        return SampledChains(self.starts, table.drafts[self.rows])


def lay_out_chains(plan: StepPlan, table: SequenceTable, token_starts: Int64) -> ChainLayout:
    """Chains of the decoding rows first, then those of the chunks.

    Args:
        token_starts: [num_sequences + 1] first token row of each sequence of the step.
    """
    num_decoding, chunks = len(plan.decode_rows), plan.chunks
    per_chunk = np.array([len(chunk.sampled_rows) for chunk in chunks], np.int64)
    rows = np.concatenate([plan.decode_rows, *(np.array(chunk.sampled_rows, np.int64) for chunk in chunks)])
    num_drafts = np.concatenate([plan.num_drafts, np.zeros(per_chunk.sum(), np.int64)])
    starts = starts_of(num_drafts + 1)
    firsts = np.concatenate([token_starts[:num_decoding], np.repeat(token_starts[num_decoding + 1 :] - 1, per_chunk)])
    places = np.arange(starts[-1]) - np.repeat(starts[:-1], num_drafts + 1)
    return ChainLayout(
        rows=rows,
        num_drafts=num_drafts,
        starts=starts,
        sample_rows=(np.repeat(firsts, num_drafts + 1) + places).astype(np.int32),
        sampled_rows=np.repeat(rows, num_drafts + 1),
        positions=np.repeat(table.length[rows], num_drafts + 1) + places,
    )


def speculate(plan: StepPlan, table: SequenceTable, chains: ChainLayout, token_starts: Int64) -> SpeculationBatch:
    """What a speculating engine's step says beside its tokens."""
    num_decoding = len(plan.decode_rows)
    of_chunks = [_next_ids(chunk, table) for chunk in plan.chunks]
    no_drafts, not_continued = np.zeros(len(plan.chunks), np.int64), np.full(len(plan.chunks), NO_SAMPLE)
    rows = np.concatenate([plan.decode_rows, np.array([chunk.row for chunk in plan.chunks], np.int64)])
    return SpeculationBatch(
        num_decodes=num_decoding,
        num_pages=table.num_pages[rows].astype(np.int32),
        chain_starts=chains.starts.astype(np.int32),
        continued=np.concatenate([table.sample[plan.decode_rows], not_continued]).astype(np.int32),
        num_drafts=np.concatenate([plan.num_drafts, no_drafts]).astype(np.int32),
        next_ids=np.concatenate([np.full(token_starts[num_decoding], -1, np.int64), *of_chunks]),
        num_steps=plan.num_steps,
        drafts=np.isin(chains.rows, plan.drafting_rows),
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
