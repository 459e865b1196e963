"""Which kernels speculation will launch, found as `kernel_needs` finds the others: steps run on the `meta` device, and are
written down.

Beside all that plain decoding needs: verification of every number of sequences at every level, by the target; the head's
entries for any number of rows; and drafts for every number of chains.
"""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from runtime.attention.device import DeviceAttention, DeviceTables
from runtime.kernels.launching import Launcher
from runtime.models.fused import FusedDecoder
from runtime.models.operations import DraftTokens, Operations, TokenPlaces
from runtime.runner.device_drafting import DeviceSpeculation
from runtime.runner.speculation_building import HeadOnDevice, build_speculation
from runtime.runner.step_buffers import RunnerLimits, StepBuffers
from runtime.runner.step_inputs import StepLayout, StepShape, StepViews
from runtime.runner.upload import UploadPool
from runtime.settings import EngineSettings
from runtime.speculative.config import NUM_CAPTURED, load_head_config
from runtime.speculative.fused import Entries
from runtime.speculative.head import DraftHead
from runtime.speculative.loading import shaped_head
from runtime.speculative.options import SpeculationOptions
from runtime.weights.config import ModelConfig


class SpeculationRehearsal:
    """The steps of a speculating engine without a device."""

    def __init__(
        self,
        config: ModelConfig,
        shortened: ModelConfig,
        settings: EngineSettings,
        options: SpeculationOptions,
        model: FusedDecoder,
        embedding: Tensor,
        operations: Operations,
        attention: DeviceAttention,
        pages: Tensor,
        launcher: Launcher,
        *,
        max_rows: int,
        scales: Tensor | None,
        num_multiprocessors: int,
    ) -> None:
        """
        Args:
            config: of the target, to which the head must fit.
            shortened: the target's with as few layers as have all kernels.
        Raises: CheckpointRejected for the head's folder.
        """
        head_config = load_head_config(Path(settings.speculative_draft_model_path), config)
        weights = shaped_head(head_config, device=pages.device, dtype=embedding.dtype)
        head = DraftHead(head_config, weights, embedding, num_positions=1)
        self._parts = build_speculation(
            HeadOnDevice(head, options.shape, ""),
            shortened,
            pages,
            attention,
            operations,
            launcher,
            max_sequences=settings.max_running_requests,
            scales=scales,
            num_multiprocessors=num_multiprocessors,
        )
        self._max_sequences, self._max_rows = settings.max_running_requests, max_rows
        self._model, self._operations = model, operations
        self._limits = limits = RunnerLimits(
            max_rows, self._max_sequences, self._max_sequences, 0, 0, num_queries=options.shape.num_drafts + 1
        )
        self._buffers = buffers = StepBuffers(
            shortened, limits, dtype=embedding.dtype, device=pages.device, num_captured=NUM_CAPTURED
        )
        uploads = UploadPool(1, 1, pages.device)
        self._speculation = DeviceSpeculation(
            self._parts, model, operations, pages, buffers, uploads, limits, num_in_flight=1
        )
        self._hidden = torch.empty(max_rows, head_config.hidden_size, dtype=embedding.dtype, device=pages.device)
        self._captured = self._hidden.new_empty(max_rows, NUM_CAPTURED * head_config.target_hidden_size)
        self._query = self._hidden.new_empty(max_rows, head_config.num_heads, head_config.head_dim)
        self._ints = torch.empty(max_rows + 1, dtype=torch.int32, device=pages.device)

    def run(self, row_counts: Iterable[int]) -> None:
        """Launch everything.

        Args:
            row_counts: numbers of rows, up to all that a step may have, between which kernels may change.
        """
        head, ints = self._parts.head, self._ints
        for count in range(1, self._max_sequences + 1):
            for level in self._parts.levels:
                self._speculation.rehearse(count, level)
        for count in row_counts:
            places = TokenPlaces(ints[:count], ints[:count])
            head.enter(DraftTokens(ints[:count]), head.combine(self._captured[:count]), places)
            if count <= self._limits.max_samples:
                self._sample(count)
            if count > self._max_sequences:
                continue
            tables = DeviceTables(ints, ints[:count], ints, ints, ints)
            plan = self._parts.attention.head.plan_capture(tables, count)
            head.logits(head.ask(Entries(self._query[:count], self._hidden[:count]), plan))

    def _sample(self, count: int) -> None:
        """So many tokens of the target."""
        views = StepViews(self._buffers.inputs, StepLayout(StepShape(count, 0, count)))
        (logits,) = self._model.logits(self._buffers.rows_of(views).hidden)
        self._operations.sample(logits, views.columns, self._buffers.samples_of(views))
