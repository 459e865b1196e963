"""Hand-made `StepBatch`es for tests of model runners: a scheduler's output without a scheduler."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from runtime.batch import SamplingBatch, StepBatch
from runtime.identifiers import PAGE_SIZE

_DENSE = {
    "temperature": (np.float32, 0.0),
    "top_p": (np.float32, 1.0),
    "top_k": (np.int32, 0),
    "min_p": (np.float32, 0.0),
    "seed": (np.int64, 0),
    "position": (np.int64, 0),
    "frequency_penalty": (np.float32, 0.0),
    "presence_penalty": (np.float32, 0.0),
    "repetition_penalty": (np.float32, 1.0),
    "num_logprobs": (np.int32, -1),
}
_SPARSE = {
    "bias_rows": np.int32,
    "bias_ids": np.int32,
    "bias_values": np.float32,
    "seen_rows": np.int32,
    "seen_ids": np.int32,
    "seen_prompt_counts": np.int32,
    "seen_output_counts": np.int32,
    "banned_rows": np.int32,
    "banned_ids": np.int32,
}


def sampling_batch(num_samples: int, **given: Any) -> SamplingBatch:
    """Greedy rows, but for what is given: a value for all rows or one a row; sparse fields as lists."""
    fields: dict[str, Any] = {}
    for name, (dtype, default) in _DENSE.items():
        value = np.asarray(given.pop(name, default))
        fields[name] = np.broadcast_to(value, (num_samples,)).astype(dtype)
    for name, dtype in _SPARSE.items():
        fields[name] = np.asarray(given.pop(name, ()), dtype)
    assert not given, f"no such fields: {sorted(given)}"
    return SamplingBatch(**fields)


@dataclass(frozen=True)
class Chunk:
    """New tokens of one sequence: its pages, the position of the first new token, and their ids (or one sample's row)."""

    token_ids: Sequence[int]
    start: int
    pages: Sequence[int]
    previous_row: int = -1
    """At 0 or above, the chunk is one token: that sample of the step before."""
    sample_all: bool = False
    """Sample after every token, not only after the last."""


def step_batch(chunks: Sequence[Chunk], sampling: SamplingBatch | None = None, **given: Any) -> StepBatch:
    """The batch that runs these chunks together; samples after each chunk's last token, greedily, unless told."""
    lengths = [len(chunk.token_ids) for chunk in chunks]
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    positions = [np.arange(chunk.start, chunk.start + len(chunk.token_ids)) for chunk in chunks]
    tables = np.zeros((len(chunks), max(len(chunk.pages) for chunk in chunks)), np.int32)
    slots, sample_rows = [], []
    for index, chunk in enumerate(chunks):
        tables[index, : len(chunk.pages)] = chunk.pages
        slots.append(tables[index][positions[index] // PAGE_SIZE] * PAGE_SIZE + positions[index] % PAGE_SIZE)
        first = starts[index] if chunk.sample_all else starts[index + 1] - 1
        sample_rows.extend(range(first, starts[index + 1]))
    previous = np.concatenate([np.full(len(chunk.token_ids), chunk.previous_row) for chunk in chunks])
    token_ids = np.concatenate([np.asarray(chunk.token_ids, np.int64) for chunk in chunks])
    batch = StepBatch(
        token_ids=np.where(previous >= 0, -1, token_ids),
        previous_rows=previous.astype(np.int32),
        positions=np.concatenate(positions).astype(np.int64),
        slots=np.concatenate(slots).astype(np.int64),
        query_starts=starts,
        context_lengths=np.array([c.start + n for c, n in zip(chunks, lengths, strict=True)], np.int32),
        page_tables=tables,
        sample_rows=np.array(sample_rows, np.int32),
        sampling=sampling if sampling is not None else sampling_batch(len(sample_rows)),
        page_copies=np.zeros((0, 2), np.int32),
    )
    return replace(batch, **given)
