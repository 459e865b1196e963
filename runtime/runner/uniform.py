"""Steps that verify drafts, made uniform: every sequence that decodes has the same number of rows, all of them sampled.

A captured graph knows no lengths but its own. Sequences with fewer drafts get rows behind their own, whose tokens mean
nothing; they stand behind all that the sequence's own rows see, or beside it in a tree, and are accepted by nobody. A batch
smaller than its graph gets sequences in page 0.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from runtime.attention.shared_prefixes import SharedPrefixes
from runtime.batch import Int32, Int64, SamplingBatch, SpeculationBatch, StepBatch, TreeBatch

_FILL: dict[str, float] = {"top_p": 1.0, "repetition_penalty": 1.0, "num_logprobs": -1}
"""Of samples that nobody asked for; the other fields are 0."""


@dataclass(frozen=True, slots=True)
class UniformStep:
    """A step of `num_decodes` sequences with `num_queries` rows each, then prompts' chunks."""

    batch: StepBatch
    speculation: SpeculationBatch
    """The batch's; what the original says of chains is said of the uniform samples."""
    samples: Int64
    """[original num_samples]: where each of them is among the uniform ones."""
    chain_sequences: Int32
    """[num_chains]: the sequence of each chain."""
    num_queries: int
    """Rows of each sequence that decodes."""
    num_chains: int
    """Of the original step; those of padding come behind the chains of decodes, so they count only without chunks."""
    prefixes: SharedPrefixes | None = None
    """Groups of sequences with one row each whose common beginnings are read once. None: each reads its own."""

    @property
    def is_verification(self) -> bool:
        """Whether there are no chunks, and nothing is asked of prompts."""
        return len(self.batch.context_lengths) == self.speculation.num_decodes


def make_uniform(batch: StepBatch, num_queries: int, num_sequences: int) -> UniformStep:
    """Give each decoding sequence `num_queries` rows.

    Args:
        batch: with `speculation`; no sequence that decodes has more rows.
        num_sequences: decoding ones, padding included; more than there are only in a step without chunks.
    """
    speculation = batch.speculation
    assert speculation is not None
    own = speculation.num_decodes
    padding = num_sequences - own
    assert padding == 0 or own == len(batch.context_lengths)
    lengths = np.diff(batch.query_starts).astype(np.int64)
    uniform = np.concatenate([np.full(num_sequences, num_queries, np.int64), lengths[own:]])
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(uniform)])
    kept = np.concatenate([starts[:own], starts[num_sequences:-1]]) if len(lengths) else np.zeros(0, np.int64)
    rows = np.repeat(kept - batch.query_starts[:-1], lengths) + np.arange(lengths.sum())
    firsts = batch.context_lengths - lengths
    contexts = np.concatenate([firsts[:own] + num_queries, np.full(padding, num_queries), batch.context_lengths[own:]])
    positions = np.repeat(contexts - uniform - starts[:-1], uniform) + np.arange(starts[-1])
    num_verified = num_sequences * num_queries
    own_samples = int(speculation.chain_starts[own])
    samples = np.concatenate(
        [rows[batch.sample_rows[:own_samples]], num_verified + np.arange(len(batch.sample_rows) - own_samples)]
    ).astype(np.int64)
    sample_rows = np.concatenate([np.arange(num_verified), rows[batch.sample_rows[own_samples:]]]).astype(np.int32)
    chain_starts = np.concatenate(
        [np.arange(num_sequences) * num_queries, num_verified + np.arange(len(batch.sample_rows) - own_samples + 1)]
    ).astype(np.int32)
    made = _spread_speculation(speculation, rows, chain_starts, len(positions), padding)
    made_batch = replace(
        batch,
        token_ids=_scattered(batch.token_ids, rows, len(positions), 0),
        previous_rows=np.full(len(positions), -1, np.int32),
        positions=positions,
        slots=_scattered(batch.slots, rows, len(positions), 0),
        query_starts=starts.astype(np.int32),
        context_lengths=contexts.astype(np.int32),
        page_tables=np.concatenate(
            [
                batch.page_tables[:own],
                np.zeros((padding, batch.page_tables.shape[1]), np.int32),
                batch.page_tables[own:],
            ]
        ),
        sample_rows=sample_rows,
        sampling=_spread(batch.sampling, samples, len(sample_rows)),
        prompt_logprob_rows=rows[batch.prompt_logprob_rows].astype(np.int32),
        embedding_rows=rows[batch.embedding_rows].astype(np.int32),
        speculation=made,
    )
    chains = np.searchsorted(made_batch.query_starts, sample_rows[chain_starts[:-1]], side="right") - 1
    return UniformStep(
        made_batch, made, samples, chains.astype(np.int32), num_queries, len(speculation.chain_starts) - 1
    )


