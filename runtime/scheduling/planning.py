"""What the next step computes: all that decode, and prompts in chunks beside them.

The order within one step, each part using what the part before it left:

    (1) every decoding row gets a place for its token; where pages are short, the youngest sequences are retracted
    (2) prompts under way get their next chunk, in order of admission
    (3) waiting sequences are admitted, as long as the estimate says that memory will last, see `admission`
    (4) with a draft head: what is left of the pages goes to drafts; if it is too little, the step makes none; where drafts
        do not pay the head's part is put off, see `backlog`

Decoding never waits for a prompt, as both are in the same step; how many prompt tokens a step may hold beside it bounds by
how much they slow it down. Alone, prompts take what fills the device for a good while (`chunked_prefill_size`): fewer steps,
and a long prompt is through in one. Beside decoding rows they take a bite, see `mixing`.
"""

from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np

from runtime.batch import Int32, Int64, LateEntries
from runtime.identifiers import PAGE_SIZE
from runtime.kv.cache import KVCache
from runtime.scheduling.admission import Admission
from runtime.scheduling.estimate import OutputEstimate
from runtime.scheduling.mixing import FULL_ROWS, Demand, MixedBudget
from runtime.scheduling.requests import Sequence
from runtime.scheduling.running import RunningSequences
from runtime.scheduling.waiting import WaitingQueue
from runtime.speculative.adapting import SpeculationPolicy
from runtime.step_sizes import MixedSizes


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens `[start, end)` of a sequence."""

    sequence: Sequence
    row: int
    start: int
    end: int
    sampled_rows: list[int]
    """Rows whose first token is chosen at its end: one per choice, none before the last chunk."""

    @property
    def rows(self) -> list[int]:
        """All whose tokens it computes, the sequence's own first."""
        return self.sampled_rows or [self.row]


@dataclass(frozen=True, slots=True)
class StepPlan:
    """Who computes; rows and pages are assigned already."""

    decode_rows: Int64
    page_copies: Int32
    chunks: list[Chunk]
    num_drafts: Int64
    """[len(decode_rows)]; drafts that each row verifies."""
    num_steps: int = 0
    """Drafts to make for the step after."""
    drafting_rows: Int64 = field(default_factory=lambda: np.zeros(0, np.int64))
    """For which they are."""
    deferred: Int32 | None = None
    """See `SpeculationBatch`."""
    late: LateEntries | None = None


