"""Who of the waiting starts next, and whether memory will last for it.

A sequence is admitted when the pages that it is expected to take, its output included, are there beside those that the running
ones are still expected to take. Nobody passes one that does not fit: it would starve. When nothing runs, it fits in any case
(`RequestLimits`).
"""

import numpy as np

from runtime.batch import Int32
from runtime.identifiers import PAGE_SIZE
from runtime.kv.cache import KVCache
from runtime.kv.prefixes import PrefixNode
from runtime.scheduling.estimate import OutputEstimate
from runtime.scheduling.fairness import FairClock
from runtime.scheduling.requests import Sequence
from runtime.scheduling.running import RunningSequences
from runtime.scheduling.waiting import WaitingQueue


class Admission:
    """From `WaitingQueue` to `RunningSequences`, one sequence at a time."""

    def __init__(
        self,
        cache: KVCache,
        running: RunningSequences,
        waiting: WaitingQueue,
        estimate: OutputEstimate,
        fair_clock: FairClock,
        *,
        longest_prefix_first: bool,
    ) -> None:
        self._cache = cache
        self._running = running
        self._waiting = waiting
        self._estimate = estimate
        self._fair_clock = fair_clock
        self._longest_prefix_first = longest_prefix_first

    def num_uncommitted_pages(self) -> int:
        """Available pages less those that the running sequences are expected to take yet."""
        table = self._running.table
        rows = np.flatnonzero(table.is_active)
        num_prompt = table.num_prompt[rows]
        expected = self._estimate.remaining(table.length[rows] - num_prompt, table.max_length[rows] - num_prompt)
        committed = np.maximum(0, -(-(table.length[rows] + expected) // PAGE_SIZE) - table.num_pages[rows])
        to_fork = sum(
            (len(sequence.choices) - 1) * self._num_fork_pages(sequence) for sequence in self._running.prefilling
        )
        return self._cache.num_available - int(committed.sum()) - to_fork

    def admit(self, spare_pages: int) -> tuple[Sequence, int] | None:
        """Start the next waiting sequence if it has rows and pages; returns it and the pages it is expected to take.

        Args:
            spare_pages: `num_uncommitted_pages`, less what was admitted since it was asked.
        """
        sequence = self._choose()
        if sequence is None or len(sequence.choices) > self._running.num_spare_rows:
            return None
        tokens = sequence.tokens()
        known = self._known_prefix(sequence, tokens)
        num_needed = self._num_expected_pages(sequence, len(tokens), known)
        if num_needed > spare_pages and len(self._running) > 0:
            return None
        head = self._waiting.first()
        if head is not None and head is not sequence:
            head.num_overtaken += 1
        self._waiting.remove(sequence)
        self._fair_clock.serve(sequence.request.start_tag)
        sequence.known_prefix = []
        self._running.start(sequence, tokens, known)
        return sequence, num_needed

    def _choose(self) -> Sequence | None:
        if self._longest_prefix_first:
            return self._waiting.longest_match(lambda sequence: len(self._known_prefix(sequence, sequence.tokens())))
        return self._waiting.first()

    def _known_prefix(self, sequence: Sequence, tokens: Int32) -> list[PrefixNode]:
        """Nodes of its tokens that it could share; each look goes on where the last one ended, as a tree mostly grows."""
        request, known = sequence.request, sequence.known_prefix
        if request.computes_all:
            return []
        while known and not known[-1].attached:
            known.pop()
        known += self._running.matching(known[-1] if known else self._cache.root(request.namespace), tokens)
        return known

    def _num_expected_pages(self, sequence: Sequence, num_tokens: int, known: list[PrefixNode]) -> int:
        """Pages that starting a sequence will take from those available, all its choices and their output included."""
        num_output = num_tokens - len(sequence.request.prompt)
        expected = self._estimate.remaining_of_one(num_output, sequence.request.sampling.max_tokens)
        own = _pages_for(num_tokens + expected) - len(known) + self._cache.num_held_by_match(known)
        return own + (len(sequence.choices) - 1) * self._num_fork_pages(sequence)

    def _num_fork_pages(self, sequence: Sequence) -> int:
        """Pages that each further choice is expected to take, the copy of the prompt's last page included."""
        return _pages_for(self._estimate.remaining_of_one(0, sequence.request.sampling.max_tokens)) + 1


def _pages_for(num_tokens: int) -> int:
    return -(-num_tokens // PAGE_SIZE)
