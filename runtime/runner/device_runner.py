"""Steps on a GPU: one copy in, one pass by graphs or by kernels, one copy out, and the host waits for none of it.

The life of a step: (1) pages are copied, for forks; (2) its inputs are packed into pinned memory and sent, and (3) it goes
through the model (`passes` does both); this ends with the chosen tokens in a buffer that the next step reads on the device;
(4) rows that ask for masks, penalties or logprobs are done over again from the same logits; (5) tokens and flags start on
their way to the host. `result` waits for (5) and nothing later.

Up to `NUM_IN_FLIGHT` steps may be launched and not read; their pinned memory is apart. Everything runs on one stream.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from runtime.attention.device import DeviceAttention
from runtime.attention.pages import copy_pages
from runtime.batch import StepBatch, StepResult
from runtime.models.fused import FusedDecoder
from runtime.models.operations import Operations
from runtime.runner.cache_choice import CacheFormat
from runtime.runner.graphs import Capture
from runtime.runner.passes import Passes
from runtime.runner.readback import Readback, ReadbackPool
from runtime.runner.rows import WholeRows
from runtime.runner.scoring import score_prompt
from runtime.runner.step_buffers import RunnerLimits, StepBuffers, sample_stride
from runtime.runner.upload import UploadPool
from runtime.runner.verification import verify_ids
from runtime.sampling.logprobs import logprobs_of
from runtime.sampling.sampler import Sampler
from runtime.weights.config import ModelConfig

NUM_IN_FLIGHT = 3


@dataclass(frozen=True, slots=True)
class DeviceStep:
    """A launched step."""

    readback: Readback
    captured_size: int

    def result(self) -> StepResult:
        """See `LaunchedStep.result`."""
        host = self.readback.wait()
        return StepResult(
            token_ids=host.token_ids,
            is_finite=host.is_finite,
            logprobs=host.logprobs,
            prompt_logprobs=host.prompt_logprobs,
            embeddings=host.embeddings,
            captured_size=self.captured_size,
            busy_s=host.busy_s,
        )


class DeviceRunner:
    """A `ModelRunner` on one GPU. Built by `runtime.runner.building`; one thread calls it."""

    def __init__(
        self,
        config: ModelConfig,
        model: FusedDecoder,
        operations: Operations,
        attention: DeviceAttention,
        pages: Tensor,
        limits: RunnerLimits,
        *,
        weights_digest: str,
        cache: CacheFormat | None = None,
    ) -> None:
        self.config = config
        self.weights_digest = weights_digest
        self.pages = pages
        self.cache = cache if cache is not None else CacheFormat(pages.dtype)
        self._model = model
        self._device = pages.device
        uploads = UploadPool(limits.num_words, NUM_IN_FLIGHT, self._device)
        self._readbacks = ReadbackPool(limits.num_sample_words, NUM_IN_FLIGHT, self._device)
        self._buffers = StepBuffers(config, limits, dtype=model.dtype, device=self._device)
        self._passes = Passes(model, operations, attention, pages, self._buffers, uploads, limits)
        self._sampler = Sampler(config.vocab_size, self._device)
        self._num_previous = 0

    @property
    def vocab_size(self) -> int:
        return self.config.vocab_size

    @property
    def num_pages(self) -> int:
        """Pages in the pool, the padding page included."""
        return self.pages.shape[1]

    @torch.inference_mode()
    def capture_graphs(self, *, largest_only: bool = False, advance: Callable[[], None] = lambda: None) -> None:
        """Capture what steps replay, see `Passes.capture`. Before the first step only.

        Args:
            largest_only: as much as all need memory for.
            advance: called after each size.
        """
        if largest_only:
            self._passes.keep_largest()
        self._passes.capture(Capture(self._device), advance)

    @torch.inference_mode()
    def launch(self, batch: StepBatch) -> DeviceStep:
        """See `ModelRunner.launch`."""
        verify_ids(batch, self.config.vocab_size, self._num_previous)
        readback = self._readbacks.begin()
        if batch.page_copies.size:  # (1)
            copy_pages(
                self.pages, torch.from_numpy(batch.page_copies.astype(np.int64)).to(self._device, non_blocking=True)
            )
        done = self._passes.run(batch)  # (2), (3)
        num_samples = len(batch.sample_rows)
        logits = done.logits[:num_samples]
        self._resample(batch, logits)  # (4)
        self._add_prompt_results(readback, batch, done.hidden)
        self._add_sample_logprobs(readback, batch, logits)
        stride = sample_stride(done.num_samples)
        readback.finish(self._buffers.samples[: 2 * stride], num_samples, stride)  # (5)
        self._num_previous = num_samples
        return DeviceStep(readback, done.num_captured)

    def _resample(self, batch: StepBatch, logits: Tensor) -> None:
        """Choose again by the full sampler, if some row needs more than temperature and noise."""
        if _is_simple(batch):
            return
        sampled = self._sampler.sample(logits.float(), batch.sampling)
        self._buffers.samples[: len(logits)] = sampled.token_ids

    def _add_prompt_results(self, readback: Readback, batch: StepBatch, hidden: Tensor) -> None:
        """What is asked of prompts beside tokens: logprobs, embeddings."""
        if batch.prompt_logprob_rows.size:
            readback.add_prompt_logprobs(
                score_prompt(self._model, WholeRows(), hidden, batch.prompt_logprob_rows.astype(np.int64), batch)
            )
        if batch.embedding_rows.size:
            rows = torch.from_numpy(batch.embedding_rows.astype(np.int64)).to(self._device, non_blocking=True)
            readback.add_embeddings(self._model.final(hidden.index_select(0, rows)))

    def _add_sample_logprobs(self, readback: Readback, batch: StepBatch, logits: Tensor) -> None:
        counts = batch.sampling.num_logprobs
        asking = np.flatnonzero(counts >= 0)
        if not asking.size:
            return
        rows = torch.from_numpy(asking).to(self._device, non_blocking=True)
        chosen = self._buffers.samples[: len(counts)].long()
        given = logprobs_of(logits[rows].float(), chosen[rows], int(counts.max()))
        readback.add_logprobs(given.spread(rows, len(counts)))


def _is_simple(batch: StepBatch) -> bool:
    """Whether temperature and noise are all that any row's choice needs."""
    sampling = batch.sampling
    if sampling.bias_rows.size or sampling.seen_rows.size or sampling.banned_rows.size or sampling.allowed_rows.size:
        return False
    drawn = sampling.temperature > 0
    masked = (sampling.top_p < 1) | (sampling.top_k > 0) | (sampling.min_p > 0)
    return not bool((drawn & masked).any())
