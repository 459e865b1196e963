"""The engine's loop: plan a step, launch it, and read the one before while it runs.

With `overlap_schedule` the device never waits for the host: step N+1 is launched before the tokens of step N are read,
and takes them from the device (`StepBatch.previous_rows`). Therefore

    a sequence that ended in step N is still in step N+1; its token there is dropped when N+1 is read;
    its pages are free at once, as steps run in the order of their launch: whoever gets them writes later.

Step N is read first in three cases (`Scheduler.needs_results`): a row with a penalty or a grammar, which follow tokens on the
host; a row below its `min_tokens` whose drafts are verified; and pages so short that somebody must be retracted. The texts are
the same in all cases, and without overlap.

A speculating engine overlaps as well: where a row stands in step N+1 depends on how many drafts step N accepts, so the device
finds its place, and the host gives it pages for the furthest one (`SpeculationBatch`).

An exception of the runner, or of the scheduler itself, is a fault of the engine: it leaves `step`, and the process ends.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from runtime.batch import LaunchedStep, ModelRunner
from runtime.draft_shape import NO_DRAFTS
from runtime.engine.stats import EngineStats, StepCounts, gather_stats
from runtime.kv.cache import KVCache
from runtime.request import GenerationRequest, SamplingParams
from runtime.scheduling.batching import StepRecord
from runtime.scheduling.delivery import StepOutput
from runtime.scheduling.limits import RequestLimits
from runtime.scheduling.requests import GrammarSource
from runtime.scheduling.scheduler import Scheduler
from runtime.settings import EngineSettings
from runtime.speculative.adapting import SpeculationPolicy
from runtime.speculative.options import speculation_options

PROBE_ID = -1
PROBE_NAMESPACE = b"the engine's own probe, which no tenant shares"
"""Longer than the namespaces that messages can carry."""


@dataclass(frozen=True, slots=True)
class InFlight:
    """A step that was launched and is not read."""

    record: StepRecord
    launched: LaunchedStep
    launch_s: float
    """That the launch took, which on a CPU is the whole step."""


class Engine:
    """Requests in, tokens out. Not thread-safe: one thread calls everything."""

    def __init__(
        self,
        runner: ModelRunner,
        settings: EngineSettings,
        eos_token_ids: Iterable[int],
        context_length: int,
        clock: Callable[[], float],
        grammars: GrammarSource | None = None,
    ) -> None:
        """
        Args:
            runner: owner of weights and pages; nobody else launches steps on it.
            settings: of the engine; paths and device are the runner's business and not read here.
            eos_token_ids: the model's own ends of an answer.
            context_length: most tokens of prompt and output together.
            clock: monotonic seconds; deadlines are on it.
            grammars: of constrained requests; None: such are refused.
        """
        self._runner = runner
        self._clock = clock
        self._overlap = settings.overlap_schedule
        speculation = speculation_options(settings)
        shape = NO_DRAFTS if speculation is None else speculation.shape
        self._policy = SpeculationPolicy(shape, is_adaptive=settings.speculative_adaptive)
        cache = KVCache(runner.num_pages, share_prefixes=not settings.disable_radix_cache)
        limits = RequestLimits(
            vocab_size=runner.vocab_size,
            context_length=context_length,
            num_usable_pages=cache.num_usable,
            max_running_requests=settings.max_running_requests,
        )
        self._scheduler = Scheduler(
            cache,
            limits,
            eos_token_ids,
            prefill_sizes=settings.prefill_sizes,
            mixed_sizes=runner.mixed_sizes,
            max_queued_requests=settings.max_queued_requests,
            longest_prefix_first=settings.schedule_policy == "lpm",
            grammars=grammars,
            policy=self._policy,
        )
        self._in_flight: InFlight | None = None
        self._is_finite = True
        """Whether the last step that chose tokens had one to choose from finite logits."""
        self._steps = StepCounts(last_token_at=clock())

    @property
    def has_work(self) -> bool:
        """Whether `step` has something to do or to tell."""
        return self._in_flight is not None or self._scheduler.has_requests

    def submit(self, request: GenerationRequest) -> None:
        """Queue a request; its tokens come out of `step`.

        Raises:
            RequestRejected: it can never be served, or its id is in use. Nothing has changed.
            QueueFull: too many requests wait. Nothing has changed.
        """
        self._scheduler.submit(request)

    def cancel(self, request_id: int, choice: int | None = None, keep_tokens: int | None = None) -> None:
        """End a request, or one of its choices, at once; the next `step` delivers the ends and the summary.

        Unknown and ended ones are left alone: a cancel may cross the end on its way.

        Args:
            keep_tokens: how many output tokens count; what is beyond is neither summed up nor cached. None: all
                that were delivered.
        """
        self._scheduler.cancel(request_id, choice, keep_tokens)

    def step(self) -> StepOutput:
        """Launch one step and read one: the same without overlap, the one before with it."""
        self._scheduler.expire(self._clock())
        previous, self._in_flight = self._in_flight, None
        if previous is not None and self._scheduler.needs_results():
            self._collect(previous)
            previous = None
        launched = self._launch(after=previous)
        if previous is not None:
            self._collect(previous)
        if launched is not None and not self._overlap:
            self._collect(launched)
            launched = None
        self._in_flight = launched
        return self._scheduler.take_output()

    def probe(self) -> bool:
        """Bring one real token out of an idle model, which moves `EngineStats.last_token_at`; leaves no pages behind.

        Does nothing while there is work, as that proves the same.
        Returns: whether a token came; not where the model's logits are not finite.
        """
        if self.has_work:
            return True
        sampling = SamplingParams(temperature=0.0, max_tokens=1)
        probe = GenerationRequest(request_id=PROBE_ID, prompt=(0,), sampling=sampling, namespace=PROBE_NAMESPACE)
        self._scheduler.submit(probe, is_internal=True)
        self._run_until_idle()
        return self._is_finite

    def pin_drafts(self, num_steps: int) -> None:
        """Make so many drafts at a time from now on, 0: none, whatever was measured; texts stay the same. For measurements."""
        self._policy.pin(num_steps)

    def flush_cache(self) -> int:
        """Forget all cached prefixes; returns how many pages that were. What runs goes on."""
        return self._scheduler.cache.flush()

    def stats(self) -> EngineStats:
        """How it stands; cheap enough for every step."""
        return gather_stats(self._scheduler, self._steps)

    def check_integrity(self) -> None:
        """Raise AssertionError unless pages are conserved and all states agree. Between steps only."""
        self._scheduler.check_integrity()

    def _run_until_idle(self) -> None:
        while self.has_work:
            self.step()

    def _launch(self, after: InFlight | None) -> InFlight | None:
        planned = self._scheduler.plan(in_flight=after is not None)
        if planned is None:
            return None
        batch, record = planned
        started = self._clock()
        launched = self._runner.launch(batch)
        launch_s = self._clock() - started
        self._scheduler.publish()
        return InFlight(record, launched, launch_s)

    def _collect(self, step: InFlight) -> None:
        result = step.launched.result()
        self._steps.add(step.record, result, self._clock())
        if result.is_finite.size:
            self._is_finite = bool(result.is_finite.any())
        observe = self._policy.observe_catching_up if step.record.is_catching_up else self._policy.observe_step
        observe(step.record.num_decodes, step.record.num_steps, result.busy_s or step.launch_s)
        self._scheduler.collect(step.record, result)
