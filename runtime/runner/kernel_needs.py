"""Which kernels an engine will launch, known before there is a GPU: what is compiled ahead of time, and what a frozen
bundle is checked against at start.

The decoder, its operations, attention and sampling run as they do in `DeviceRunner`, with tensors of the `meta` device and
a launcher that records. The model has one layer for each distinct window, as a kernel knows nothing else of its layer.
Three sets of steps cover all that can come:

- graphs: a decode of every size that is captured;
- rows: a chunk of so many rows, so many sampled rows, and so many rows of a prompt whose logprobs are asked for, for every number
  up to `_ALL_UP_TO` and around each power of 2 beyond: kernels are chosen by the number of rows, but not between large ones, padded
  or not;
- sequences: the attention of every number of decodes in a step, because contexts are cut according to it.

Beside them, what hashes a checkpoint while it is loaded.

That nothing is left out is tested with random steps of a runner.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import cast

import numpy as np
import torch

from runtime.attention.beside import OneByOne
from runtime.attention.combined import CombinedAttention
from runtime.attention.device import DeviceAttention, DevicePlan, DeviceTables, SequenceTables
from runtime.attention.flashinfer.attention import FlashInferAttention
from runtime.attention.flashinfer.calls import Cache
from runtime.attention.flashinfer.contexts import GatheredContexts, Span
from runtime.attention.flashinfer.libraries import LibraryName
from runtime.attention.pages import SCALE_COLUMNS, allocate_pages
from runtime.deterministic import verify_deterministic
from runtime.identifiers import PAGE_SIZE
from runtime.kernels.digest import NODE_WORDS, DigestKernels
from runtime.kernels.invariant import InvariantOperations
from runtime.kernels.launching import Launcher, Variant
from runtime.kernels.operations import FusedOperations
from runtime.kernels.recording import RecordingLauncher
from runtime.layers.quantized import E4M3
from runtime.models.fused import FusedDecoder
from runtime.parallel.device_group import PeerGroup
from runtime.runner.attention_choice import (
    AttentionChoice,
    build_invariant_attention,
    build_triton_attention,
    choose_attention,
)
from runtime.runner.building import apply_quantization, context_length_of, resolve_dtype, runs_on_reference
from runtime.runner.cache_choice import cache_dtype
from runtime.runner.device_building import CacheUse
from runtime.runner.graphs import graph_sizes
from runtime.runner.rows import WholeRows
from runtime.runner.speculation_needs import SpeculationRehearsal
from runtime.runner.step_buffers import RunnerLimits, StepBuffers
from runtime.runner.step_inputs import StepLayout, StepShape, StepViews
from runtime.settings import EngineSettings
from runtime.speculative.options import SpeculationOptions, speculation_options
from runtime.weights.config import ModelConfig, load_model_config
from runtime.weights.layout import parameter_shapes
from runtime.weights.loading import parameter_dtype
from runtime.weights.shares import Share, share_config

META = torch.device("meta")
HOPPER_MULTIPROCESSORS = 132
"""Of an H100 SXM and an H200; attention cuts contexts according to it."""

_ALL_UP_TO = 64


@dataclass(frozen=True, slots=True)
class KernelNeeds:
    """What must be there before an engine starts."""

    variants: frozenset[Variant]
    libraries: tuple[LibraryName, ...]
    """FlashInfer's, sorted."""


def find_all_needs(engines: Iterable[EngineSettings], *, num_multiprocessors: int) -> KernelNeeds:
    """All kernels of all engines on a GPU; those that run on the reference need none.

    Raises: CheckpointRejected for a model's folder, EngineMisconfigured.
    """
    variants: set[Variant] = set()
    libraries: set[LibraryName] = set()
    for settings in engines:
        if settings.device != "cuda" or runs_on_reference(settings):
            continue
        config = apply_quantization(load_model_config(Path(settings.model_path)), settings.quantization)
        dtype = resolve_dtype(settings.dtype, settings.device, config)
        needs = find_needs(config, settings, dtype, num_multiprocessors=num_multiprocessors)
        variants |= needs.variants
        libraries |= set(needs.libraries)
    return KernelNeeds(frozenset(variants), tuple(sorted(libraries, key=str)))


