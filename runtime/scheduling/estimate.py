"""How much output to expect, so that memory is neither left idle nor promised twice.

Reserving `max_tokens` for everybody would leave most of the cache unused, as most answers end early; reserving nothing would
admit requests only to retract them. So we keep a running average of the part of `max_tokens` that answers really used,
and admit by that. A retraction says that the estimate was too low, and raises it.
"""

import numpy as np

from runtime.batch import Int64
from runtime.identifiers import PAGE_SIZE


class OutputEstimate:
    """Expected share of `max_tokens` that an answer uses."""

    INITIAL = 0.5
    LOWEST = 0.05
    WEIGHT = 0.02
    """Of each new observation: the average follows the last fifty answers or so."""
    RAISE = 1.25
    """Factor after each retraction."""

    def __init__(self) -> None:
        self.fraction = self.INITIAL

    def observe(self, num_output: int, max_tokens: int) -> None:
        """An answer ended with so many tokens."""
        self.fraction += self.WEIGHT * (num_output / max_tokens - self.fraction)
        self.fraction = max(self.LOWEST, self.fraction)

    def raise_after_retraction(self) -> None:
        """Memory ran short: be more careful."""
        self.fraction = min(1.0, self.fraction * self.RAISE)

    def expected(self, max_tokens: Int64 | int) -> Int64:
        """Tokens of whole answers."""
        return np.ceil(self.fraction * np.asarray(max_tokens)).astype(np.int64)

    def remaining(self, num_output: Int64, max_tokens: Int64) -> Int64:
        """Tokens still to come: at least a page for who is beyond the average, at most what is allowed."""
        expected = self.expected(max_tokens) - num_output
        remaining: Int64 = np.minimum(np.maximum(expected, PAGE_SIZE), max_tokens - num_output)
        return remaining

    def remaining_of_one(self, num_output: int, max_tokens: int) -> int:
        """`remaining` for a single answer."""
        return int(self.remaining(np.array([num_output]), np.array([max_tokens]))[0])
