"""A step's plan as arrays for the runner, and the record by which its results find their way back."""

from dataclasses import dataclass

import numpy as np

from runtime.batch import Int32, Int64, StepBatch
from runtime.identifiers import PAGE_SIZE
from runtime.scheduling.planning import Chunk, StepPlan
from runtime.scheduling.requests import Request
from runtime.scheduling.sampling_table import SamplingTable
from runtime.scheduling.table import NO_SAMPLE, SequenceTable


@dataclass(frozen=True, slots=True)
class StepRecord:
    """Whose tokens a step chooses. A sequence that has ended when the step is read (its serial is gone) gets nothing."""

    rows: Int64
    """[num_samples] row of each sample."""
    positions: Int64
    """[num_samples] position of the token that is chosen."""
    serials: Int64
    """[num_samples] `SequenceTable.serials` of each row as the step was launched."""
    scored: list[tuple[Request, int]]
    """Requests with prompt logprobs in this step, and how many, in the order of the batch."""
    embedded: list[Request]
    """Requests whose embedding is in this step, in the order of the batch."""
    num_tokens: int


def build_step(plan: StepPlan, table: SequenceTable, sampling: SamplingTable) -> tuple[StepBatch, StepRecord]:
    """Lay a plan out as arrays: first the decoding rows, then the chunks.

    The arrays are the batch's own: the tables may change while the step runs.
    """
    decode, chunks = plan.decode_rows, plan.chunks
    position = table.cached[decode]
    chunk_positions = [np.arange(chunk.start, chunk.end) for chunk in chunks]
    positions = np.concatenate([position, *chunk_positions])
    lengths = _per_sequence(len(decode), [chunk.end - chunk.start for chunk in chunks])
    rows = np.concatenate([decode, np.array([chunk.row for chunk in chunks], np.int64)])
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    token_rows = np.repeat(rows, lengths)

    previous = np.full(len(positions), NO_SAMPLE, np.int32)
    previous[: len(decode)] = table.sample[decode]
    token_ids = table.tokens[token_rows, positions].astype(np.int64)
    token_ids[previous != NO_SAMPLE] = -1
    contexts = positions[starts[1:] - 1] + 1
    width = int(-(-contexts.max() // PAGE_SIZE))
    sampled_rows = np.concatenate([decode, *(np.array(chunk.sampled_rows, np.int64) for chunk in chunks)])
    num_sampled = _per_sequence(len(decode), [len(chunk.sampled_rows) for chunk in chunks])
    sampled_positions = table.length[sampled_rows]
    scored_rows, scored_targets, scored_counts, scored = _prompt_scores(chunks, table, starts[len(decode) :])
    embedding_rows, embedded = _embeddings(chunks, starts[len(decode) :])
    batch = StepBatch(
        token_ids=token_ids,
        previous_rows=previous,
        positions=positions,
        slots=table.pages[token_rows, positions // PAGE_SIZE].astype(np.int64) * PAGE_SIZE + positions % PAGE_SIZE,
        query_starts=starts.astype(np.int32),
        context_lengths=contexts.astype(np.int32),
        page_tables=table.pages[rows, :width],
        sample_rows=np.repeat(starts[1:] - 1, num_sampled).astype(np.int32),
        sampling=sampling.gather(sampled_rows, sampled_positions),
        page_copies=plan.page_copies,
        prompt_logprob_rows=scored_rows,
        prompt_logprob_targets=scored_targets,
        prompt_logprob_counts=scored_counts,
        embedding_rows=embedding_rows,
    )
    record = StepRecord(sampled_rows, sampled_positions, table.serials[sampled_rows], scored, embedded, len(positions))
    _advance(table, rows, contexts, sampled_rows)
    return batch, record


def _per_sequence(num_decoding: int, of_chunks: list[int]) -> Int64:
    """1 for each decoding sequence, then the chunks' values."""
    return np.concatenate([np.ones(num_decoding, np.int64), np.array(of_chunks, np.int64)])


def _advance(table: SequenceTable, rows: Int64, contexts: Int64, sampled_rows: Int64) -> None:
    """Note in the table what the step computes and chooses, as it is about to be launched."""
    table.cached[rows] = contexts
    table.length[sampled_rows] += 1
    table.sample[sampled_rows] = np.arange(len(sampled_rows))


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
