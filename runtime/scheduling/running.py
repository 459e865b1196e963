"""The sequences that run: how they gain and lose rows, pages and shared prefixes.

Whoever runs holds pages, whoever waits holds none: `start` and `stop` are the only ways in and out, and a retracted sequence
computes its tokens again (or finds them in the prefix tree).
"""

import numpy as np

from runtime.batch import Bool, Int32, Int64
from runtime.identifiers import PAGE_SIZE
from runtime.kv.cache import KVCache
from runtime.kv.prefixes import PrefixNode
from runtime.scheduling.backlog import HeadBacklog
from runtime.scheduling.requests import NOT_RUNNING, DraftCounts, Sequence
from runtime.scheduling.sampling_table import SamplingTable
from runtime.scheduling.table import MAX_ENDING_IDS, SequenceTable


class RunningSequences:
    """Rows of the tables, with the pages that belong to them."""

    def __init__(self, cache: KVCache, table: SequenceTable, sampling: SamplingTable) -> None:
        self._cache = cache
        self.table = table
        self.sampling = sampling
        self.backlog = HeadBacklog(table, cache.num_pages)
        self.prefilling: list[Sequence] = []
        """Those whose tokens are not all in the cache yet, in order of admission."""
        self._unpublished: list[tuple[Sequence, int]] = []
        """Those that `extend` gave pages to, and how many pages of their prompts are full then."""

    def __len__(self) -> int:
        return self.table.num_rows - self.table.num_free_rows

    @property
    def num_spare_rows(self) -> int:
        """Rows that are neither taken nor promised to choices that will fork."""
        return self.table.num_free_rows - sum(len(sequence.choices) - 1 for sequence in self.prefilling)

    def sequences(self) -> list[Sequence]:
        """All that run, in order of rows."""
        return [owner for owner in self.table.owners.tolist() if owner is not None]

    def start(self, sequence: Sequence, tokens: Int32, prefix: list[PrefixNode]) -> None:
        """Give a waiting sequence its row, and let it read the prefix of its tokens that the tree has."""
        request = sequence.request
        row = self.table.add(sequence, tokens)
        self.sampling.set(row, request, sequence.choices[0])
        sequence.cursor = self._cache.root(request.namespace)
        sequence.publishes = not request.computes_all
        sequence.reads_others = False
        if request.wants_prompt_logprobs:
            request.prompt_logprobs = [None]
        self.prefilling.append(sequence)
        self._share(sequence, prefix)

    def stop(self, sequence: Sequence, *, num_kept: int) -> None:
        """Take a sequence's row and pages.

        Args:
            num_kept: of its tokens so many may stay in the prefix tree, as far as their keys and values are computed. The
                last known token never counts as computed: with overlap it may be or not, and both must leave the same tree.
        """
        assert sequence.cursor is not None
        row = sequence.row
        self._count_drafts(sequence)
        end = max(0, min(num_kept, int(self.table.cached[row]), int(self.table.known[row]) - 1)) // PAGE_SIZE
        self._cache.release(sequence.cursor, self.table.known_tokens(row), self.table.pages_of(row), end)
        self.table.remove(sequence)
        sequence.cursor = None
        if sequence in self.prefilling:
            self.prefilling.remove(sequence)

    def _count_drafts(self, sequence: Sequence) -> None:
        columns = (self.table.num_verified, self.table.num_proposed, self.table.num_accepted)
        sequence.request.drafts.add(DraftCounts(*(int(column[sequence.row]) for column in columns)))

    def retract(self, sequence: Sequence) -> None:
        """Stop a sequence that will go on later; its output goes with it."""
        sequence.choices[0].output = self.table.output_of(sequence.row)
        self.stop(sequence, num_kept=0)

    def num_output(self, sequence: Sequence) -> int:
        """Output tokens of a sequence that were read, whether it runs or waits."""
        if sequence.row == NOT_RUNNING:
            return len(sequence.choices[0].output)
        return int(self.table.known[sequence.row] - self.table.num_prompt[sequence.row])

    def follow_first_choice(self, sequence: Sequence) -> None:
        """The first of the choices that a sequence carries has changed: its row stands for that one now."""
        choice = sequence.choices[0]
        self.table.choices[sequence.row] = choice.index
        self.sampling.set(sequence.row, sequence.request, choice)

    def mark_ordinary(self, sequence: Sequence) -> None:
        """The first token is delivered: those to come need no look, unless the request asks for one."""
        request = sequence.request
        self.table.is_ordinary[sequence.row] = not (
            request.is_internal
            or request.sampling.logprobs >= 0
            or self.sampling.reads_output[sequence.row]
            or len(request.ending_ids) > MAX_ENDING_IDS
        )

    def stop_tainted(self, sequence: Sequence) -> None:
        """Stop a sequence whose values are broken: nothing on its path stays in the tree."""
        assert sequence.cursor is not None
        self._cache.forget(sequence.cursor)
        self.stop(sequence, num_kept=0)

    def retract_tainted(self, sequence: Sequence) -> None:
        """The same for one that goes on later, without pages of others and without drafts: they may have broken its values."""
        assert sequence.cursor is not None
        request = sequence.request
        self._cache.forget(sequence.cursor)
        self.retract(sequence)
        request.is_alone = True
        if not request.prompt_delivered:
            request.cached_tokens = 0

    def share_prefix(self, sequence: Sequence) -> None:
        """Let a sequence that stands at the start of a page read what the tree has from there on.

        Its last token is always computed, for the logits; so a page that holds it is not shared.
        """
        row, cursor = sequence.row, sequence.cursor
        assert cursor is not None
        if not sequence.publishes or cursor.depth * PAGE_SIZE != self.table.cached[row]:
            return
        self._share(sequence, self.matching(cursor, self.table.known_tokens(row)))

    def _share(self, sequence: Sequence, nodes: list[PrefixNode]) -> None:
        if not nodes:
            return
        row = sequence.row
        pages = self._cache.share(nodes)
        self.table.append_pages(row, pages)
        self.backlog.look(row, pages)
        sequence.reads_others = True
        self.table.cached[row] += len(nodes) * PAGE_SIZE
        sequence.cursor = nodes[-1]
        if sequence.request.num_retractions == 0:
            sequence.request.cached_tokens += len(nodes) * PAGE_SIZE

    def matching(self, cursor: PrefixNode, tokens: Int32) -> list[PrefixNode]:
        """Nodes below `cursor` that a sequence with these tokens could share."""
        self.publish()
        return self._cache.find(cursor, tokens, (len(tokens) - 1) // PAGE_SIZE)

    def extend(self, sequence: Sequence, end: int) -> None:
        """Give a sequence pages for its tokens up to `end`; the full ones of its prompt are published when the step is launched."""
        row = sequence.row
        self.table.append_pages(row, self._allocate(-(-end // PAGE_SIZE) - int(self.table.num_pages[row])))
        if sequence.publishes:
            self._unpublished.append((sequence, min(end, int(self.table.num_prompt[row])) // PAGE_SIZE))

    def publish(self) -> None:
        """Put into the tree what `extend` left: once the step is launched, as the device need not wait for it, or before it is
        looked for there.

        Pages of output wait until the choice has ended: the gateway may still cut it.
        """
        for sequence, num_full in self._unpublished:
            assert sequence.cursor is not None
            sequence.cursor, sequence.publishes = self._cache.publish(
                sequence.cursor,
                self.table.known_tokens(sequence.row),
                self.table.pages[sequence.row],
                num_full,
            )
        self._unpublished.clear()

    def fork(self, sequence: Sequence) -> list[int]:
        """A prompt is through: give each further choice a sequence over the same pages; returns the rows of all choices.

        A partly filled last page is shared as well; who writes to it first copies it, see `grow`.
        """
        row = sequence.row
        self.prefilling.remove(sequence)
        self.table.is_decoding[row] = True
        if len(sequence.choices) > 1:
            self.publish()  # All of them stand at the cursor that it gets.
        rows = [row]
        pages, num_tokens = self.table.pages_of(row), int(self.table.length[row])
        for choice in sequence.choices[1:]:
            other = Sequence(sequence.request, [choice], cursor=sequence.cursor, reads_others=sequence.reads_others)
            choice.sequence = other
            other_row = self.table.add(other, self.table.tokens[row, :num_tokens])
            self.sampling.set(other_row, sequence.request, choice)
            self._cache.retain(pages)
            self.table.append_pages(other_row, pages)
            self.table.cached[other_row] = num_tokens
            self.table.is_decoding[other_row] = True
            for column in (self.table.owed, self.table.blind_pages, self.table.prompt_owners):
                column[other_row] = column[row]
            rows.append(other_row)
        del sequence.choices[1:]
        return rows

    def num_pages_to_grow(self, rows: Int64) -> int:
        """The most pages that `grow` takes."""
        if not len(rows):  # A prompt that comes alone is not kept waiting for arrays of nothing.
            return 0
        is_full = self._is_full(rows)
        return int(np.count_nonzero(is_full)) + len(self._rows_in_shared_page(rows[~is_full]))

    def grow(self, rows: Int64) -> Int32:
        """Give decoding rows a place for one more token each.

        Returns:
            [num_copies, 2] pages to copy before the step: of forks that share a partly filled page all but the last get a
            copy, and the last keeps the page.
        """
        if not len(rows):
            return np.zeros((0, 2), np.int32)
        is_full = self._is_full(rows)
        full = rows[is_full]
        self.table.pages[full, self.table.num_pages[full]] = self._allocate(len(full))
        self.table.num_pages[full] += 1
        copies: list[tuple[int, int]] = []
        for row in self._rows_in_shared_page(rows[~is_full]).tolist():
            last = int(self.table.cached[row]) // PAGE_SIZE
            page = self.table.pages[row, last : last + 1].copy()
            if self._cache.is_shared(page).item():
                self.table.pages[row, last] = copy = self._allocate(1).item()
                self._cache.give_up(page)
                self.backlog.copy_page(page.item(), copy)
                copies.append((page.item(), copy))
        return np.array(copies, np.int32).reshape(-1, 2)

    def num_pages_for_drafts(self, rows: Int64, reaches: Int64) -> Int64:
        """Pages that each row lacks for so many tokens, or for as many of them as it can ever have."""
        reaches = np.minimum(reaches, self.table.furthest(rows))
        missing: Int64 = np.maximum(0, -(-reaches // PAGE_SIZE) - self.table.num_pages[rows])
        return missing

    def append_pages(self, rows: Int64, counts: Int64) -> None:
        """Give each row so many pages more."""
        for place in np.flatnonzero(counts).tolist():
            self.table.append_pages(int(rows[place]), self._allocate(int(counts[place])))

    def num_drafts_to_verify(self, rows: Int64) -> Int64:
        """How many of its drafts each row, which has grown, can verify: by its pages, and by the tokens it may still get.

        Of a tree any number of first nodes can be; its depth may be more than the tokens that are left, as nobody knows it here.
        """
        table = self.table
        places = np.minimum(table.num_pages[rows] * PAGE_SIZE, table.context_length)
        by_pages = places - table.cached[rows] - table.spread[rows] - 1
        by_length = table.max_length[rows] - 1 - table.length[rows]
        if table.shape.is_tree:
            by_length = np.where(by_length > 0, table.shape.num_drafts, 0)
        count: Int64 = np.maximum(0, np.minimum(table.num_drafts[rows], np.minimum(by_pages, by_length)))
        return count

    def _allocate(self, count: int) -> Int32:
        pages = self._cache.allocate(count)
        self.backlog.begin_pages(pages)
        return pages

    def _is_full(self, rows: Int64) -> Bool:
        """Whether a row's pages hold no place for its next token, wherever a step in flight may leave it."""
        table = self.table
        furthest = np.minimum(table.cached[rows] + table.spread[rows], table.max_length[rows] - 2)
        full: Bool = furthest >= table.num_pages[rows] * PAGE_SIZE
        return full

    def _rows_in_shared_page(self, rows: Int64) -> Int64:
        """Of rows that are not full, those that would write their next token to a page that others read."""
        return rows[self._cache.is_shared(self.table.pages[rows, self.table.cached[rows] // PAGE_SIZE])]
