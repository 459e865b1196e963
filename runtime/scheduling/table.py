"""The running sequences as arrays: one row each, so that a step is built by indexing and not by loops.

A sequence's tokens and how far they got, per row:

    [0, cached)        keys and values are in the cache, or in a step that was launched
    [cached, known)    ids on the host, still to be computed
    [known, length)    at most one token: chosen by a step that is in flight, its id is on the device only

Where drafts are verified by a step in flight, nobody on the host knows how many tokens it gives. Then `cached` and `length` are
what they are if it gives one, and `spread` says how many more there can be; both are corrected when the step is read.

A row decodes when its prompt is through; then `cached == length - 1`, and each step computes one token and chooses the next.

Most tokens need nothing but to be entered here and to leave. `is_ordinary` marks the rows for which that holds until a token
ends them, which is found by comparing arrays; the others are looked at one by one.
"""

import numpy as np
from numpy.typing import NDArray

from runtime.batch import Bool, Int32, Int64
from runtime.draft_shape import NO_DRAFTS, DraftShape
from runtime.identifiers import PADDING_PAGE, PAGE_SIZE
from runtime.scheduling.requests import NOT_RUNNING, Sequence

NO_SAMPLE = -1
NO_TOKEN = -1
MAX_ENDING_IDS = 8
"""So many ids that end a row are compared as arrays; a row with more is not ordinary."""