def _spread_speculation(
    speculation: SpeculationBatch, rows: Int64, chain_starts: Int32, num_rows: int, padding: int
) -> SpeculationBatch:
    """The same of uniform rows; sequences of padding continue nothing and draft nothing.

    Args:
        rows: where each original row is among `num_rows` uniform ones.
    """
    own = speculation.num_decodes
    return SpeculationBatch(
        num_decodes=own + padding,
        num_pages=np.concatenate(
            [speculation.num_pages[:own], np.ones(padding, np.int32), speculation.num_pages[own:]]
        ),
        chain_starts=chain_starts,
        continued=_padded(speculation.continued, own, padding, -1),
        num_drafts=_padded(speculation.num_drafts, own, padding, 0),
        next_ids=_scattered(speculation.next_ids, rows, num_rows, 0),
        num_steps=speculation.num_steps,
        drafts=np.concatenate([speculation.drafts[:own], np.zeros(padding, np.bool_), speculation.drafts[own:]]),
        tree=None if speculation.tree is None else _spread_tree(speculation.tree, rows, num_rows),
        deferred=None if speculation.deferred is None else _spread_places(speculation.deferred, rows, num_rows),
        late=speculation.late,
        first_pages=_first_pages(speculation, own, padding),
    )


def _spread_tree(tree: TreeBatch, rows: Int64, count: int) -> TreeBatch:
    """Rows that nobody asked for are children of the first, and seen by none."""
    parents = np.zeros(count, np.int32)
    parents[rows] = tree.parents
    return replace(tree, parents=parents)


def _spread_places(deferred: Int32, rows: Int64, count: int) -> Int32:
    """Rows that nobody asked for are kept nowhere."""
    places = np.full(count, -1, np.int32)
    places[rows] = deferred
    return places


def _first_pages(speculation: SpeculationBatch, own: int, padding: int) -> Int32:
    given = speculation.first_pages
    return _padded(np.zeros(len(speculation.drafts), np.int32) if given is None else given, own, padding, 0)


def _padded(values: Int32, own: int, padding: int, fill: int) -> Int32:
    return np.concatenate([values[:own], np.full(padding, fill, np.int32), values[own:]])


def _scattered(values: Int64, places: Int64, count: int, fill: int) -> Int64:
    result = np.full(count, fill, np.int64)
    result[places] = values
    return result


def _spread(sampling: SamplingBatch, samples: Int64, count: int) -> SamplingBatch:
    """The same parameters at other places; samples that nobody asked for are greedy."""

    def dense(name: str) -> Any:
        values = getattr(sampling, name)
        result = np.full(count, _FILL.get(name, 0), values.dtype)
        result[samples] = values
        return result

    def moved(rows: Int32) -> Int32:
        return samples[rows].astype(np.int32)

    names = (
        "temperature", "top_p", "top_k", "min_p", "seed", "position", "frequency_penalty", "presence_penalty",
        "repetition_penalty", "num_logprobs",
    )  # fmt: skip
    return replace(
        sampling,
        **{name: dense(name) for name in names},
        bias_rows=moved(sampling.bias_rows),
        seen_rows=moved(sampling.seen_rows),
        banned_rows=moved(sampling.banned_rows),
        allowed_rows=moved(sampling.allowed_rows),
    )
