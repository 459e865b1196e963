"""Steps on a GPU: one copy in, one pass by graphs or by kernels, one copy out, and the host waits for none of it.

The life of a step: (1) pages are copied, for forks; (2) its inputs are packed into pinned memory and sent, and (3) it goes
through the model (`passes` does both); this ends with the chosen tokens in a buffer that the next step reads on the device;
(4) rows that ask for masks, penalties or logprobs are done over again from the same logits; (5) tokens and flags start on
their way to the host. `result` waits for (5) and nothing later.

With a draft head (`device_drafting`) decoding sequences have several rows, and (4) is followed by the drafts of the next step.

Up to `NUM_IN_FLIGHT` steps may be launched and not read; their pinned memory is apart. Everything runs on one stream.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from runtime.attention.device import DeviceAttention
from runtime.attention.pages import copy_pages
from runtime.batch import ChainResult, Int32, Int64, StepBatch, StepResult, TreeResult
from runtime.models.fused import FusedDecoder
from runtime.models.operations import Operations
from runtime.runner.cache_choice import CacheFormat
from runtime.runner.device_drafting import DeviceSpeculation
from runtime.runner.graphs import Capture
from runtime.runner.passes import Pass, Passes
from runtime.runner.readback import Readback, ReadbackPool
from runtime.runner.rows import WholeRows
from runtime.runner.scoring import score_prompt
from runtime.runner.speculation_parts import SpeculationParts
from runtime.runner.step_buffers import RunnerLimits, StepBuffers, sample_stride
from runtime.runner.upload import UploadPool
from runtime.runner.verification import verify_ids
from runtime.sampling.logprobs import logprobs_of
from runtime.sampling.sampler import Sampler
from runtime.speculative.config import NUM_CAPTURED
from runtime.step_sizes import E4M3_MIXED_SIZES, MIXED_SIZES, MixedSizes
from runtime.weights.config import ModelConfig

NUM_IN_FLIGHT = 3


@dataclass(frozen=True, slots=True)
class DeviceStep:
    """A launched step."""

    readback: Readback
    captured_size: int
    samples: Int64 | None = None
    """Where the batch's samples are among those of the step, if it had others."""
    num_tree_drafts: int | None = None
    """Of each chain, made by the step, if drafts are trees."""

    def result(self) -> StepResult:
        """See `LaunchedStep.result`."""
        host = self.readback.wait()
        if self.samples is not None:
            host = host.select(self.samples)
        return StepResult(
            token_ids=host.token_ids,
            is_finite=host.is_finite,
            logprobs=host.logprobs,
            prompt_logprobs=host.prompt_logprobs,
            embeddings=host.embeddings,
            captured_size=self.captured_size,
            busy_s=host.busy_s,
            draft_prefill_s=host.draft_prefill_s,
            chains=None if host.chains is None else _chain_result(host.chains, self.num_tree_drafts),
        )