class SequenceTable:
    """Columns of the running sequences. Free rows hold zeros and are not `is_active`."""

    def __init__(self, num_rows: int, context_length: int, *, shape: DraftShape = NO_DRAFTS) -> None:
        """`shape`: of the drafts that a row may have."""
        self.num_rows = num_rows
        self.shape = shape
        self.context_length = context_length
        self.owners: NDArray[np.object_] = np.full(num_rows, None, np.object_)
        """The `Sequence` of each row, or None."""
        self._free_rows = list(range(num_rows - 1, -1, -1))
        # Both are reserved as zeros, so the system gives memory only for what is ever written.
        self.tokens: Int32 = np.zeros((num_rows, context_length), np.int32)
        self.pages: Int32 = np.zeros((num_rows, -(-context_length // PAGE_SIZE)), np.int32)
        self.num_pages: Int64 = np.zeros(num_rows, np.int64)
        self.cached: Int64 = np.zeros(num_rows, np.int64)
        self.known: Int64 = np.zeros(num_rows, np.int64)
        self.length: Int64 = np.zeros(num_rows, np.int64)
        self.num_prompt: Int64 = np.zeros(num_rows, np.int64)
        self.max_length: Int64 = np.zeros(num_rows, np.int64)
        """Prompt and `max_tokens`."""
        self.request_ids: Int64 = np.zeros(num_rows, np.int64)
        self.choices: Int32 = np.zeros(num_rows, np.int32)
        self.ending_ids: Int32 = np.full((num_rows, MAX_ENDING_IDS), NO_TOKEN, np.int32)
        self.is_ordinary: Bool = np.zeros(num_rows, np.bool_)
        """Its next token is neither its request's first nor asked for with logprobs, and counts for no penalty."""
        self.serials: Int64 = np.zeros(num_rows, np.int64)
        """Tells who has a row now from who had it when a step was launched; 0 for free rows."""
        self._num_added = 0
        self.is_active: Bool = np.zeros(num_rows, np.bool_)
        self.is_decoding: Bool = np.zeros(num_rows, np.bool_)
        self.sample: Int32 = np.full(num_rows, NO_SAMPLE, np.int32)
        """Where the last step launched has the row's next token, while its id is not known."""
        self.spread: Int64 = np.zeros(num_rows, np.int64)
        """Drafts that steps in flight may accept: how much further than `cached` the row may be."""
        self.num_drafts: Int64 = np.zeros(num_rows, np.int64)
        """Drafts for the row's next step, on the host or made by the step in flight."""
        self.drafts: Int64 = np.zeros((num_rows, shape.num_drafts), np.int64)
        """What they are, once that step was read."""
        self.parents: Int64 = np.zeros((num_rows, shape.num_drafts if shape.is_tree else 0), np.int64)
        """Of a tree's drafts, see `TreeResult.parents`."""
        self.owed: Int64 = np.zeros(num_rows, np.int64)
        """Of the last tokens of `cached`: how many the draft head has no entries for, see `backlog`."""
        self.blind_pages: Int64 = np.zeros(num_rows, np.int64)
        """Pages at the beginning that the head does not look at."""
        self.is_alone: Bool = np.zeros(num_rows, np.bool_)
        """It reads no pages of others and has no drafts, see `Request.is_alone`."""
        self.prompt_owners: Int64 = np.zeros(num_rows, np.int64)
        """Who owns the prompt's places in the backlog."""
        self.num_verified: Int64 = np.zeros(num_rows, np.int64)
        """Passes that verified drafts, those that were read."""
        self.num_proposed: Int64 = np.zeros(num_rows, np.int64)
        """Drafts that these verified."""
        self.num_accepted: Int64 = np.zeros(num_rows, np.int64)
        """Drafts that turned out to be the row's tokens."""

    @property
    def num_free_rows(self) -> int:
        """Sequences that could still be added."""
        return len(self._free_rows)

    def add(self, sequence: Sequence, tokens: Int32) -> int:
        """Give a sequence a row with its tokens, nothing of them cached."""
        row = self._free_rows.pop()
        request = sequence.request
        self.owners[row] = sequence
        self.tokens[row, : len(tokens)] = tokens
        self.known[row] = self.length[row] = len(tokens)
        self.num_prompt[row] = len(request.prompt)
        self.max_length[row] = len(request.prompt) + request.sampling.max_tokens
        self.request_ids[row] = request.id
        self.choices[row] = sequence.choices[0].index
        ending = sorted(request.ending_ids)[:MAX_ENDING_IDS]
        self.ending_ids[row, : len(ending)] = ending
        self._num_added += 1
        self.serials[row] = self._num_added
        self.prompt_owners[row] = -self._num_added
        self.is_alone[row] = request.is_alone
        self.is_active[row] = True
        sequence.row = row
        return row

    def remove(self, sequence: Sequence) -> None:
        """Take the row back; the caller has released its pages."""
        row = sequence.row
        self.owners[row] = None
        self.pages[row, : self.num_pages[row]] = PADDING_PAGE
        for column in (self.num_pages, self.cached, self.known, self.length, self.num_prompt, self.max_length):
            column[row] = 0
        for column in (self.spread, self.num_drafts, self.num_verified, self.num_proposed, self.num_accepted):
            column[row] = 0
        for column in (self.owed, self.blind_pages, self.prompt_owners):
            column[row] = 0
        self.drafts[row] = 0
        self.parents[row] = 0
        self.ending_ids[row] = NO_TOKEN
        self.serials[row] = 0
        self.is_active[row] = self.is_decoding[row] = self.is_ordinary[row] = False
        self.sample[row] = NO_SAMPLE
        self._free_rows.append(row)
        sequence.row = NOT_RUNNING

    def pages_of(self, row: int) -> Int32:
        """A copy of the pages that a row reads."""
        return self.pages[row, : self.num_pages[row]].copy()

    def append_pages(self, row: int, pages: Int32) -> None:
        """Add pages at the end of a row."""
        first = int(self.num_pages[row])
        self.pages[row, first : first + len(pages)] = pages
        self.num_pages[row] += len(pages)

    def tokens_at(self, rows: Int64, positions: Int64) -> Int64:
        """The ids at these places, whether they mean something yet or not."""
        ids: Int64 = self.tokens.reshape(-1).take(rows * self.context_length + positions).astype(np.int64)
        return ids

    def slots_at(self, rows: Int64, positions: Int64) -> Int64:
        """Where in the cache the keys and values of these places are."""
        places = positions // PAGE_SIZE
        pages = self.pages.reshape(-1).take(rows * self.pages.shape[1] + places).astype(np.int64)
        slots: Int64 = (pages - places) * PAGE_SIZE + positions
        return slots

    def output_of(self, row: int) -> Int32:
        """A copy of the output tokens that were read."""
        return self.tokens[row, self.num_prompt[row] : self.known[row]].copy()

    def known_tokens(self, row: int) -> Int32:
        """The token ids that are on the host; a view, to be used at once."""
        return self.tokens[row, : self.known[row]]

    def decode_rows(self) -> Int64:
        """Rows that decode in the next step: not those whose last token is chosen already and only unread."""
        return np.flatnonzero(self.is_decoding & (self.length < self.max_length))

    def read_tokens(self, rows: Int64, positions: Int64, ids: Int64) -> None:
        """Enter tokens that came to the host; the rows are distinct and still run."""
        self.tokens[rows, positions] = ids
        self.known[rows] = positions + 1
        settled = rows[self.length[rows] == positions + 1]
        self.sample[settled] = NO_SAMPLE

    def settle(self, rows: Int64, num_tokens: Int64, num_drafts: Int64) -> None:
        """A step in flight is read: these rows, distinct, got so many tokens from it by verifying so many drafts."""
        self.cached[rows] += num_tokens - 1
        self.length[rows] += num_tokens - 1
        self.spread[rows] -= self.most_accepted(num_drafts)
        self.num_verified[rows] += num_drafts > 0
        self.num_proposed[rows] += num_drafts
        self.num_accepted[rows] += num_tokens - 1

    def read_run(self, rows: Int64, counts: Int64, ids: Int64) -> None:
        """Enter the next `counts[i]` tokens of each of some rows, distinct and settled; `ids` has them one after the other."""
        ends = np.cumsum(counts)
        places = np.arange(len(ids)) - np.repeat(ends - counts, counts)
        self.tokens[np.repeat(rows, counts), np.repeat(self.known[rows], counts) + places] = ids
        self.known[rows] += counts
        self.sample[rows[self.length[rows] == self.known[rows]]] = NO_SAMPLE

    def read_one(self, row: int, token: int) -> None:
        """Enter the next token of a row that is settled."""
        self.tokens[row, self.known[row]] = token
        self.known[row] += 1
        if self.length[row] == self.known[row]:
            self.sample[row] = NO_SAMPLE

    def ended(self, rows: Int64, ids: Int64) -> Bool:
        """Which rows these tokens end, just read: by their length, or by an id that ends them."""
        has_ended: Bool = self.known[rows] == self.max_length[rows]
        has_ended |= (self.ending_ids[rows] == ids[:, None]).any(axis=1)
        return has_ended

    def most_accepted(self, num_drafts: Int64) -> Int64:
        """Of so many drafts, as many as can be on one path."""
        return np.minimum(num_drafts, self.shape.num_steps)

    def furthest(self, rows: Int64) -> Int64:
        """Places that rows can ever fill. A tree's side branches may go beyond the last token, but not beyond a context."""
        if self.shape.is_tree:
            return np.full(len(rows), self.context_length)
        most: Int64 = self.max_length[rows] - 1
        return most

    def check_integrity(self) -> None:
        """Raise AssertionError unless every row is either free and blank, or consistent."""
        active = np.flatnonzero(self.is_active)
        assert np.array_equal(self.serials != 0, self.is_active), "a free row looks taken, or the other way round"
        assert not (self.is_ordinary & ~self.is_decoding).any(), "a row without output was taken for ordinary"
        assert sorted([*self._free_rows, *active.tolist()]) == list(range(self.num_rows)), "rows were lost or made"
        for row, owner in enumerate(self.owners):
            assert (owner is not None) == bool(self.is_active[row])
            assert owner is None or owner.row == row
        assert bool((self.cached[active] <= self.length[active]).all())
        assert bool((self.length[active] - self.known[active] <= 1).all())
        assert bool((self.length[active] <= self.max_length[active]).all())
        fewest = -(-self.cached[active] // PAGE_SIZE)
        shape = self.shape
        reach = np.minimum(self.cached[active] + 3 * shape.places_at(shape.num_steps) + 1, self.furthest(active))
        most = np.maximum(fewest, -(-reach // PAGE_SIZE)) if shape.num_steps else fewest
        assert bool(((fewest <= self.num_pages[active]) & (self.num_pages[active] <= most)).all()), (
            "pages do not fit the tokens"
        )
        assert bool((self.spread[active] >= 0).all()), "more drafts were read than verified"
        assert not self.spread[active][self.sample[active] == NO_SAMPLE].any(), "drafts are verified by no step"
        assert bool((self.owed[active] <= self.cached[active] + self.spread[active]).all()), (
            "entries of no token are owed"
        )
        unread = self.is_active & (self.length > self.known)
        assert np.array_equal(self.sample != NO_SAMPLE, unread), "a token in flight is not where it is looked for"
        blank = np.arange(self.pages.shape[1])[None, :] >= self.num_pages[:, None]
        assert not self.pages[blank].any(), "a row has pages beyond its end"