def find_needs(
    config: ModelConfig,
    settings: EngineSettings,
    dtype: torch.dtype,
    *,
    num_multiprocessors: int = HOPPER_MULTIPROCESSORS,
) -> KernelNeeds:
    """All kernels of one engine; they are the same on each of its ranks.

    Args:
        config: of the whole model.
    Raises: EngineMisconfigured for settings that no kernel serves.
    """
    verify_deterministic(settings, config)
    recorder = RecordingLauncher()
    _hash_file(DigestKernels(recorder))
    share = Share(0, settings.tp_size)
    choice = choose_attention(settings, share_config(config, share), dtype)
    rehearsal = _Rehearsal(config, share, settings, dtype, recorder, choice, num_multiprocessors)
    rehearsal.run()
    options = speculation_options(settings)
    if options is not None:
        rehearsal.speculate(config, settings, options)
    return KernelNeeds(frozenset(recorder.variants), choice.libraries)


def _hash_file(kernels: DigestKernels) -> None:
    """One of two groups."""
    nodes = torch.empty(2, NODE_WORDS, dtype=torch.int32, device=META)
    content = torch.empty(2 * kernels.group_bytes, dtype=torch.uint8, device=META)
    kernels.hash_groups(content, len(content), 0, nodes, is_whole=False)
    kernels.merge(nodes)


class _Rehearsal:
    """A runner's steps without a device."""

    def __init__(
        self,
        whole: ModelConfig,
        share: Share,
        settings: EngineSettings,
        dtype: torch.dtype,
        launcher: Launcher,
        choice: AttentionChoice,
        num_multiprocessors: int,
    ) -> None:
        self._launcher, self._num_multiprocessors = launcher, num_multiprocessors
        windows = tuple(dict.fromkeys(whole.layer_windows))
        shortened = replace(whole, num_layers=len(windows), layer_windows=windows)
        self._config = config = share_config(shortened, share)
        self._max_sequences = settings.max_running_requests
        self._max_rows = settings.prefill_sizes[0] + self._max_sequences
        self._sizes = graph_sizes(min(settings.cuda_graph_max_bs, self._max_sequences))
        operations = InvariantOperations if settings.deterministic else FusedOperations
        self._operations = operations(
            launcher, max_samples=self._max_sequences, vocab_size=config.vocab_size, device=META
        )
        parameters = {
            name: torch.empty(parameter.shape, dtype=parameter_dtype(parameter, dtype), device=META)
            for name, parameter in parameter_shapes(shortened, share).items()
        }
        self._embedding = parameters["embedding.weight"]
        cached = cache_dtype(settings.kv_cache_dtype, dtype)
        self._scales = scales = torch.empty(len(windows), SCALE_COLUMNS, device=META) if cached == E4M3 else None
        group = None if share.size == 1 else self._rehearse_group(share, settings, dtype)
        self._model = FusedDecoder(
            self._config, parameters, self._operations, num_positions=PAGE_SIZE, cache_scales=scales, group=group
        )
        self._pages = allocate_pages(
            num_layers=len(windows),
            num_pages=2,
            num_kv_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            device=META,
            dtype=cached,
        )
        use = CacheUse(self._pages, self._config, self._max_sequences, PAGE_SIZE, dtype, scales)
        limits = RunnerLimits(self._max_rows, self._max_sequences, self._max_sequences, 0, 0)
        self._buffers = StepBuffers(self._config, limits, dtype=dtype, device=META)
        self._attention = self._rehearse_attention(use, whole, settings, choice)
        self._query = torch.empty(self._max_sequences, config.num_heads, config.head_dim, dtype=dtype, device=META)

    def _rehearse_group(self, share: Share, settings: EngineSettings, dtype: torch.dtype) -> PeerGroup:
        options = speculation_options(settings)
        num_queries = 1 if options is None else options.shape.num_drafts + 1
        return PeerGroup(
            share,
            lambda _memory: torch.empty(share.size, dtype=torch.int64, device=META),
            self._launcher,
            max_rows=settings.prefill_sizes[0] + self._max_sequences * num_queries,
            hidden_size=self._config.hidden_size,
            max_samples=max(self._max_sequences * num_queries, WholeRows.num_scored_at_once),
            vocab_size=self._config.vocab_size,
            dtype=dtype,
            device=META,
        )

    def _rehearse_attention(
        self, use: CacheUse, whole: ModelConfig, settings: EngineSettings, choice: AttentionChoice
    ) -> DeviceAttention:
        if settings.deterministic:
            use = replace(use, max_context_length=context_length_of(settings, whole))
            return build_invariant_attention(self._launcher, use, self._num_multiprocessors)
        ours = build_triton_attention(self._launcher, use, self._num_multiprocessors)
        if choice.chunks == "triton":
            return ours
        theirs = _FlashInferRehearsal(use, self._launcher)
        theirs.plan(_chunk(1), self._views(1, 1).tables)
        elsewhere = cast(FlashInferAttention, theirs)
        return elsewhere if choice.decodes == "flashinfer" else CombinedAttention(ours, elsewhere, OneByOne())

    @torch.inference_mode()
    def run(self) -> None:
        for size in self._sizes:
            views = self._views(size, size)
            self._forward(views, self._attention.plan_capture(views.tables, size))
            self._sample(views)
        for num_rows in _row_counts(self._max_rows):
            views = self._views(num_rows, 1)
            self._forward(views, self._attention.plan(_chunk(num_rows), views.tables))
        for num_samples in _row_counts(self._max_sequences):
            self._sample(self._views(num_samples, num_samples))
        for num_rows in _row_counts(WholeRows.num_scored_at_once):
            self._model.logits(self._query.new_empty(num_rows, self._config.hidden_size))
        for num_decodes in range(1, self._max_sequences + 1):
            views = self._views(num_decodes, num_decodes)
            plans = (
                self._attention.plan(_decodes(num_decodes), views.tables),
                self._attention.plan_shared(views.tables, num_decodes),
            )
            query = self._query[:num_decodes]
            for plan, layer in product(filter(None, plans), range(self._config.num_layers)):
                plan.attend(layer, query, torch.empty_like(query))

    @torch.inference_mode()
    def speculate(self, config: ModelConfig, settings: EngineSettings, options: SpeculationOptions) -> None:
        """The same for drafts and their verification."""
        num_queries = options.num_steps + 1
        max_rows = settings.prefill_sizes[0] + self._max_sequences * num_queries
        SpeculationRehearsal(
            config,
            self._config,
            settings,
            options,
            self._model,
            self._embedding,
            self._operations,
            self._attention,
            self._pages,
            self._launcher,
            max_rows=max_rows,
            scales=self._scales,
            num_multiprocessors=self._num_multiprocessors,
        ).run(_row_counts(max_rows))

    def _views(self, num_rows: int, num_sequences: int) -> StepViews:
        return StepViews(self._buffers.inputs, StepLayout(StepShape(num_rows, num_sequences, num_sequences)))

    def _forward(self, views: StepViews, plan: DevicePlan) -> None:
        rows = self._buffers.rows_of(views)
        self._model.run(rows, self._pages, plan)
        self._model.finish_all(rows)

    def _sample(self, views: StepViews) -> None:
        count = views.shape.num_samples
        hidden = self._query.new_empty(count, self._config.hidden_size)
        (logits,) = self._model.logits(hidden)
        self._operations.sample(logits, views.columns, self._buffers.samples_of(views))


