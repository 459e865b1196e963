"""The scheduler: requests in, step batches out; step results in, deliveries out.

It owns all state of requests and runs nothing itself. One thread calls it, in this order for each step:

    expire → needs_results? → plan → (launch) → collect, of this step or the one before → take_output

Whatever is wrong with one request ends that request. What is wrong with the scheduler raises, and ends the engine.
"""

import heapq
from collections.abc import Iterable

import numpy as np

from runtime.batch import StepBatch, StepResult
from runtime.draft_shape import NO_DRAFTS
from runtime.errors import QueueFull, RequestRejected
from runtime.kv.cache import KVCache
from runtime.request import Finish, GenerationRequest, TokenDelivery, TokenLogprobs
from runtime.scheduling.backlog import HeadBacklog
from runtime.scheduling.batching import StepRecord, build_step
from runtime.scheduling.delivery import LogprobLists, StepOutput, Totals, prompt_of, summary_of
from runtime.scheduling.estimate import OutputEstimate
from runtime.scheduling.fairness import FairClock
from runtime.scheduling.limits import RequestLimits
from runtime.scheduling.planning import StepPlanner
from runtime.scheduling.reading import read_prompts, read_step, samples_of
from runtime.scheduling.requests import (
    NOT_RUNNING,
    Choice,
    GrammarSource,
    Request,
    Sequence,
    build_request,
    make_matchers,
)
from runtime.scheduling.running import RunningSequences
from runtime.scheduling.sampling_table import SamplingTable
from runtime.scheduling.table import SequenceTable
from runtime.scheduling.waiting import WaitingQueue
from runtime.speculative.adapting import SpeculationPolicy

NON_FINITE = Finish("error", None, "non_finite_logits")


