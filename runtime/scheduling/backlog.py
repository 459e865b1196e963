"""Which entries of the draft head are missing, and which of them can still be made.

While no drafts are made (level 0, see `runtime.speculative.adapting`) a step does not make the head's entries: that would be work
for nobody, the draft's share of a prefill foremost. It keeps what they follow from, the target's hidden states and the token after
each, in a *backlog* of a fixed number of places, which is a ring: the newest rows drive out the oldest. When drafts are wanted
again, all that a sequence is owed and the backlog still has is entered in one pass, before it drafts.

Of one sequence the backlog holds the latest rows without a gap. What was driven out is lost: the head drafts for that sequence
with what lies behind the last page that lacks entries, and as soon as it stands behind it. That may cost accepted drafts,
and nothing else.

Pages are shared, so what they lack is known by page: whoever shares a prefix finds out here. A page lacks entries from the step
that wrote keys and values alone to it until they are entered, or until the page is given to somebody new.

    [0, 16 * blind_pages)         the head does not look at these
    [.., cached - owed)           entered
    [cached - owed, cached)       owed: lost, or in the backlog
"""

from typing import Protocol

import numpy as np

from runtime.batch import BACKLOG_SIZE, Bool, Int32, Int64, LateEntries
from runtime.identifiers import PAGE_SIZE
from runtime.scheduling.table import SequenceTable

NOWHERE = -1
_CHUNK_SHARE = 8
"""One chunk may take this part of the backlog: a long prompt does not drive out everybody else."""


class PromptPart(Protocol):
    """Tokens `[start, end)` of a prompt, of one sequence or of all that fork at its end; see `planning.Chunk`."""

    @property
    def start(self) -> int:
        """The first one's position."""
        ...

    @property
    def end(self) -> int:
        """The position behind the last."""
        ...

    @property
    def rows(self) -> list[int]:
        """Of the table; the first is the one that computes."""
        ...


class HeadBacklog:
    """The account of it; the places themselves are the runner's."""

    def __init__(self, table: SequenceTable, num_pages: int, num_places: int | None = None) -> None:
        """`num_places`: at most those of the runner, and at least the rows of the table."""
        self._table = table
        self._lacks: Bool = np.zeros(num_pages, np.bool_)
        self._owners: Int64 = np.zeros(BACKLOG_SIZE if num_places is None else num_places, np.int64)
        """Of each place: a sequence's serial, negative for its prompt, which forks share; 0: nobody's."""
        self._next = 0
        self.num_late = 0
        """Entries made from the backlog, since the start."""
        self.num_lost = 0
        """Entries that were owed and can be made no more."""

    def begin_pages(self, pages: Int32) -> None:
        """Somebody gets these pages, and will write them anew."""
        self._lacks[pages] = False

    def copy_page(self, source: int, target: int) -> None:
        """What one lacks the other lacks."""
        self._lacks[target] = self._lacks[source]

    def look(self, row: int, pages: Int32) -> None:
        """A sequence shares these pages, the last ones of its row."""
        lacking = np.flatnonzero(self._lacks[pages])
        if lacking.size:
            first = int(self._table.num_pages[row]) - len(pages)
            self._table.blind_pages[row] = first + int(lacking[-1]) + 1

    def can_draft(self, rows: Int64, newest: Int64) -> Bool:
        """Whether the head sees anything from a position of each row on, the one of its newest entry."""
        sees: Bool = self._table.blind_pages[rows] * PAGE_SIZE <= newest
        return sees

    def defer(self, rows: Int64, parts: list[PromptPart]) -> Int32:
        """A step makes no entries: rows that decode one token each, and parts of prompts.

        Returns: [num_tokens of the step] places, or NOWHERE.
        """
        table = self._table
        assert len(rows) <= len(self._owners), "fewer places than rows"
        places = [self._take(table.serials[rows])]
        table.owed[rows] += 1
        firsts = table.cached[rows] // PAGE_SIZE
        lasts = np.minimum((table.cached[rows] + table.spread[rows]) // PAGE_SIZE, table.num_pages[rows] - 1)
        for further in range(int((lasts - firsts).max(initial=-1)) + 1):
            self._lacks[table.pages[rows, np.minimum(firsts + further, lasts)]] = True
        left = len(self._owners) - len(rows)
        for part in parts:
            kept = self._defer_part(part, left)
            left -= int((kept != NOWHERE).sum())
            places.append(kept)
        return np.concatenate(places).astype(np.int32)

    def _defer_part(self, part: PromptPart, most: int) -> Int64:
        table, row, count = self._table, part.rows[0], part.end - part.start
        owner = int(table.prompt_owners[row])
        num_kept = min(count, most, len(self._owners) // _CHUNK_SHARE)
        if num_kept < count:  # What is there of it already no longer adjoins.
            self._owners[self._owners == owner] = 0
        table.owed[part.rows] += count
        self._lacks[table.pages[row, part.start // PAGE_SIZE : -(-part.end // PAGE_SIZE)]] = True
        return np.concatenate([np.full(count - num_kept, NOWHERE), self._take(np.full(num_kept, owner))])

    def _take(self, owners: Int64) -> Int64:
        places = (self._next + np.arange(len(owners))) % len(self._owners)
        self._next = (self._next + len(owners)) % len(self._owners)
        self._owners[places] = owners
        return places

    def catch_up(self, rows: Int64, ends: Int64) -> LateEntries | None:
        """These rows are to have all entries before `ends`, from which on the step makes them; None: they have.

        Where a row stands is known: a step that made no entries verified no drafts.
        """
        owing = self._table.owed[rows] > 0
        if not owing.any():
            return None
        order = (self._next + np.arange(len(self._owners))) % len(self._owners)
        owners = self._owners[order]
        parts = [
            self._catch_up(row, end, order, owners)
            for row, end in zip(rows[owing].tolist(), ends[owing].tolist(), strict=True)
        ]
        for row, end in zip(rows[owing].tolist(), ends[owing].tolist(), strict=True):
            lacking = np.flatnonzero(self._lacks[self._table.pages[row, : -(-end // PAGE_SIZE)]])
            self._table.blind_pages[row] = lacking[-1] + 1 if lacking.size else 0
        places, positions, slots = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        slots, first = np.unique(slots, return_index=True)  # Forks owe the same entries of a page that they share.
        self.num_late += len(slots)
        return LateEntries(places[first].astype(np.int32), positions[first], slots) if len(slots) else None

    def _catch_up(self, row: int, end: int, order: Int64, owners: Int64) -> tuple[Int64, Int64, Int64]:
        """Places, positions and slots of what a row is owed and can have."""
        table, owed = self._table, int(self._table.owed[row])
        places = order[(owners == table.serials[row]) | (owners == table.prompt_owners[row])][-owed:]
        first = end - len(places)
        whole_from = first // PAGE_SIZE if len(places) == owed else -(-first // PAGE_SIZE)
        whole_from = max(whole_from, int(table.blind_pages[row]))
        self._lacks[table.pages[row, whole_from : table.num_pages[row]]] = False
        self.num_lost += owed - len(places)
        table.owed[row] = 0
        positions = np.arange(first, end)
        return places, positions, table.slots_at(np.full(len(positions), row), positions)
