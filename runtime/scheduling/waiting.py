"""Sequences that wait for a row and pages: new ones, and those that were retracted."""

from bisect import insort
from collections.abc import Callable, Iterator

from runtime.scheduling.requests import Sequence

LPM_WINDOW = 64
"""How many of the first in line a longest-prefix search compares, so that its cost does not grow with the line."""

MAX_OVERTAKEN = 64
"""How often later arrivals may pass the first in line for a longer prefix, so that nobody starves."""


class WaitingQueue:
    """Ordered by priority, then by whose tenant's turn it is, then arrival: see `Sequence.order`."""

    def __init__(self) -> None:
        self._line: list[Sequence] = []

    def __len__(self) -> int:
        return len(self._line)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._line)

    def add(self, sequence: Sequence) -> None:
        """Line up by `Sequence.order`; one that was retracted comes before later arrivals."""
        insort(self._line, sequence, key=_order)

    def remove(self, sequence: Sequence) -> None:
        """Leave the line, admitted or given up."""
        self._line.remove(sequence)

    def first(self) -> Sequence | None:
        """Next in order."""
        return self._line[0] if self._line else None

    def longest_match(self, match_length: Callable[[Sequence], int]) -> Sequence | None:
        """Among the first in line with the highest priority, the one with most pages in the cache; ties in order.

        The first in line is taken all the same when it was passed `MAX_OVERTAKEN` times.
        """
        if not self._line:
            return None
        head = self._line[0]
        if head.num_overtaken >= MAX_OVERTAKEN:
            return head
        equals = [s for s in self._line[:LPM_WINDOW] if s.request.priority == head.request.priority]
        chosen = max(equals, key=match_length)
        return chosen


def _order(sequence: Sequence) -> tuple[int, int, int, int]:
    return sequence.order