class DeviceRunner:
    """A `ModelRunner` on one GPU. Built by `device_building`; one thread calls it."""

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
        speculation: SpeculationParts | None = None,
    ) -> None:
        self.config = config
        self.weights_digest = weights_digest
        self.pages = pages
        self.cache = cache if cache is not None else CacheFormat(pages.dtype)
        self._model = model
        self._device = pages.device
        uploads = UploadPool(limits.num_words, NUM_IN_FLIGHT, self._device)
        self._readbacks = ReadbackPool(limits.num_sample_words, NUM_IN_FLIGHT, self._device)
        num_captured = 0 if speculation is None else NUM_CAPTURED
        self._buffers = StepBuffers(config, limits, dtype=model.dtype, device=self._device, num_captured=num_captured)
        self._passes = Passes(model, operations, attention, pages, self._buffers, uploads, limits)
        self._speculation = None
        if speculation is not None:
            self._speculation = DeviceSpeculation(
                speculation, model, operations, pages, self._buffers, uploads, limits, NUM_IN_FLIGHT
            )
        self._sampler = Sampler(config.vocab_size, self._device)
        self._num_previous = 0

    @property
    def vocab_size(self) -> int:
        """Token ids are below this."""
        return self.config.vocab_size

    @property
    def num_pages(self) -> int:
        """Pages in the pool, the padding page included."""
        return self.pages.shape[1]

    @property
    def mixed_sizes(self) -> MixedSizes:
        """See `ModelRunner.mixed_sizes`."""
        return MIXED_SIZES if self.config.quantization is None else E4M3_MIXED_SIZES

    @torch.inference_mode()
    def capture_graphs(self, *, largest_only: bool = False, advance: Callable[[], None] = lambda: None) -> None:
        """Capture what steps replay, see `Passes.capture`. Before the first step only.

        Args:
            largest_only: as much as all need memory for.
            advance: called after each size.
        """
        passes = self._passes if self._speculation is None else self._speculation
        if largest_only:
            passes.keep_largest()
        passes.capture(Capture(self._device), advance)

    @torch.inference_mode()
    def launch(self, batch: StepBatch) -> DeviceStep:
        """See `ModelRunner.launch`."""
        verify_ids(batch, self.config.vocab_size, self._num_previous)
        readback = self._readbacks.begin()
        if batch.page_copies.size:  # (1)
            self._copy_pages(torch.from_numpy(batch.page_copies.astype(np.int64)).to(self._device, non_blocking=True))
        if self._speculation is not None:
            return self._launch_speculating(self._speculation, batch, readback)
        done = self._passes.run(batch)  # (2), (3)
        self._finish(readback, batch, done, None)
        self._num_previous = len(batch.sample_rows)
        return DeviceStep(readback, done.num_captured)

    def _launch_speculating(self, speculation: DeviceSpeculation, batch: StepBatch, readback: Readback) -> DeviceStep:
        step, size = speculation.make_uniform(batch)
        speculation.drafting.catch_up(step, readback.draft_prefill)
        done = speculation.verify(step, size)  # (2), (3)
        positions = None
        if (step.speculation.continued >= 0).any():
            positions = speculation.positions_of_samples(step)

        def draft() -> None:
            speculation.draft(step, size, readback.draft_prefill)
            readback.add_chains(speculation.drafting.result_of(step))

        self._finish(readback, step.batch, done, positions, draft)
        tree = step.speculation.tree
        return DeviceStep(readback, done.num_captured, step.samples, None if tree is None else tree.num_drafts)

    def _finish(
        self,
        readback: Readback,
        batch: StepBatch,
        done: Pass,
        positions: Tensor | None,
        draft: Callable[[], None] = lambda: None,
    ) -> None:
        """What comes after the pass; `draft` once the tokens are final."""
        num_samples = len(batch.sample_rows)
        logits = done.logits[:num_samples]
        self._resample(batch, logits, positions)  # (4)
        draft()
        self._add_prompt_results(readback, batch, done.hidden)
        self._add_sample_logprobs(readback, batch, logits)
        stride = sample_stride(done.num_samples)
        readback.finish(self._buffers.samples[: 2 * stride], num_samples, stride)  # (5)

    def _copy_pages(self, copies: Tensor) -> None:
        copy_pages(self.pages, copies)
        if self._speculation is not None:
            self._speculation.drafting.copy_pages(copies)

    def _resample(self, batch: StepBatch, logits: Tensor, positions: Tensor | None) -> None:
        """Choose again by the full sampler for rows that need more than temperature and noise.

        The others keep what kernels gave them, which differ from it in rounding: it does not depend on who is beside them.
        """
        demanding = batch.sampling.demanding_rows()
        if not demanding.size:
            return
        rows = torch.from_numpy(demanding).to(self._device, non_blocking=True)
        given = None if positions is None else positions[rows]
        sampled = self._sampler.sample(logits[rows].float(), batch.sampling.select(demanding), given)
        self._buffers.samples[rows] = sampled.token_ids.to(self._buffers.samples.dtype)

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


def _chain_result(words: Int32, num_tree_drafts: int | None) -> ChainResult:
    """See `HeadDrafting.result_of`."""
    if num_tree_drafts is None:
        return ChainResult(words[:, 0], words[:, 1:].astype(np.int64))
    drafts, parents = words[:, 1 : 1 + num_tree_drafts], words[:, 1 + num_tree_drafts : 1 + 2 * num_tree_drafts]
    tree = TreeResult(words[:, 1 + 2 * num_tree_drafts :], parents.astype(np.int64))
    return ChainResult(words[:, 0], drafts.astype(np.int64), tree)