class Scheduler:
    """All requests of one engine."""

    def __init__(
        self,
        cache: KVCache,
        limits: RequestLimits,
        eos_token_ids: Iterable[int],
        *,
        prefill_sizes: tuple[int, int],
        max_queued_requests: int,
        longest_prefix_first: bool,
        grammars: GrammarSource | None = None,
        policy: SpeculationPolicy | None = None,
    ) -> None:
        """
        Args:
            cache: the pages, with nobody using them.
            limits: what requests are held to; also gives the number of rows and their length.
            eos_token_ids: the model's own ends of an answer.
            prefill_sizes: most prompt tokens in a step without decoding rows; most tokens in one with both.
            max_queued_requests: beyond so many waiting, `submit` raises QueueFull.
            longest_prefix_first: schedule_policy `lpm`.
            grammars: of constrained requests; None: such are refused.
            policy: of a speculating engine: how many drafts are made for each answer; None: it does not speculate.
        """
        self.cache = cache
        self._limits = limits
        self._eos_token_ids = tuple(eos_token_ids)
        self._max_queued = max_queued_requests
        self._policy = policy or SpeculationPolicy(NO_DRAFTS, is_adaptive=False)
        table = SequenceTable(limits.max_running_requests, limits.context_length, shape=self._policy.shape)
        self._grammars = grammars
        self._num_mask_words = 0 if grammars is None else grammars.num_words
        self._running = RunningSequences(
            cache, table, SamplingTable(table.num_rows, num_mask_words=self._num_mask_words)
        )
        self._waiting = WaitingQueue()
        self._estimate = OutputEstimate()
        self._fair_clock = FairClock()
        self._planner = StepPlanner(
            cache,
            self._running,
            self._waiting,
            self._estimate,
            self._fair_clock,
            prefill_sizes=prefill_sizes,
            longest_prefix_first=longest_prefix_first,
            policy=self._policy,
        )
        self._requests: dict[int, Request] = {}
        self._deadlines: list[tuple[float, int]] = []
        self._num_submitted = 0
        self._output = StepOutput()
        self.totals = Totals()

    @property
    def has_requests(self) -> bool:
        """Whether any request is open, or deliveries wait for `take_output`."""
        return bool(self._requests) or bool(self._output)

    @property
    def num_running(self) -> int:
        """Sequences that have a row."""
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        """Sequences in the queue, retracted ones included."""
        return len(self._waiting)

    @property
    def backlog(self) -> HeadBacklog:
        """What the draft head is owed."""
        return self._running.backlog

    @property
    def num_retractions(self) -> int:
        """Retractions since the start."""
        return self._planner.num_retractions

    def submit(self, asked: GenerationRequest, *, is_internal: bool = False) -> Request:
        """Queue a request.

        Raises:
            RequestRejected: it can never be served, or its id is in use.
            QueueFull: too many are waiting.
        """
        if asked.request_id in self._requests:
            raise RequestRejected(
                "duplicate_request", f"request {asked.request_id} is open already", parameter="request_id"
            )
        self._limits.verify(asked)
        matchers = make_matchers(asked, self._grammars)
        if len(self._waiting) >= self._max_queued:
            raise QueueFull(f"{len(self._waiting)} requests are waiting; at most {self._max_queued} may")
        self._num_submitted += 1
        expected = len(asked.prompt) + asked.n * self._estimate.remaining_of_one(0, asked.sampling.max_tokens)
        request = build_request(
            asked,
            arrival=self._num_submitted,
            eos_token_ids=self._eos_token_ids,
            is_internal=is_internal,
            start_tag=self._fair_clock.tag(asked.namespace, expected),
            matchers=matchers,
        )
        self._requests[request.id] = request
        if request.deadline is not None:
            heapq.heappush(self._deadlines, (request.deadline, request.id))
        sequence = request.choices[0].sequence
        assert sequence is not None
        self._waiting.add(sequence)
        return request

    def cancel(self, request_id: int, choice: int | None = None, keep_tokens: int | None = None) -> None:
        """End a request or one of its choices; what has ended already, or never was, is left alone.

        Args:
            keep_tokens: so many output tokens count, of each choice that ends here; None keeps all that were delivered.
        """
        request = self._requests.get(request_id)
        if request is None:
            return
        for candidate in request.choices:
            if candidate.finish is None and choice in (None, candidate.index):
                self._end(request, candidate, Finish("cancelled"), keep_tokens=keep_tokens)
        self._close_if_ended(request)

    def expire(self, now: float) -> None:
        """End what has passed its deadline, waiting or running."""
        while self._deadlines and self._deadlines[0][0] <= now:
            request = self._requests.get(heapq.heappop(self._deadlines)[1])
            if request is None or request.deadline is None or request.deadline > now:
                continue
            for choice in request.choices:
                if choice.finish is None:
                    self._end(request, choice, Finish("deadline"))
            self._close_if_ended(request)

    def needs_results(self) -> bool:
        """Whether the step in flight must be collected before `plan`."""
        return self._planner.needs_results()

    def plan(self, *, in_flight: bool) -> tuple[StepBatch, StepRecord] | None:
        """The next step, which the caller launches; None if nobody can compute now.

        Args:
            in_flight: whether a step was launched and is not collected.
        """
        plan = self._planner.plan(in_flight=in_flight)
        return None if plan is None else build_step(plan, self._running.table, self._running.sampling)

    def collect(self, step: StepRecord, result: StepResult) -> None:
        """Take a step's tokens: hand them out, and end the choices that they end."""
        read_prompts(step, result)
        if result.chains is not None:
            is_open = self._running.table.serials[step.rows] == step.serials
            accepted = result.chains.num_tokens[is_open].astype(np.int64) - 1
            num_tried = self._running.table.most_accepted(step.num_drafts[is_open])
            self._policy.acceptance.observe(num_tried, accepted)
        read = read_step(self._running.table, step, result)
        self._output.plain = read.plain
        self.totals.generated_tokens += len(read.plain)
        self.totals.drafts.add(read.drafts)
        logprobs = None if result.logprobs is None else LogprobLists(result.logprobs)
        for chain in read.others:
            sequence: Sequence = self._running.table.owners[step.rows[chain]]
            request, choice = sequence.request, sequence.choices[0]
            for sample in samples_of(step, result, chain):
                self._collect_sample(sequence, sample, result, logprobs)
                if choice.finish is not None:
                    self._close_if_ended(request)
                    break

    def _collect_sample(
        self, sequence: Sequence, sample: int, result: StepResult, logprobs: LogprobLists | None
    ) -> None:
        """Hand out one token that is not plain, or end its choice for want of one."""
        request, choice = sequence.request, sequence.choices[0]
        if not result.is_finite[sample]:
            self._end(request, choice, self._non_finite(choice))
            return
        token = int(result.token_ids[sample])
        if result.chains is not None:
            self._running.table.read_one(sequence.row, token)
        count = request.sampling.logprobs
        scores = [logprobs.at(sample, count)] if logprobs is not None and count >= 0 else None
        self._accept(sequence, token, scores)

    def take_output(self) -> StepOutput:
        """All deliveries since the last call."""
        output, self._output = self._output, StepOutput()
        return output

    def check_integrity(self) -> None:
        """Raise AssertionError unless pages are conserved and all states agree."""
        table = self._running.table
        table.check_integrity()
        self.cache.check_integrity([table.pages_of(sequence.row) for sequence in self._running.sequences()])
        known = {id(sequence) for sequence in [*self._running.sequences(), *self._waiting]}
        computed: set[int] = set()
        for request in self._requests.values():
            for choice in request.choices:
                assert (choice.finish is None) == (choice.sequence is not None)
                if choice.sequence is not None:
                    assert choice in choice.sequence.choices
                    computed.add(id(choice.sequence))
        assert known == computed, "a sequence is lost, or computes for nobody"
        assert all(sequence.row == NOT_RUNNING and sequence.cursor is None for sequence in self._waiting)

    def _accept(self, sequence: Sequence, token: int, scores: list[TokenLogprobs] | None) -> None:
        """One more token of a choice, which its row has already, and which is not plain."""
        request, choice = sequence.request, sequence.choices[0]
        if not request.prompt_delivered:
            self._deliver_prompt(request)
        self._running.mark_ordinary(sequence)
        if choice.seen is not None:
            choice.seen.add(token)
        if choice.matcher is not None and token not in request.ending_ids:
            choice.matcher.accept(token)
            if choice.matcher.fault:
                self._end(request, choice, Finish("error", None, choice.matcher.fault))
                return
        if not request.is_internal:
            self.totals.generated_tokens += 1
        if token in request.ending_ids:
            self._end(request, choice, Finish("stop", token), tokens=[token], scores=scores)
        elif self._running.num_output(sequence) == request.sampling.max_tokens:
            self._end(request, choice, Finish("length"), tokens=[token], scores=scores)
        elif not request.is_internal:
            self._output.tokens.append(TokenDelivery(request.id, choice.index, [token], scores))

    def _end(
        self,
        request: Request,
        choice: Choice,
        finish: Finish,
        *,
        keep_tokens: int | None = None,
        tokens: list[int] | None = None,
        scores: list[TokenLogprobs] | None = None,
    ) -> None:
        """End one choice: its sequence stops, unless it computes the prompt for others too."""
        sequence = choice.sequence
        assert sequence is not None
        if len(sequence.choices) == 1:
            choice.num_delivered = choice.num_output = self._running.num_output(sequence)
            if keep_tokens is not None:
                choice.num_output = min(choice.num_output, max(0, keep_tokens))
            self._drop(sequence, finish, caches_output=request.caches_output or keep_tokens is not None)
        else:
            sequence.choices.remove(choice)
            if sequence.row != NOT_RUNNING:
                self._running.follow_first_choice(sequence)
        choice.finish = finish
        choice.sequence = None
        if request.is_internal:
            return
        if finish.reason not in ("error", "deadline"):
            self._estimate.observe(choice.num_output, request.sampling.max_tokens)
        self._output.tokens.append(TokenDelivery(request.id, choice.index, tokens or [], scores, finish))

    def _drop(self, sequence: Sequence, finish: Finish, *, caches_output: bool) -> None:
        if sequence.row == NOT_RUNNING:
            self._waiting.remove(sequence)
        elif finish.detail == NON_FINITE.detail:
            self._running.stop_tainted(sequence)
        else:
            num_output = sequence.choices[0].num_output if caches_output else 0
            self._running.stop(sequence, num_kept=len(sequence.request.prompt) + num_output)

    def _non_finite(self, choice: Choice) -> Finish:
        """A grammar that gave up left nothing to choose from, which is no fault of the logits."""
        if choice.matcher is None:
            return NON_FINITE
        if not choice.matcher.fault:
            # Behind a draft its mask was tried ahead; it gives up now that it stands there.
            choice.matcher.fill(np.zeros(self._num_mask_words, np.int32))
        return Finish("error", None, choice.matcher.fault) if choice.matcher.fault else NON_FINITE

    def _close_if_ended(self, request: Request) -> None:
        """Forget a request whose choices have all ended, and say what it took."""
        if any(choice.finish is None for choice in request.choices):
            return
        del self._requests[request.id]
        if not request.is_internal:
            self._output.summaries.append(summary_of(request))

    def _deliver_prompt(self, request: Request) -> None:
        request.prompt_delivered = True
        if request.is_internal:
            return
        self._output.prompts.append(prompt_of(request))
        self.totals.prompt_tokens += len(request.prompt)
        self.totals.cached_tokens += request.cached_tokens
