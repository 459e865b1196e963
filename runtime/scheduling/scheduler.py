"""The scheduler: requests in, step batches out; step results in, deliveries out.

It owns all state of requests and runs nothing itself. One thread calls it, in this order for each step:

    expire → needs_results? → plan → (launch) → publish → collect, of this step or the one before → take_output

Whatever is wrong with one request ends that request. What is wrong with the scheduler raises, and ends the engine.
"""

from collections.abc import Iterable

import numpy as np

from runtime.batch import StepBatch, StepResult
from runtime.draft_shape import NO_DRAFTS
from runtime.errors import QueueFull, RequestRejected
from runtime.kv.cache import KVCache
from runtime.request import GenerationRequest
from runtime.scheduling.admission import Admission
from runtime.scheduling.backlog import HeadBacklog
from runtime.scheduling.batching import StepRecord, build_step
from runtime.scheduling.delivery import LogprobLists, StepOutput, Totals
from runtime.scheduling.estimate import OutputEstimate
from runtime.scheduling.fairness import FairClock
from runtime.scheduling.limits import RequestLimits
from runtime.scheduling.open_requests import OpenRequests
from runtime.scheduling.planning import StepPlanner
from runtime.scheduling.reading import read_prompts, read_step, samples_of
from runtime.scheduling.requests import (
    NOT_RUNNING,
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
from runtime.step_sizes import MixedSizes


class Scheduler:
    """All requests of one engine."""

    def __init__(
        self,
        cache: KVCache,
        limits: RequestLimits,
        eos_token_ids: Iterable[int],
        *,
        prefill_sizes: tuple[int, int],
        mixed_sizes: MixedSizes,
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
            mixed_sizes: what steps with both are filled up to.
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
        admission = Admission(
            cache,
            self._running,
            self._waiting,
            self._estimate,
            self._fair_clock,
            longest_prefix_first=longest_prefix_first,
        )
        self._planner = StepPlanner(
            cache,
            self._running,
            self._waiting,
            self._estimate,
            admission,
            prefill_sizes=prefill_sizes,
            mixed_sizes=mixed_sizes,
            policy=self._policy,
        )
        self._open = OpenRequests(self._running, self._waiting, self._estimate, num_mask_words=self._num_mask_words)
        self._num_submitted = 0

    @property
    def has_requests(self) -> bool:
        """Whether any request is open, or deliveries wait for `take_output`."""
        return bool(self._open)

    @property
    def num_running(self) -> int:
        """Sequences that have a row."""
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        """Sequences in the queue, retracted ones included."""
        return len(self._waiting)

    @property
    def totals(self) -> Totals:
        """Counts since the start."""
        return self._open.totals

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
        if asked.request_id in self._open:
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
        self._open.add(request)
        sequence = request.choices[0].sequence
        assert sequence is not None
        self._waiting.add(sequence)
        return request

    def cancel(self, request_id: int, choice: int | None = None, keep_tokens: int | None = None) -> None:
        """See `OpenRequests.cancel`."""
        self._open.cancel(request_id, choice, keep_tokens)

    def expire(self, now: float) -> None:
        """See `OpenRequests.expire`."""
        self._open.expire(now)

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

    def publish(self) -> None:
        """The step is launched: what it fills can be shared by those that come."""
        self._running.publish()

    def collect(self, step: StepRecord, result: StepResult) -> None:
        """Take a step's tokens: hand them out, and end the choices that they end."""
        read_prompts(step, result)
        if result.chains is not None:
            is_open = self._running.table.serials[step.rows] == step.serials
            accepted = result.chains.num_tokens[is_open].astype(np.int64) - 1
            num_tried = self._running.table.most_accepted(step.num_drafts[is_open])
            self._policy.acceptance.observe(num_tried, accepted)
        read = read_step(self._running.table, step, result)
        self._open.deliver_plain(read.plain, read.drafts)
        logprobs = None if result.logprobs is None else LogprobLists(result.logprobs)
        for chain in read.others:
            sequence: Sequence = self._running.table.owners[step.rows[chain]]
            request, choice = sequence.request, sequence.choices[0]
            for sample in samples_of(step, result, chain):
                self._collect_sample(sequence, sample, result, logprobs)
                if choice.finish is not None:
                    self._open.close_if_ended(request)
                if sequence.row == NOT_RUNNING:
                    break

    def _collect_sample(
        self, sequence: Sequence, sample: int, result: StepResult, logprobs: LogprobLists | None
    ) -> None:
        """Hand out one token that is not plain, or end its choice for want of one."""
        if not result.is_finite[sample]:
            self._open.end_without_token(sequence)
            return
        token = int(result.token_ids[sample])
        if result.chains is not None:
            self._running.table.read_one(sequence.row, token)
        count = sequence.request.sampling.logprobs
        scores = [logprobs.at(sample, count)] if logprobs is not None and count >= 0 else None
        self._open.accept(sequence, token, scores)

    def take_output(self) -> StepOutput:
        """See `OpenRequests.take_output`."""
        return self._open.take_output()

    def check_integrity(self) -> None:
        """Raise AssertionError unless pages are conserved and all states agree."""
        table = self._running.table
        table.check_integrity()
        self.cache.check_integrity([table.pages_of(sequence.row) for sequence in self._running.sequences()])
        known = {id(sequence) for sequence in [*self._running.sequences(), *self._waiting]}
        assert known == self._open.computed_sequences(), "a sequence is lost, or computes for nobody"
        assert all(sequence.row == NOT_RUNNING and sequence.cursor is None for sequence in self._waiting)
