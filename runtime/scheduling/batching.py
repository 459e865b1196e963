"""A step's plan as arrays for the runner, and the record by which its results find their way back."""

from dataclasses import dataclass

import numpy as np

from runtime.batch import Int32, Int64, StepBatch
from runtime.identifiers import PAGE_SIZE
from runtime.scheduling.chains import ChainLayout, lay_out_chains, lay_out_trees, speculate, starts_of
from runtime.scheduling.planning import Chunk, StepPlan
from runtime.scheduling.requests import Request
from runtime.scheduling.sampling_table import SamplingTable
from runtime.scheduling.table import NO_SAMPLE, SequenceTable


@dataclass(frozen=True, slots=True)
class StepRecord:
    """Whose tokens a step chooses. A sequence that has ended when the step is read (its serial is gone) gets nothing.

    A chain is one row's samples, see `SpeculationBatch`; without speculation each sample is a chain.
    """

    rows: Int64
    """[num_chains] row of each chain."""
    positions: Int64
    """[num_chains] position of the first token that is chosen, as far as it was known at the launch."""
    serials: Int64
    """[num_chains] `SequenceTable.serials` of each row as the step was launched."""
    num_drafts: Int64
    """[num_chains] drafts that each verifies: samples behind its first."""
    chain_starts: Int64
    """[num_chains + 1] first sample of each chain."""
    scored: list[tuple[Request, int]]
    """Requests with prompt logprobs in this step, and how many, in the order of the batch."""
    embedded: list[Request]
    """Requests whose embedding is in this step, in the order of the batch."""
    num_tokens: int
    num_decodes: int
    """Answers that it decoded; 0 if it computed prompts as well."""
    num_steps: int
    """Drafts made for each answer."""
    num_prompt_entries: int = 0
    """Prompt tokens whose entries of the draft head it makes."""
    is_catching_up: bool = False
    """Whether it makes entries of tokens before it, too."""


