"""What speculation is worth on given prompts: answers through the engine at one batch size, with one setting.

So many answers are computed at a time; when one ends the next prompt takes its place. Counted are the steps that only
decode while all places are taken, so that neither prompts nor the end of the list are in the figures. An overlapped loop
launches the next step while it waits for one: there only those count whose next one decodes alone too, as a step with prompts
takes the host longer to launch, and the first of its size may compile kernels. Every setting answers the same prompts, and as
drafts change no text, all of them give the same tokens.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from runtime.engine.loop import Engine
from runtime.engine.stats import EngineStats
from runtime.request import GenerationRequest, SamplingParams


@dataclass(frozen=True, slots=True)
class AnswerPlan:
    """What is asked at one batch size."""

    prompts: Sequence[Sequence[int]]
    """Asked in this order, and again from the first where there are too few."""
    num_answers: int
    batch_size: int
    """Answers that are computed at a time."""
    max_tokens: int
    temperature: float = 0.0

    def request(self, number: int) -> GenerationRequest:
        """The one of that number, which is also its id and its seed."""
        sampling = SamplingParams(temperature=self.temperature, max_tokens=self.max_tokens, seed=number)
        prompt = tuple(self.prompts[number % len(self.prompts)])
        return GenerationRequest(request_id=number, prompt=prompt, sampling=sampling)


@dataclass(frozen=True, slots=True)
class DecodeSpeed:
    """Sums over the steps that count."""

    num_rounds: int
    """Steps."""
    num_tokens: int
    num_passes: int
    """Passes over an answer's drafts."""
    num_accepted: int
    seconds: float

    @property
    def tokens_per_s(self) -> float:
        """Of all answers together; 0 where no step counts."""
        return self.num_tokens / self.seconds if self.seconds else 0.0

    @property
    def round_s(self) -> float:
        """Of one step: verification of the drafts, and the next ones; 0 where no step counts."""
        return self.seconds / self.num_rounds if self.num_rounds else 0.0

    @property
    def acceptance_length(self) -> float:
        """Tokens that a pass over drafts gives, the model's own included; 1 without drafts."""
        return 1.0 + self.num_accepted / self.num_passes if self.num_passes else 1.0


@dataclass(frozen=True, slots=True)
class _Step:
    """A step that was read between two looks at an engine, and the time between them."""

    before: EngineStats
    after: EngineStats
    seconds: float


class _Sums:
    """Adds up the steps that count."""

    def __init__(self, batch_size: int, *, overlaps: bool) -> None:
        self._batch_size = batch_size
        self._overlaps = overlaps
        self._held: _Step | None = None
        """Counts if the step that was launched meanwhile, which is the next to be read, decodes alone."""
        self.num_rounds = self.num_tokens = self.num_passes = self.num_accepted = 0
        self.seconds = 0.0

    def add(self, before: EngineStats, after: EngineStats, seconds: float) -> None:
        held, self._held = self._held, None
        if after.num_steps == before.num_steps or after.num_decodes != self._batch_size:
            return
        step = _Step(before, after, seconds)
        if not self._overlaps:
            self._count(step)
            return
        if held is not None:
            self._count(held)
        self._held = step

    def _count(self, step: _Step) -> None:
        before, after = step.before, step.after
        self.num_rounds += 1
        self.num_tokens += after.generated_tokens - before.generated_tokens
        self.num_passes += after.num_verified - before.num_verified
        self.num_accepted += after.num_accepted - before.num_accepted
        self.seconds += step.seconds


def measure_decoding(
    engine: Engine,
    plan: AnswerPlan,
    *,
    overlaps: bool,
    clock: Callable[[], float] = time.perf_counter,
    report: Callable[[int], None] = lambda done: None,
) -> DecodeSpeed:
    """Let an idle engine answer.

    Args:
        engine: takes as many answers at a time as the plan has.
        overlaps: whether it launches a step before it reads the one before (`overlap_schedule`).
        report: called with the number of answers that have ended.
    Raises: RequestRejected for a prompt that the engine cannot serve.
    """
    sums = _Sums(plan.batch_size, overlaps=overlaps)
    num_asked = num_ended = 0
    before, at = engine.stats(), clock()
    while num_ended < plan.num_answers:
        while num_asked < min(plan.num_answers, num_ended + plan.batch_size):
            engine.submit(plan.request(num_asked))
            num_asked += 1
        output = engine.step()
        now, after = clock(), engine.stats()
        sums.add(before, after, now - at)
        before, at = after, now
        if output.summaries:
            num_ended += len(output.summaries)
            report(num_ended)
    while engine.has_work:
        engine.step()
    return DecodeSpeed(sums.num_rounds, sums.num_tokens, sums.num_passes, sums.num_accepted, sums.seconds)
