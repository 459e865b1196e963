"""A step's tokens as they reach the host: entered into the table, and parted by what has to be done about them.

All of it is array work. Nearly every token of a busy engine is plain: its row goes on, and nobody asked for more than the id.
"""

from dataclasses import dataclass

import numpy as np

from runtime.batch import StepResult
from runtime.scheduling.batching import StepRecord
from runtime.scheduling.delivery import PlainTokens
from runtime.scheduling.table import SequenceTable


@dataclass(frozen=True, slots=True)
class ReadTokens:
    """A step's samples, less those whose sequences ended while it ran."""

    plain: PlainTokens
    others: list[int]
    """Samples to be looked at one by one: first and last tokens, logprobs, penalties, values that are not finite."""


def read_step(table: SequenceTable, step: StepRecord, result: StepResult) -> ReadTokens:
    """Enter a step's tokens into the table, those that are finite and whose sequences still run."""
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
