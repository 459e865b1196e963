"""Results on their way from the device to the host.

Copies are enqueued when a step is launched; `wait` returns when those of this step have run, whatever was launched after.
The device's time for the step is measured by two events around it.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from runtime.batch import Bool, Float32, Int32, Int64, LogprobRows
from runtime.runner.stopwatch import Stopwatch
from runtime.sampling.logprobs import DeviceLogprobs


@dataclass(frozen=True, slots=True)
class HostResult:
    """What a step gave; fields as in `StepResult`."""

    token_ids: Int64
    is_finite: Bool
    logprobs: LogprobRows | None
    prompt_logprobs: LogprobRows | None
    embeddings: Float32 | None
    busy_s: float
    draft_prefill_s: float = 0.0
    chains: Int32 | None = None
    """A row for each chain, see `HeadDrafting.result_of`."""

    def select(self, samples: Int64) -> "HostResult":
        """The result of some of the samples, in their order."""
        return replace(
            self,
            token_ids=self.token_ids[samples],
            is_finite=self.is_finite[samples],
            logprobs=None if self.logprobs is None else self.logprobs.select(samples),
        )


class Readback:
    """The results of one step at a time."""

    def __init__(self, num_words: int, device: torch.device) -> None:
        on_gpu = device.type == "cuda"
        self._host = torch.zeros(num_words, dtype=torch.int32, pin_memory=on_gpu)
        self._started: torch.cuda.Event | None = torch.cuda.Event(enable_timing=True) if on_gpu else None
        self._ended: torch.cuda.Event | None = torch.cuda.Event(enable_timing=True) if on_gpu else None
        self._logprobs: DeviceLogprobs | None = None
        self._prompt_logprobs: DeviceLogprobs | None = None
        self._embeddings: Tensor | None = None
        self._chains: Tensor | None = None
        self._num_samples = self._stride = 0
        self._device = device
        self.draft_prefill = Stopwatch(device)
        """Of the head's entries, see `StepResult.draft_prefill_s`."""

    def begin(self) -> None:
        """The step starts here."""
        self._logprobs = self._prompt_logprobs = None
        self._embeddings = self._chains = None
        self.draft_prefill = Stopwatch(self._device)
        if self._started is not None:
            self._started.record()

    def add_logprobs(self, given: DeviceLogprobs) -> None:
        """Logprobs of the step's samples."""
        self._logprobs = given.start_copy()

    def add_prompt_logprobs(self, given: DeviceLogprobs) -> None:
        """Logprobs of prompt tokens."""
        self._prompt_logprobs = given.start_copy()

    def add_embeddings(self, given: Tensor) -> None:
        """Last hidden states of prompts, float32."""
        self._embeddings = _start_copy(given)

    def add_chains(self, given: Tensor) -> None:
        """What the step gave each chain, see `HostResult.chains`."""
        self._chains = _start_copy(given)

    def finish(self, samples: Tensor, num_samples: int, stride: int) -> None:
        """Everything of the step is enqueued.

        Args:
            samples: [2 * stride] int32: ids, then flags, of which the first `num_samples` count.
        """
        self._num_samples, self._stride = num_samples, stride
        self._host[: 2 * stride].copy_(samples, non_blocking=True)
        if self._ended is not None:
            self._ended.record()

    def wait(self) -> HostResult:
        """Wait for the copies. The arrays are the caller's."""
        busy_s = 0.0
        if self._started is not None and self._ended is not None:
            self._ended.synchronize()
            busy_s = self._started.elapsed_time(self._ended) / 1000
        words = self._host.numpy()
        return HostResult(
            token_ids=words[: self._num_samples].astype(np.int64),
            is_finite=words[self._stride : self._stride + self._num_samples] != 0,
            logprobs=self._logprobs.to_host() if self._logprobs is not None else None,
            prompt_logprobs=self._prompt_logprobs.to_host() if self._prompt_logprobs is not None else None,
            embeddings=self._embeddings.numpy() if self._embeddings is not None else None,
            busy_s=busy_s,
            draft_prefill_s=self.draft_prefill.seconds(),
            chains=self._chains.numpy() if self._chains is not None else None,
        )


def _start_copy(given: Tensor) -> Tensor:
    target = torch.empty(given.shape, dtype=given.dtype, pin_memory=given.device.type == "cuda")
    return target.copy_(given, non_blocking=True)


class ReadbackPool:
    """As many as steps may be in flight, in turn; a step MUST have been read before its place comes round again."""

    def __init__(self, num_words: int, count: int, device: torch.device) -> None:
        self._places = [Readback(num_words, device) for _ in range(count)]
        self._next = 0

    def begin(self) -> Readback:
        """The place of the step that starts now."""
        place = self._places[self._next]
        self._next = (self._next + 1) % len(self._places)
        place.begin()
        return place
