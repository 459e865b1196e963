"""Which kernels an engine will launch, known before there is a GPU: what is compiled ahead of time, and what a frozen
bundle is checked against at start.

The decoder, its operations, attention and sampling run as they do in `DeviceRunner`, with tensors of the `meta` device and
a launcher that records. The model has one layer for each distinct window, as a kernel knows nothing else of its layer.
Three sets of steps cover all that can come:

- graphs: a decode of every size that is captured;
- rows: a chunk of so many rows, and so many sampled rows, for every number up to `_ALL_UP_TO` and around each power of 2
  beyond: kernels are chosen by the number of rows, but not between large ones;
- sequences: the attention of every number of decodes in a step, because contexts are cut according to it.

That nothing is left out is tested with random steps of a runner.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from runtime.attention.device import DeviceAttention, DevicePlan, SequenceTables
from runtime.attention.flashinfer.libraries import CacheShape, LibraryName, needed_libraries
from runtime.attention.pages import allocate_pages
from runtime.attention.triton import TritonAttention
from runtime.errors import EngineMisconfigured
from runtime.identifiers import PAGE_SIZE
from runtime.kernels.launching import Launcher, Variant
from runtime.kernels.operations import FusedOperations
from runtime.kernels.recording import RecordingLauncher
from runtime.models.fused import FusedDecoder
from runtime.models.operations import TokenSource
from runtime.runner.graphs import graph_sizes
from runtime.runner.step_inputs import StepLayout, StepShape, StepViews, num_words
from runtime.settings import EngineSettings
from runtime.weights.config import ModelConfig
from runtime.weights.layout import parameter_shapes

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


def uses_flashinfer(settings: EngineSettings, config: ModelConfig, dtype: torch.dtype) -> bool:
    """Whether attention is FlashInfer's, when everything that it needs is there.

    Raises: EngineMisconfigured if it is asked for and does not serve the model's shape.
    """
    if settings.attention_backend == "flashinfer":
        needed_libraries(_cache_shape(config, dtype))
        return True
    try:
        needed_libraries(_cache_shape(config, dtype))
    except EngineMisconfigured:
        return False
    return settings.attention_backend == "auto"


def find_needs(
    config: ModelConfig,
    settings: EngineSettings,
    dtype: torch.dtype,
    *,
    num_multiprocessors: int = HOPPER_MULTIPROCESSORS,
) -> KernelNeeds:
    """All kernels of one engine.

    Raises: EngineMisconfigured for settings that no kernel serves.
    """
    recorder = RecordingLauncher()
    if uses_flashinfer(settings, config, dtype):
        libraries = needed_libraries(_cache_shape(config, dtype))
        _Rehearsal(config, settings, dtype, recorder, None).run()
        return KernelNeeds(frozenset(recorder.variants), libraries)
    _Rehearsal(config, settings, dtype, recorder, num_multiprocessors).run()
    return KernelNeeds(frozenset(recorder.variants), ())


class _Rehearsal:
    """A runner's steps without a device."""

    def __init__(
        self,
        config: ModelConfig,
        settings: EngineSettings,
        dtype: torch.dtype,
        launcher: Launcher,
        num_multiprocessors: int | None,
    ) -> None:
        windows = tuple(dict.fromkeys(config.layer_windows))
        self._config = replace(config, num_layers=len(windows), layer_windows=windows)
        self._max_sequences = settings.max_running_requests
        self._max_rows = settings.prefill_sizes[0] + self._max_sequences
        self._sizes = graph_sizes(min(settings.cuda_graph_max_bs, self._max_sequences))
        self._operations = FusedOperations(
            launcher, max_samples=self._max_sequences, vocab_size=config.vocab_size, device=META
        )
        parameters = {
            name: torch.empty(parameter.shape, dtype=dtype, device=META)
            for name, parameter in parameter_shapes(self._config).items()
        }
        self._model = FusedDecoder(self._config, parameters, self._operations, num_positions=PAGE_SIZE)
        self._pages = allocate_pages(
            num_layers=len(windows),
            num_pages=2,
            num_kv_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            device=META,
            dtype=dtype,
        )
        self._attention: DeviceAttention = _NoAttention()
        if num_multiprocessors is not None:
            self._attention = TritonAttention(
                self._pages,
                num_heads=config.num_heads,
                layer_windows=windows,
                launcher=launcher,
                max_decodes=self._max_sequences,
                num_multiprocessors=num_multiprocessors,
            )
        words = num_words(max_rows=self._max_rows, max_sequences=self._max_sequences, max_pages=self._max_sequences)
        self._inputs = torch.empty(words, dtype=torch.int32, device=META)
        self._samples = torch.empty(2, -(-self._max_sequences // 4) * 4, dtype=torch.int32, device=META)
        self._query = torch.empty(self._max_sequences, config.num_heads, config.head_dim, dtype=dtype, device=META)

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
        for num_decodes in range(1, self._max_sequences + 1):
            views = self._views(num_decodes, num_decodes)
            plan = self._attention.plan(_decodes(num_decodes), views.tables)
            query = self._query[:num_decodes]
            for layer in range(self._config.num_layers):
                plan.attend(layer, query, torch.empty_like(query))

    def _views(self, num_rows: int, num_sequences: int) -> StepViews:
        return StepViews(self._inputs, StepLayout(StepShape(num_rows, num_sequences, num_sequences)))

    def _forward(self, views: StepViews, plan: DevicePlan) -> None:
        source = TokenSource(views.token_ids, views.previous_rows, self._samples[0])
        self._model.hidden_states(source, views.places, self._pages, plan)

    def _sample(self, views: StepViews) -> None:
        count = views.shape.num_samples
        hidden = self._query.new_empty(count, self._config.hidden_size)
        (logits,) = self._model.logits(hidden)
        self._operations.sample(logits, views.columns, self._samples[:, :count])


class _NoAttention:
    """Where attention is a library's: it launches nothing that we compile."""

    def plan(self, host: SequenceTables, device: object) -> "_NoAttention":
        return self

    def plan_capture(self, device: object, num_sequences: int) -> "_NoAttention":
        return self

    def refresh(self, plan: DevicePlan, host: SequenceTables) -> None:
        pass

    def attend(self, layer: int, query: torch.Tensor, out: torch.Tensor) -> None:
        pass


def _cache_shape(config: ModelConfig, dtype: torch.dtype) -> CacheShape:
    return CacheShape(config.num_heads, config.num_kv_heads, config.head_dim, dtype, dtype, config.layer_windows)


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
