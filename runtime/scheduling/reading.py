"""A step's results as they reach the host: tokens are entered into the table, and parted by what has to be done about them.

That is array work. Nearly every token of a busy engine is plain: its row goes on, and nobody asked for more than the id.
"""

from dataclasses import dataclass, field

import numpy as np

from runtime.batch import ChainResult, StepResult
from runtime.scheduling.batching import StepRecord
from runtime.scheduling.chains import starts_of
from runtime.scheduling.delivery import LogprobLists, PlainTokens
from runtime.scheduling.requests import DraftCounts
from runtime.scheduling.table import SequenceTable


@dataclass(frozen=True, slots=True)
class ReadTokens:
    """A step's tokens, less those whose sequences ended while it ran."""

    plain: PlainTokens
    others: list[int]
    """Chains to be looked at one by one: first and last tokens, logprobs, penalties, values that are not finite."""
    drafts: DraftCounts = field(default_factory=DraftCounts)


def read_step(table: SequenceTable, step: StepRecord, result: StepResult) -> ReadTokens:
    """Enter a step's tokens into the table, those that are finite and whose sequences still run.

    Of a speculating engine only the plain ones: `others` there have tokens that the first may end.
    """
    if result.chains is not None:
        return _read_chains(table, step, result, result.chains)
    is_open = table.serials[step.rows] == step.serials
    samples = np.flatnonzero(is_open & result.is_finite)
    rows, ids = step.rows[samples], result.token_ids[samples]
    table.read_tokens(rows, step.positions[samples], ids)
    is_plain = table.is_ordinary[rows] & ~table.ended(rows, ids)
    plain_rows = rows[is_plain]
    is_open[samples[is_plain]] = False
    return ReadTokens(
        plain=PlainTokens(table.request_ids[plain_rows], table.choices[plain_rows], ids[is_plain]),
        others=np.flatnonzero(is_open).tolist(),
    )


def _read_chains(table: SequenceTable, step: StepRecord, result: StepResult, chains: ChainResult) -> ReadTokens:
    """Settle where rows stand, keep their drafts, and enter the chains in which nothing ends or is asked for."""
    open_chains = np.flatnonzero(table.serials[step.rows] == step.serials)
    rows, counts = step.rows[open_chains], chains.num_tokens[open_chains].astype(np.int64)
    num_drafts = step.num_drafts[open_chains]
    table.settle(rows, counts, num_drafts)
    table.drafts[rows, : chains.drafts.shape[1]] = chains.drafts[open_chains]
    starts = starts_of(counts)
    places = np.arange(starts[-1]) - np.repeat(starts[:-1], counts)
    if chains.tree is not None:
        table.parents[rows, : chains.tree.parents.shape[1]] = chains.tree.parents[open_chains]
        places = chains.tree.paths[np.repeat(open_chains, counts), places]
    samples = np.repeat(step.chain_starts[open_chains], counts) + places
    ids, owners = result.token_ids[samples], np.repeat(rows, counts)
    needs_look = ~table.is_ordinary[rows] | (table.known[rows] + counts >= table.max_length[rows])
    ending = ~result.is_finite[samples] | (table.ending_ids[owners] == ids[:, None]).any(axis=1)
    needs_look[np.repeat(np.arange(len(rows)), counts)[ending]] = True
    is_plain = np.repeat(~needs_look, counts)
    table.read_run(rows[~needs_look], counts[~needs_look], ids[is_plain])
    plain_rows = owners[is_plain]
    return ReadTokens(
        plain=PlainTokens(table.request_ids[plain_rows], table.choices[plain_rows], ids[is_plain]),
        others=open_chains[needs_look].tolist(),
        drafts=DraftCounts(int((num_drafts > 0).sum()), int(num_drafts.sum()), int((counts - 1).sum())),
    )


def samples_of(step: StepRecord, result: StepResult, chain: int) -> list[int]:
    """The samples that are a chain's tokens, in their order."""
    first, chains = int(step.chain_starts[chain]), result.chains
    if chains is None:
        return [first]
    count = int(chains.num_tokens[chain])
    if chains.tree is None:
        return list(range(first, first + count))
    return [first + place for place in chains.tree.paths[chain, :count].tolist()]


def read_prompts(step: StepRecord, result: StepResult) -> None:
    """Keep what was computed of prompts for their delivery: logprobs, and embeddings brought to length 1."""
    if step.scored:
        assert result.prompt_logprobs is not None
        _read_scores(step, LogprobLists(result.prompt_logprobs))
    for place, request in enumerate(step.embedded):
        assert result.embeddings is not None
        vector = result.embeddings[place].astype(np.float64)
        length = float(np.sqrt((vector * vector).sum()))
        request.embedding = (vector / (length or 1.0)).astype("<f4").tobytes()


def _read_scores(step: StepRecord, scores: LogprobLists) -> None:
    first = 0
    for request, count in step.scored:
        asked = request.sampling.prompt_logprobs
        request.prompt_logprobs += [scores.at(row, asked) for row in range(first, first + count)]
        first += count