class _FlashInferRehearsal:
    """FlashInfer's attention without the library's own kernels, which are no variants of ours: what is left gathers contexts."""

    def __init__(self, use: CacheUse, launcher: Launcher) -> None:
        self._cache = Cache(use.pages[0, :, 0], use.pages[0, :, 1], None if use.scales is None else use.scales[0])
        self._contexts = GatheredContexts(
            use.pages,
            launcher,
            dtype=use.query_dtype,
            layer_windows=use.config.layer_windows,
            max_sequences=use.max_sequences,
            max_context_length=use.max_context_length,
        )

    def takes_chunks(self, host: SequenceTables) -> bool:
        """Chunks over e4m3 are rehearsed as our own kernels': there are some of both, and `plan` is called once for the others."""
        return self._cache.scales is None

    def plan(self, host: SequenceTables, device: DeviceTables) -> "_FlashInferRehearsal":
        self._contexts.gather(self._cache, device, Span(0, 1, 1))
        return self

    plan_chunks = plan

    def plan_shared(self, device: DeviceTables, num_sequences: int) -> None:
        pass

    def plan_capture(self, device: DeviceTables, num_sequences: int) -> "_FlashInferRehearsal":
        return self

    def attend(self, layer: int, query: torch.Tensor, out: torch.Tensor) -> None:
        pass


def _row_counts(most: int) -> Iterator[int]:
    yield from range(1, min(_ALL_UP_TO, most) + 1)
    power = 2 * _ALL_UP_TO
    while power <= most:
        yield from (count for count in (power - 1, power, power + 1) if count <= most)
        power *= 2
    yield most


def _chunk(num_rows: int) -> SequenceTables:
    return _tables([num_rows], num_decodes=0)


def _decodes(count: int) -> SequenceTables:
    return _tables([1] * count, num_decodes=count)


def _tables(lengths: Iterable[int], *, num_decodes: int) -> SequenceTables:
    rows = np.array(list(lengths), np.int32)
    starts = np.concatenate((np.zeros(1, np.int32), np.cumsum(rows, dtype=np.int32)))
    pages = np.arange(len(rows) + 1, dtype=np.int32)
    return SequenceTables(starts, rows, pages, np.zeros(len(rows), np.int32), num_decodes)
