"""Which sequences of a step begin with the same pages: found anew for each step, from its page tables alone.

Sequences are sorted by their tables, so that those which have most in common are neighbours; where neighbours share
much less than others beside them do, a new run begins. Runs are cut into groups of three or four. What looks at pages is
array work, over those sequences that begin with a page that somebody else begins with, too. The rest is a loop over
sequences: between two steps an array operation takes several times what it takes in a loop of its own.

What always holds: the members of a group have equal pages as far as the group's tokens go, and every one has tokens behind them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from runtime.batch import Int32, Int64
from runtime.identifiers import PAGE_SIZE

MEMBERS = 4
"""Of a group at most: with 4 query heads to a key head they fill the 16 rows that tensor cores take at least."""

_MIN_MEMBERS = 3
"""The L2 cache serves two as well: on an H100 64 x 2,304 tokens in pairs take 10.36 ms instead of 10.27,
in fours 8.94 instead of 9.70."""

_MIN_PAGES = 16
"""Less in common than this is read by each for itself."""


@dataclass(frozen=True, slots=True)
class SharedPrefixes:
    """Groups of sequences, none in two of them."""

    members: Int32
    """[num_groups, MEMBERS]; numbers of sequences, -1 where there is none behind the last."""
    tokens: Int32
    """[num_groups]; what the members have in common, whole pages."""

    @property
    def num_saved_tokens(self) -> int:
        """Tokens that need not be read, as another member of the group reads them."""
        return int(((self.members >= 0).sum(axis=1) - 1) @ self.tokens)

    def tokens_of(self, num_sequences: int) -> Int32:
        """[num_sequences]; how many tokens of each its group sees for it."""
        result = np.zeros(num_sequences, np.int32)
        is_member = self.members >= 0
        result[self.members[is_member]] = np.broadcast_to(self.tokens[:, None], self.members.shape)[is_member]
        return result

    def padded(self, num_sequences: int) -> tuple[Int32, Int32, Int32]:
        """As `SharedTables` has them, for a step of so many sequences: with as many empty groups as there may be."""
        members = np.full((num_sequences // 2, MEMBERS), -1, np.int32)
        tokens = np.zeros(num_sequences // 2, np.int32)
        members[: len(self.members)], tokens[: len(self.tokens)] = self.members, self.tokens
        return self.tokens_of(num_sequences), tokens, members.reshape(-1)


NO_PREFIXES = SharedPrefixes(np.zeros((0, MEMBERS), np.int32), np.zeros(0, np.int32))


def find_shared_prefixes(page_tables: Int32, context_lengths: Int32) -> SharedPrefixes | None:
    """Groups among sequences of one new token each, or None: nobody shares enough.

    Args:
        page_tables: [num_sequences, max_pages].
        context_lengths: [num_sequences], the new token included.
    """
    candidates = _candidates(page_tables, context_lengths)
    if len(candidates) < 2:
        return None
    tables = page_tables[candidates, : -(-int(context_lengths[candidates].max()) // PAGE_SIZE)]
    places = _order_of(tables)
    chosen = candidates[places]
    order, common = chosen.tolist(), _common_pages(tables[places], context_lengths[chosen]).tolist()
    members, tokens = [], []
    for first, last in pairwise(_run_bounds(common)):
        for start, end in _cut(first, last):
            members.append(order[start:end] + [-1] * (MEMBERS - (end - start)))
            tokens.append(min(common[start : end - 1]) * PAGE_SIZE)
    return SharedPrefixes(np.array(members, np.int32), np.array(tokens, np.int32)) if tokens else None


def _candidates(page_tables: Int32, context_lengths: Int32) -> Int64:
    """Sequences that have a first page in common with another, and enough pages."""
    first = page_tables[:, 0]
    order = np.argsort(first, kind="stable")
    same = first[order[1:]] == first[order[:-1]]
    shares = np.zeros(len(first), np.bool_)
    shares[order[1:]] = same
    shares[order[:-1]] |= same
    result: Int64 = np.flatnonzero(shares & (context_lengths > _MIN_PAGES * PAGE_SIZE))
    return result


def _order_of(page_tables: Int32) -> Int64:
    """An order in which tables with a longer common beginning are nearer: that of the bytes of every fourth page."""
    sample = np.ascontiguousarray(page_tables[:, ::4])
    keys = sample.view(f"V{sample.itemsize * sample.shape[1]}")[:, 0].tolist()
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64)


def _common_pages(page_tables: Int32, context_lengths: Int32) -> Int64:
    """[num_sequences - 1]; whole pages that each has in common with the next, its newest token's not among them."""
    differs = page_tables[1:] != page_tables[:-1]
    count = np.where(differs.any(axis=1), differs.argmax(axis=1), page_tables.shape[1])
    most = (context_lengths - 1) // PAGE_SIZE
    result: Int64 = np.minimum(count, np.minimum(most[1:], most[:-1])).astype(np.int64)
    return result


def _run_bounds(common: list[int]) -> list[int]:
    """Bounds of runs of sequences: between two runs there is little in common, or less than half of what is beside it."""
    padded = [0, *common, 0]
    breaks = (
        number
        for number, pages in enumerate(common, 1)
        if pages < _MIN_PAGES or 2 * pages < max(padded[number - 1], padded[number + 1])
    )
    return [0, *breaks, len(common) + 1]


def _cut(first: int, last: int) -> Iterator[tuple[int, int]]:
    """Groups of a run, as even as can be; nobody is left over where that can be."""
    length = last - first
    num_groups = min(-(-length // MEMBERS), length // _MIN_MEMBERS)
    for number in range(num_groups):
        start = first + number * length // num_groups
        yield start, min(first + (number + 1) * length // num_groups, start + MEMBERS)