def build_step(plan: StepPlan, table: SequenceTable, sampling: SamplingTable) -> tuple[StepBatch, StepRecord]:
    """Lay a plan out as arrays: first the decoding rows with the drafts that they verify, then the chunks.

    The arrays are the batch's own: the tables may change while the step runs.
    """
    decode, chunks = plan.decode_rows, plan.chunks
    is_speculating = table.shape.num_steps > 0
    rows = np.concatenate([decode, np.array([chunk.row for chunk in chunks], np.int64)])
    firsts = np.concatenate([table.cached[decode], np.array([chunk.start for chunk in chunks], np.int64)])
    lengths = np.concatenate([1 + plan.num_drafts, np.array([chunk.end - chunk.start for chunk in chunks], np.int64)])
    starts = starts_of(lengths)
    positions = np.repeat(firsts - starts[:-1], lengths) + np.arange(starts[-1])
    token_rows = np.repeat(rows, lengths)
    contexts = firsts + lengths
    tree = lay_out_trees(plan, table, lengths) if table.shape.is_tree else None
    width = int(table.num_pages[rows].max()) if is_speculating else int(-(-contexts.max() // PAGE_SIZE))

    token_ids, previous = _tokens(plan, table, starts, token_rows, positions)
    chains = lay_out_chains(plan, table, starts, tree)
    scored_rows, scored_targets, scored_counts, scored = _prompt_scores(chunks, table, starts[len(decode) :])
    embedding_rows, embedded = _embeddings(chunks, starts[len(decode) :])
    batch = StepBatch(
        token_ids=token_ids,
        previous_rows=previous,
        positions=positions if tree is None else positions + tree.offsets,
        slots=table.slots_at(token_rows, positions),
        query_starts=starts.astype(np.int32),
        context_lengths=contexts.astype(np.int32),
        page_tables=table.pages[rows, :width],
        sample_rows=chains.sample_rows,
        sampling=sampling.gather(
            chains.sampled_rows, chains.positions, chains.with_drafts(table) if is_speculating else None
        ),
        page_copies=plan.page_copies,
        prompt_logprob_rows=scored_rows,
        prompt_logprob_targets=scored_targets,
        prompt_logprob_counts=scored_counts,
        embedding_rows=embedding_rows,
        speculation=speculate(plan, table, chains, starts, tree) if is_speculating else None,
    )
    record = StepRecord(
        rows=chains.rows,
        positions=table.length[chains.rows],
        serials=table.serials[chains.rows],
        num_drafts=chains.num_drafts,
        chain_starts=chains.starts,
        scored=scored,
        embedded=embedded,
        num_tokens=len(positions),
        num_decodes=0 if chunks else len(decode),
        num_steps=plan.num_steps,
        num_prompt_entries=int(starts[-1] - starts[len(decode)]) if is_speculating and plan.deferred is None else 0,
        is_catching_up=plan.late is not None,
    )
    _advance(table, plan, chains)
    return batch, record


def _tokens(
    plan: StepPlan, table: SequenceTable, starts: Int64, token_rows: Int64, positions: Int64
) -> tuple[Int64, Int32]:
    """`StepBatch.token_ids`, and `previous_rows` of those that the host does not know yet."""
    token_ids = table.tokens_at(token_rows, positions)
    previous = np.full(len(positions), NO_SAMPLE, np.int32)
    if table.shape.num_steps > 0:
        _fill_in_drafts(token_ids, plan, table, starts)
    else:
        previous[: len(plan.decode_rows)] = table.sample[plan.decode_rows]
        token_ids[previous != NO_SAMPLE] = -1
    return token_ids, previous


def _fill_in_drafts(token_ids: Int64, plan: StepPlan, table: SequenceTable, starts: Int64) -> None:
    """Write the drafts that are verified behind the tokens of their rows; what only the device knows stays open."""
    for place in range(int(plan.num_drafts.max(initial=0))):
        verifying = np.flatnonzero(plan.num_drafts > place)
        token_ids[starts[verifying] + place + 1] = table.drafts[plan.decode_rows[verifying], place]


def _advance(table: SequenceTable, plan: StepPlan, chains: ChainLayout) -> None:
    """Note in the table what the step computes and chooses, as it is about to be launched."""
    table.cached[plan.decode_rows] += 1
    table.spread[plan.decode_rows] += table.most_accepted(plan.num_drafts)
    for chunk in plan.chunks:
        table.cached[chunk.row] = chunk.end
    table.length[chains.rows] += 1
    table.sample[chains.rows] = np.arange(len(chains.rows))
    table.num_drafts[chains.rows] = 0
    table.num_drafts[plan.drafting_rows] = table.shape.drafts_at(plan.num_steps)


def _embeddings(chunks: list[Chunk], starts: Int64) -> tuple[Int32, list[Request]]:
    """Last token rows of prompts that are through in this step and whose embedding is wanted, and their requests.

    Args:
        starts: first token row of each chunk, and the end of the last.
    """
    wanted = [
        (int(end) - 1, chunk.sequence.request)
        for chunk, end in zip(chunks, starts[1:].tolist(), strict=True)
        if chunk.sampled_rows and chunk.sequence.request.wants_embedding
    ]
    return np.array([row for row, _ in wanted], np.int32), [request for _, request in wanted]


def _prompt_scores(
    chunks: list[Chunk], table: SequenceTable, starts: Int64
) -> tuple[Int32, Int64, Int32, list[tuple[Request, int]]]:
    """Token rows whose next prompt token's logprob is wanted, those tokens, and how many alternatives.

    Args:
        starts: first token row of each chunk.
    """
    rows, targets, counts = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    scored: list[tuple[Request, int]] = []
    for chunk, first in zip(chunks, starts.tolist(), strict=False):
        request = chunk.sequence.request
        count = min(chunk.end, len(request.prompt) - 1) - chunk.start
        if request.wants_prompt_logprobs and count > 0:
            rows.append(np.arange(first, first + count))
            targets.append(table.tokens[chunk.row, chunk.start + 1 : chunk.start + 1 + count].astype(np.int64))
            counts.append(np.full(count, request.sampling.prompt_logprobs))
            scored.append((request, count))
    all_rows, all_targets, all_counts = (np.concatenate(parts) for parts in (rows, targets, counts))
    return all_rows.astype(np.int32), all_targets, all_counts.astype(np.int32), scored
