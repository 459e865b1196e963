"""Logits for the rows that need them: samples, and prompt tokens whose logprobs are asked for.

Logits are the largest activations of a small model. They exist for a bounded number of rows at a time, except for
samples, which are few.
"""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from runtime.batch import Int64, StepBatch
from runtime.runner.rows import RowGrouping
from runtime.sampling.logprobs import DeviceLogprobs, concatenate, logprobs_of


class LogitsModel(Protocol):
    """The end of a decoder."""

    def logits(self, hidden: Tensor) -> tuple[Tensor]:
        """[num_rows, hidden_size] → [num_rows, vocab_size]."""
        ...


def sample_logits(model: LogitsModel, grouping: RowGrouping, hidden: Tensor, hidden_rows: Int64) -> Tensor:
    """Logits of some rows of `hidden` [num_rows, hidden_size] → [len(hidden_rows), vocab_size] float32."""
    return torch.cat([logits for _, logits in _logit_chunks(model, grouping, hidden, hidden_rows)])


def score_prompt(
    model: LogitsModel, grouping: RowGrouping, hidden: Tensor, hidden_rows: Int64, batch: StepBatch
) -> DeviceLogprobs:
    """Logprobs of the batch's `prompt_logprob_targets`, whose hidden states stand in `hidden_rows`."""
    num_top = int(batch.prompt_logprob_counts.max())
    targets = torch.from_numpy(batch.prompt_logprob_targets).to(hidden.device, non_blocking=True)
    return concatenate(
        logprobs_of(logits, targets[span], num_top)
        for span, logits in _logit_chunks(model, grouping, hidden, hidden_rows)
    )


def _logit_chunks(
    model: LogitsModel, grouping: RowGrouping, hidden: Tensor, hidden_rows: Int64
) -> Iterator[tuple[slice, Tensor]]:
    """Logits of `hidden_rows`, at most `num_scored_at_once` of them existing at a time."""
    for start in range(0, len(hidden_rows), grouping.num_scored_at_once):
        span = slice(start, min(start + grouping.num_scored_at_once, len(hidden_rows)))
        placement = grouping.place_samples(span.stop - start)
        source = np.zeros(placement.num_rows, np.int64)
        source[placement.rows] = hidden_rows[span]
        chosen = hidden.index_select(0, torch.from_numpy(source).to(hidden.device, non_blocking=True))
        (logits,) = grouping.apply(model.logits, chosen)
        yield (
            span,
            logits.index_select(0, torch.from_numpy(placement.rows).to(hidden.device, non_blocking=True)).float(),
        )
