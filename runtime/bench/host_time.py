"""Host time of the engine's loop: what a step costs beside the device, which the device must not wait for.

A runner that computes nothing takes the place of the real one, and the clock of the host is read around each part of a step:
planning and laying out the batch, collecting its tokens, and whatever the caller does to send them off.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from runtime.batch import StepBatch, StepResult
from runtime.engine.loop import Engine
from runtime.request import GenerationRequest, SamplingParams
from runtime.scheduling.delivery import StepOutput
from runtime.settings import EngineSettings
from runtime.step_sizes import MIXED_SIZES

VOCAB_SIZE = 128_256
_EOS = 1


@dataclass(frozen=True, slots=True)
class _NullStep:
    num_samples: int

    def result(self) -> StepResult:
        """Tokens that end nothing."""
        return StepResult(
            token_ids=np.full(self.num_samples, 1000, np.int64),
            is_finite=np.ones(self.num_samples, np.bool_),
            logprobs=None,
            prompt_logprobs=None,
        )


class NullRunner:
    """A `ModelRunner` that takes no time; it notes when `launch` is called."""

    vocab_size = VOCAB_SIZE
    mixed_sizes = MIXED_SIZES

    def __init__(self, num_pages: int) -> None:
        self.num_pages = num_pages
        self.launched_at = 0.0

    def launch(self, batch: StepBatch) -> _NullStep:
        """Do nothing."""
        self.launched_at = time.perf_counter()
        return _NullStep(len(batch.sample_rows))


@dataclass
class HostTimes:
    """Seconds of each measured step."""

    plan: list[float] = field(default_factory=list)
    """From the start of the step to its launch."""
    collect: list[float] = field(default_factory=list)
    """From the launch to the step's end: reading the step before and its deliveries."""
    send: list[float] = field(default_factory=list)
    """From there until the step's output is on its way."""


def measure_host_time(
    num_rows: int, num_steps: int, *, prompt_tokens: int = 128, send: Callable[[StepOutput], None]
) -> HostTimes:
    """Decode `num_rows` sequences for `num_steps` steps, the first ones not measured.

    Args:
        send: does with a step's output what the engine's process does.
    """
    pages = num_rows * (-(-(prompt_tokens + num_steps + 280) // 16) + 1) + 1
    runner = NullRunner(max(pages, 40_000))
    settings = EngineSettings(
        model_path="none",
        max_running_requests=num_rows,
        max_queued_requests=num_rows,
        chunked_prefill_size=8192,
        mixed_prefill_size=8192,
    )
    engine = Engine(runner, settings, [_EOS], 8192, time.monotonic)
    random = np.random.default_rng(0)
    for number in range(num_rows):
        prompt = random.integers(10, VOCAB_SIZE, prompt_tokens).tolist()
        sampling = SamplingParams(max_tokens=num_steps + 256, temperature=0.0, ignore_eos=True)
        engine.submit(GenerationRequest(request_id=number % 4 + 1 << 48 | number, prompt=prompt, sampling=sampling))
    for _ in range(num_rows * prompt_tokens // 8192 + 20):
        engine.step()
    assert engine.stats().num_running == num_rows
    times = HostTimes()
    for _ in range(num_steps):
        began = time.perf_counter()
        output = engine.step()
        ended = time.perf_counter()
        times.plan.append(runner.launched_at - began)
        times.collect.append(ended - runner.launched_at)
        send(output)
        times.send.append(time.perf_counter() - ended)
    return times
