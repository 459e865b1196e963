"""Building a runner on a GPU: (1) the weights must fit, (2) they are loaded, (3) a trial says what steps need, (4) the KV
cache takes what is left, (5) graphs are captured. Nothing is compiled later, and nothing allocated but by steps that the
trial has covered."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from runtime.attention.device import DeviceAttention
from runtime.deterministic import verify_deterministic
from runtime.draft_shape import NO_DRAFTS
from runtime.errors import CheckpointRejected, EngineMisconfigured
from runtime.identifiers import PAGE_SIZE
from runtime.kernels.digest import DigestKernels
from runtime.kernels.invariant import InvariantOperations
from runtime.kernels.launching import Launcher
from runtime.kernels.operations import FusedOperations
from runtime.layers.quantized import E4M3
from runtime.models.fused import FusedDecoder
from runtime.parallel.channel import Channel
from runtime.parallel.device_group import PeerGroup
from runtime.parallel.peer_memory import share_memory
from runtime.runner.building import apply_quantization, context_length_of, resolve_device, resolve_dtype, verify_ranks
from runtime.runner.cache_choice import choose_cache
from runtime.runner.device_runner import DeviceRunner
from runtime.runner.memory import Card, MemoryNeed, MemoryTable, divide_memory, verify_weights_fit
from runtime.runner.rows import WholeRows
from runtime.runner.sizing import measure_step_bytes
from runtime.runner.speculation_building import HeadOnDevice, build_speculation
from runtime.runner.step_buffers import RunnerLimits
from runtime.settings import EngineSettings
from runtime.speculative.options import speculation_options
from runtime.speculative.source import HeadSource
from runtime.weights.config import ModelConfig, load_model_config
from runtime.weights.file_check import FileCheck
from runtime.weights.folder import verify_model_folder
from runtime.weights.layout import parameter_shapes
from runtime.weights.loading import LoadedWeights, build_dummy_weights, load_weights, parameter_dtype
from runtime.weights.shares import WHOLE, Share, share_config

_E4M3_UNIT = 16


@dataclass(frozen=True, slots=True)
class SharedModel:
    """A model, and what this rank has of it."""

    whole: ModelConfig
    share: Share

    @property
    def own(self) -> ModelConfig:
        """The shape of what it computes. Raises: EngineMisconfigured."""
        return share_config(self.whole, self.share)


@dataclass(frozen=True, slots=True)
class CacheUse:
    """What an attention backend must know of the cache that it works on."""

    pages: Tensor
    config: ModelConfig
    max_sequences: int
    max_context_length: int
    query_dtype: torch.dtype
    scales: Tensor | None = None
    """Of pages in e4m3, see `runtime.attention.pages`."""


@dataclass(frozen=True, slots=True)
class Kernels:
    """Where kernels come from."""

    launcher: Launcher
    build_attention: Callable[[CacheUse], DeviceAttention]
    verify_complete: Callable[[ModelConfig, torch.dtype], None]
    """Raises KernelMissing if a model will need a kernel that cannot be had."""
    digest: str
    """Of the frozen bundle; empty where kernels are compiled when they are launched."""


@dataclass(frozen=True, slots=True)
class BuiltDevice:
    """A runner that is ready, and how it divided the memory."""

    runner: DeviceRunner
    memory: MemoryTable
    card: Card


def build_device_runner(
    folder: Path,
    settings: EngineSettings,
    kernels: Kernels,
    *,
    advance: Callable[[], None],
    verify: FileCheck | None = None,
    head: HeadSource | None = None,
    channel: Channel | None = None,
) -> BuiltDevice:
    """Read a model folder and put a runner together that takes the GPU as its own.

    Args:
        advance: called after every part of the work, so that it is not taken for a hang.
        verify: asked about the digest of every file that was read, before anything is computed from them.
        head: of a speculating engine.
        channel: of a rank that shares the model with others; None: it has all of it.
    Raises: CheckpointRejected for the folder, EngineMisconfigured for the settings, KernelMissing for a frozen bundle;
        whatever `verify` raises.
    """
    verify_model_folder(folder)
    share = WHOLE if channel is None else channel.share
    verify_ranks(settings, share)
    model = SharedModel(apply_quantization(load_model_config(folder), settings.quantization), share)
    device = resolve_device(settings.device)
    if torch.cuda.device_count() < share.size:
        raise EngineMisconfigured(
            f"tp_size: {share.size} ranks need a GPU each, found {torch.cuda.device_count()} from base_gpu_id on"
        )
    dtype = resolve_dtype(settings.dtype, settings.device, model.whole)
    _verify_dtypes(model, dtype)
    verify_deterministic(settings, model.whole)
    kernels.verify_complete(model.whole, dtype)
    free_bytes, total_bytes = torch.cuda.mem_get_info()
    verify_weights_fit(_weights_bytes(model, dtype), free_bytes)  # (1)
    with torch.inference_mode():
        digests = DigestKernels(kernels.launcher)
        weights = _load(folder, model, settings, device, dtype, advance, verify, digests)  # (2)
        loaded = None if head is None else _load_head(head, model.whole, settings, weights)
        torch.cuda.synchronize()
        builder = _Builder(model.own, settings, kernels, weights, device, dtype, loaded, channel)
        advance()
        shape = NO_DRAFTS if loaded is None else loaded.shape
        step_bytes = measure_step_bytes(builder.build, builder.limits, builder.context_length, shape)  # (3)
        memory = divide_memory(  # (4)
            MemoryNeed(
                total_bytes,
                total_bytes - free_bytes,
                _weights_bytes(model, dtype) + (0 if loaded is None else loaded.weights_bytes),
                step_bytes + builder.group_bytes,
            ),
            page_bytes=model.own.kv_elements_per_token * PAGE_SIZE * builder.cache.dtype.itemsize
            + (0 if loaded is None else loaded.page_bytes),
            mem_fraction_static=settings.mem_fraction_static,
            max_total_tokens=settings.max_total_tokens,
            min_tokens=settings.context_length or PAGE_SIZE,
        )
        if channel is not None:
            memory = memory.with_pages(channel.smallest(memory.num_pages))
        advance()
        runner = builder.build(memory.num_pages)
        runner.pages.zero_()
        runner.capture_graphs(advance=advance)  # (5)
        torch.cuda.synchronize()
    return BuiltDevice(runner, memory, _card_of(device))


def _card_of(device: torch.device) -> Card:
    properties = torch.cuda.get_device_properties(device)
    return Card(properties.name, f"GPU-{properties.uuid}")


class _Builder:
    """Makes runners that differ in nothing but the size of their cache."""

    def __init__(
        self,
        config: ModelConfig,
        settings: EngineSettings,
        kernels: Kernels,
        weights: LoadedWeights,
        device: torch.device,
        dtype: torch.dtype,
        head: HeadOnDevice | None,
        channel: Channel | None,
    ) -> None:
        self._config = config
        self._head = head
        self._kernels = kernels
        self._weights = weights
        self._device, self._dtype = device, dtype
        self.context_length = context_length_of(settings, config)
        max_sequences = settings.max_running_requests
        num_queries = 1 if head is None else head.shape.num_drafts + 1
        self.limits = RunnerLimits(
            max_rows=settings.prefill_sizes[0] + max_sequences * num_queries,
            max_sequences=max_sequences,
            max_table_pages=max_sequences * -(-self.context_length // PAGE_SIZE),
            cuda_graph_max_bs=settings.cuda_graph_max_bs,
            piecewise_cuda_graph_max_tokens=settings.piecewise_cuda_graph_max_tokens,
            num_queries=num_queries,
        )
        operations = InvariantOperations if settings.deterministic else FusedOperations
        self._operations = operations(
            kernels.launcher, max_samples=self.limits.max_samples, vocab_size=config.vocab_size, device=device
        )
        self.cache = choose_cache(
            settings.kv_cache_dtype,
            settings.quantization_param_path,
            config,
            dtype=dtype,
            device=device,
            stored=weights.cache_scales,
        )
        group = None
        if channel is not None:
            group = PeerGroup(
                channel.share,
                partial(share_memory, channel=channel),
                kernels.launcher,
                max_rows=self.limits.max_rows,
                hidden_size=config.hidden_size,
                max_samples=max(self.limits.max_samples, WholeRows.num_scored_at_once),
                vocab_size=config.vocab_size,
                dtype=dtype,
                device=device,
            )
        self.group_bytes = 0 if group is None else group.num_bytes
        self._model = FusedDecoder(
            config,
            weights.parameters,
            self._operations,
            num_positions=self.context_length,
            cache_scales=self.cache.scales,
            captured_layers=() if head is None else head.head.config.captured_layers,
            group=group,
        )

    def build(self, num_pages: int) -> DeviceRunner:
        """Over a cache of so many pages, which is not initialized."""
        config = self._config
        pages = self.cache.allocate(config, num_pages, self._device)
        use = CacheUse(pages, config, self.limits.max_sequences, self.context_length, self._dtype, self.cache.scales)
        attention = self._kernels.build_attention(use)
        digest, speculation = self._weights.digest, None
        if self._head is not None:
            digest = f"{digest} head {self._head.digest}"
            speculation = build_speculation(
                self._head,
                config,
                pages,
                attention,
                self._operations,
                self._kernels.launcher,
                max_sequences=self.limits.max_sequences,
                scales=self.cache.scales,
                num_multiprocessors=torch.cuda.get_device_properties(self._device).multi_processor_count,
            )
        return DeviceRunner(
            config,
            self._model,
            self._operations,
            attention,
            pages,
            self.limits,
            weights_digest=digest,
            cache=self.cache,
            speculation=speculation,
        )


def _load(
    folder: Path,
    model: SharedModel,
    settings: EngineSettings,
    device: torch.device,
    dtype: torch.dtype,
    advance: Callable[[], None],
    verify: FileCheck | None,
    kernels: DigestKernels,
) -> LoadedWeights:
    if settings.load_format == "dummy":
        return build_dummy_weights(model.whole, device=device, dtype=dtype, share=model.share)
    return load_weights(
        folder,
        model.whole,
        device=device,
        dtype=dtype,
        share=model.share,
        progress=lambda _done, _total: advance(),
        verify=verify,
        kernels=kernels,
    )


def _load_head(
    source: HeadSource, config: ModelConfig, settings: EngineSettings, weights: LoadedWeights
) -> HeadOnDevice:
    options = speculation_options(settings)
    assert options is not None, "a head for an engine that does not speculate"
    num_positions = context_length_of(settings, config)
    found = source.load(config, weights.parameters["embedding.weight"], num_positions=num_positions)
    return HeadOnDevice(found.head, options.shape, found.digest, source.levels)


def _weights_bytes(model: SharedModel, dtype: torch.dtype) -> int:
    return sum(
        math.prod(parameter.shape) * parameter_dtype(parameter, dtype).itemsize
        for parameter in parameter_shapes(model.whole, model.share).values()
    )


def _verify_dtypes(model: SharedModel, dtype: torch.dtype) -> None:
    """Kernels on a GPU take 16 bits. Products in e4m3 leave bf16, and take matrices in whole units of 16 bytes."""
    if dtype == torch.float32:
        raise EngineMisconfigured(
            "dtype: expected bfloat16 or float16 on cuda with this attention_backend, found float32"
        )
    if model.whole.quantization is None:
        return
    if dtype != torch.bfloat16:
        raise EngineMisconfigured(f"dtype: expected bfloat16 for FP8 on cuda, found {dtype}")
    for name, parameter in parameter_shapes(model.whole, model.share).items():
        if parameter_dtype(parameter, dtype) == E4M3 and any(size % _E4M3_UNIT for size in parameter.shape):
            raise CheckpointRejected(
                f"{name}: FP8 on cuda takes sizes that are multiples of {_E4M3_UNIT}, found {list(parameter.shape)}"
            )