class StepPlanner:
    """Decides; `RunningSequences` and `WaitingQueue` are changed accordingly."""

    def __init__(
        self,
        cache: KVCache,
        running: RunningSequences,
        waiting: WaitingQueue,
        estimate: OutputEstimate,
        admission: Admission,
        *,
        prefill_sizes: tuple[int, int],
        mixed_sizes: MixedSizes,
        policy: SpeculationPolicy,
    ) -> None:
        self._cache = cache
        self._running = running
        self._waiting = waiting
        self._estimate = estimate
        self._admission = admission
        self._alone_size = prefill_sizes[0]
        self._mixed_budget = MixedBudget(prefill_sizes[1], mixed_sizes)
        self._policy = policy
        self.num_retractions = 0

    def needs_results(self) -> bool:
        """Whether the step in flight must be read before the next is planned.

        Penalties count tokens and grammars follow them, so such a row needs its last token on the host; so does one whose tokens
        are too few to end, if drafts are verified and nobody knows how many they are. And nobody is retracted
        while a token of his is on its way; what ends with that step may spare it altogether.
        """
        table = self._running.table
        rows = table.decode_rows()
        is_unknown = table.spread[rows] > 0
        if table.shape.is_tree:  # Nor is it known how deep its next drafts stand.
            is_unknown |= (table.sample[rows] >= 0) & (table.num_drafts[rows] > 0)
        counts_tokens = is_unknown & (table.length[rows] < self._running.sampling.min_length[rows])
        if ((self._running.sampling.reads_output[rows] & (table.sample[rows] >= 0)) | counts_tokens).any():
            return True
        num_wanted = self._running.num_pages_to_grow(rows)
        return num_wanted > self._cache.num_free and num_wanted > self._cache.num_available

    def plan(self, *, in_flight: bool) -> StepPlan | None:
        """The next step; None when nobody can compute now.

        Args:
            in_flight: whether a step is launched and not read; then nobody is retracted (`needs_results` said no).
        """
        num_before = self.num_retractions
        while True:
            rows = self._make_room_to_decode(in_flight)
            copies = self._running.grow(rows)
            chunks = self._plan_chunks(self._budget(len(rows)), may_admit=self.num_retractions == num_before)
            if len(rows) or chunks:
                return self._speculate(rows, copies, chunks)
            if in_flight or len(self._running) == 0:
                return None
            # Prompts under way hold all pages and none can go on.
            self._retract_youngest()

    def _budget(self, num_decodes: int) -> int:
        """Most prompt tokens of a step beside so many decoding rows."""
        if not num_decodes or not (self._running.prefilling or len(self._waiting)):
            return self._alone_size
        return self._mixed_budget.tokens(num_decodes, self._demand())

    def _demand(self) -> Demand:
        """Of a long line the first are enough to know that it is long."""
        table = self._running.table
        rows = np.flatnonzero(table.is_active)
        num_prompt = table.num_prompt[rows]
        prompt_tokens, waiting_tokens = int(num_prompt.sum()), 0
        output_tokens = int(self._estimate.expected(table.max_length[rows] - num_prompt).sum())
        for sequence in self._running.prefilling:
            waiting_tokens += int(table.length[sequence.row] - table.cached[sequence.row])
        for sequence in islice(self._waiting, FULL_ROWS):
            prompt_tokens += len(sequence.request.prompt)
            waiting_tokens += len(sequence.request.prompt)
            output_tokens += int(self._estimate.expected(sequence.request.sampling.max_tokens))
        return Demand(len(rows) + min(FULL_ROWS, len(self._waiting)), prompt_tokens, output_tokens, waiting_tokens)

    def _speculate(self, rows: Int64, copies: Int32, chunks: list[Chunk]) -> StepPlan:
        """The step with the drafts that it verifies and makes, and with the head's entries, now or later."""
        policy, backlog = self._policy, self._running.backlog
        if len(rows):
            level = policy.choose(len(rows), has_prompts=bool(chunks))
        else:
            level = policy.level_at(len(self._running))
        num_drafts = np.minimum(self._running.num_drafts_to_verify(rows), policy.shape.drafts_at(level))
        plan = StepPlan(rows, copies, chunks, num_drafts)
        if not policy.shape.num_steps:
            return plan
        if not level:
            return replace(plan, deferred=backlog.defer(rows, [*chunks]))
        firsts = [np.full(len(chunk.rows), chunk.start) for chunk in chunks]
        entering = np.concatenate([rows, *(np.array(chunk.rows, np.int64) for chunk in chunks)])
        late = backlog.catch_up(entering, np.concatenate([self._running.table.cached[rows], *firsts]))
        return self._with_drafts(replace(plan, late=late), level)

    def _with_drafts(self, plan: StepPlan, num_steps: int) -> StepPlan:
        """Give the rows pages for drafts, of which as many must fit behind those that this step verifies.

        Drafts are worth making for those that decode, and for prompts that are through. Choices of one prompt still share its
        last page, which is no place for the drafts of all of them.
        """
        table = self._running.table
        through = np.array([chunk.row for chunk in plan.chunks if len(chunk.sampled_rows) == 1], np.int64)
        rows, num_decodes = np.concatenate([plan.decode_rows, through]), len(plan.decode_rows)
        newest = np.concatenate([table.cached[plan.decode_rows], table.length[through] - 1])
        ends = table.cached[rows] + table.spread[rows] + 1
        ends[:num_decodes] += table.most_accepted(plan.num_drafts)
        ends[num_decodes:] = table.length[through]
        sees = self._running.backlog.can_draft(rows, newest) & ~table.is_alone[rows]
        rows, ends = rows[sees], ends[sees]
        missing = self._running.num_pages_for_drafts(rows, ends + table.shape.places_at(num_steps) + 1)
        if missing.sum() > self._cache.num_available:
            return plan
        self._running.append_pages(rows, missing)
        return replace(plan, num_steps=num_steps, drafting_rows=rows)

    def _make_room_to_decode(self, in_flight: bool) -> Int64:
        rows = self._running.table.decode_rows()
        while self._running.num_pages_to_grow(rows) > self._cache.num_available:
            assert not in_flight, "retraction with a token on its way"
            self._retract_youngest()
            rows = self._running.table.decode_rows()
        return rows

    def _retract_youngest(self) -> None:
        """Send the last in order back to the queue; it keeps its output, and goes on where it was."""
        assert len(self._running) > 1, "a sequence that runs alone must fit"
        victim = max(self._running.sequences(), key=lambda sequence: sequence.order)
        self._running.retract(victim)
        victim.request.num_retractions += 1
        self.num_retractions += 1
        self._estimate.raise_after_retraction()
        self._waiting.add(victim)

    def _plan_chunks(self, budget: int, *, may_admit: bool) -> list[Chunk]:
        chunks: list[Chunk] = []
        for sequence in list(self._running.prefilling):
            chunk = self._next_chunk(sequence, budget)
            if chunk is None:
                return chunks
            chunks.append(chunk)
            budget -= chunk.end - chunk.start
        spare_pages = self._admission.num_uncommitted_pages() if may_admit and budget and len(self._waiting) else 0
        while may_admit and budget:
            admitted = self._admission.admit(spare_pages)
            if admitted is None:
                break
            sequence, num_needed = admitted
            spare_pages -= num_needed
            chunk = self._next_chunk(sequence, budget)
            if chunk is None:
                break
            chunks.append(chunk)
            budget -= chunk.end - chunk.start
        return chunks

    def _next_chunk(self, sequence: Sequence, budget: int) -> Chunk | None:
        """As many tokens as budget and pages allow; up to a page's end, so that whole pages can be shared early."""
        if budget == 0:
            return None
        table, row = self._running.table, sequence.row
        self._running.share_prefix(sequence)
        start, length = int(table.cached[row]), int(table.length[row])
        end = min(length, start + budget, (int(table.num_pages[row]) + self._cache.num_available) * PAGE_SIZE)
        if end < length and end // PAGE_SIZE * PAGE_SIZE > start:
            end = end // PAGE_SIZE * PAGE_SIZE
        if end <= start:
            return None
        self._running.extend(sequence, end)
        if end < length:
            return Chunk(sequence, row, start, end, [])
        self._mixed_budget.observe(length, min(length, sequence.request.cached_tokens))
        return Chunk(sequence, row, start, end, self._running.fork(sequence))
