"""A `DeviceRunner` on a CPU: the same packing, padding, capturing and reading back, with plain torch as its kernels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from runtime.attention.beside import Beside, OneByOne
from runtime.attention.device import DeviceAttention
from runtime.attention.pages import SCALE_COLUMNS, allocate_pages
from runtime.draft_shape import DraftShape, draft_chain
from runtime.kernels.invariant import InvariantOperations
from runtime.kernels.launcher import JitLauncher
from runtime.kernels.launching import Argument, Constant, Launcher, Options
from runtime.kernels.operations import FusedOperations
from runtime.models.fused import FusedDecoder
from runtime.models.operations import PlainOperations
from runtime.parallel.channel import Channel
from runtime.runner.attention_choice import build_invariant_attention, build_triton_attention
from runtime.runner.building import apply_quantization, context_length_of
from runtime.runner.cache_choice import CacheFormat, cache_dtype
from runtime.runner.chains import PlainChains
from runtime.runner.device_building import CacheUse
from runtime.runner.device_runner import DeviceRunner
from runtime.runner.speculation_building import HeadOnDevice, build_speculation
from runtime.runner.speculation_parts import SpeculationAttention, SpeculationParts
from runtime.runner.step_buffers import RunnerLimits
from runtime.settings import EngineSettings
from runtime.speculative.adapting import speculation_levels
from runtime.speculative.fused import FusedHead
from runtime.speculative.head import DraftHead
from runtime.speculative.options import speculation_options
from runtime.speculative.source import HeadSource
from runtime.weights.config import load_model_config
from runtime.weights.loading import build_dummy_weights, load_weights
from runtime.weights.shares import WHOLE, share_config
from tests.support.plain_attention import DeviceTablesAttention, PlainAttention
from tests.support.ranks import HostDeviceGroup


@dataclass(frozen=True)
class PlainDevice:
    """The runner, and what its graphs planned."""

    runner: DeviceRunner
    attention: PlainAttention
    target: DeviceTablesAttention | None
    """Where there is a head."""


def build_plain_device(
    folder: Path,
    *,
    num_pages: int,
    cuda_graph_max_bs: int = 8,
    piecewise_cuda_graph_max_tokens: int = 64,
    max_rows: int = 600,
    max_sequences: int = 64,
    dummy: bool = False,
    cache: CacheFormat | None = None,
    head: HeadSource | None = None,
    num_steps: int = 0,
    tree: tuple[int, int] | None = None,
    quantization: str = "auto",
    beside: Beside | None = None,
    shares: bool = False,
    channel: Channel | None = None,
) -> PlainDevice:
    """Float32 on the CPU, graphs captured; pages as well, unless `cache` says otherwise.

    With a head a step verifies `num_steps` drafts of each sequence; or a tree of so many steps, with a top-k and tokens; prompts
    run `beside` it, and what several begin with is read once where it `shares`. With a channel it is a rank of several.
    """
    whole = apply_quantization(load_model_config(folder), quantization)
    share = WHOLE if channel is None else channel.share
    config = share_config(whole, share)
    device, dtype = torch.device("cpu"), torch.float32
    with torch.inference_mode():
        weights = (
            build_dummy_weights(whole, device=device, dtype=dtype, share=share)
            if dummy
            else load_weights(folder, whole, device=device, dtype=dtype, share=share)
        )
        operations = PlainOperations()
        cache = cache if cache is not None else CacheFormat(dtype)
        num_positions = num_pages * 16
        loaded = None
        if head is not None:
            loaded = head.load(whole, weights.parameters["embedding.weight"], num_positions=num_positions).head
        model = FusedDecoder(
            config,
            weights.parameters,
            operations,
            num_positions=num_positions,
            cache_scales=cache.scales,
            captured_layers=() if loaded is None else loaded.config.captured_layers,
            group=None if channel is None else HostDeviceGroup(channel, whole),
        )
        pages = allocate_pages(
            num_layers=config.num_layers, num_pages=num_pages, num_kv_heads=config.num_kv_heads,
            head_dim=config.head_dim, device=device, dtype=cache.dtype,
        )  # fmt: skip
        pages.fill_(torch.nan)
    attention = PlainAttention(pages, config.layer_windows, cache.scales)
    shape = draft_chain(num_steps) if tree is None else DraftShape(num_steps, tree[0], tree[1] - 1)
    limits = RunnerLimits(
        max_rows,
        max_sequences,
        max_sequences * num_pages,
        cuda_graph_max_bs,
        piecewise_cuda_graph_max_tokens,
        num_queries=shape.num_drafts + 1,
    )
    speculation = target = None
    if loaded is not None:
        target = DeviceTablesAttention(
            pages, config.layer_windows, cache.scales, beside=beside or OneByOne(), shares=shares
        )
        speculation = _speculation(loaded, target, operations, shape)
    runner = DeviceRunner(
        config,
        model,
        operations,
        attention,
        pages,
        limits,
        weights_digest=weights.digest,
        cache=cache,
        speculation=speculation,
    )
    runner.capture_graphs()
    return PlainDevice(runner, attention, target)


def _speculation(
    head: DraftHead, rows: DeviceTablesAttention, operations: PlainOperations, shape: DraftShape
) -> SpeculationParts:
    pages = allocate_pages(
        num_layers=1, num_pages=rows.pages.shape[1], num_kv_heads=head.config.num_kv_heads,
        head_dim=head.config.head_dim, device=rows.pages.device, dtype=head.embedding.dtype,
    )  # fmt: skip
    pages.fill_(torch.nan)
    heads = DeviceTablesAttention(pages, (None,))
    return SpeculationParts(
        head=FusedHead(head, operations, pages),
        head_pages=pages,
        attention=SpeculationAttention(rows, rows, rows, heads, heads),
        chains=PlainChains(),
        levels=speculation_levels(shape.num_steps),
        shape=shape,
    )


def build_speculating_recorded(
    folder: Path, head: HeadSource, launcher: Launcher, settings: EngineSettings
) -> DeviceRunner:
    """The runner of a speculating engine on a CPU, its kernels only launched, whatever that does."""
    return _build_speculating(
        folder, head, launcher, settings, dtype=torch.bfloat16, num_pages=120, num_multiprocessors=132
    )


class WithoutDependentLaunch(JitLauncher):
    """For the interpreter, which knows nothing of it."""

    def launch(
        self,
        kernel: str,
        grid: tuple[int, int, int],
        arguments: Sequence[Argument],
        constants: Mapping[str, Constant],
        options: Options,
    ) -> None:
        """See `Launcher.launch`."""
        without = {name: False if name == "PDL" else value for name, value in constants.items()}
        super().launch(kernel, grid, arguments, without, options)


def build_speculating_interpreted(folder: Path, head: HeadSource, settings: EngineSettings) -> DeviceRunner:
    """The same with the weights of the folder in float32, its kernels interpreted; of few multiprocessors, so few programs."""
    return _build_speculating(
        folder, head, WithoutDependentLaunch(), settings, dtype=torch.float32, num_pages=40, num_multiprocessors=4
    )


def _build_speculating(
    folder: Path,
    head: HeadSource,
    launcher: Launcher,
    settings: EngineSettings,
    *,
    dtype: torch.dtype,
    num_pages: int,
    num_multiprocessors: int,
) -> DeviceRunner:
    config = apply_quantization(load_model_config(folder), settings.quantization)
    device = torch.device("cpu")
    cached = cache_dtype(settings.kv_cache_dtype, dtype)
    scales = torch.ones(config.num_layers, SCALE_COLUMNS) if cached != dtype else None
    options, most = speculation_options(settings), settings.max_running_requests
    assert options is not None
    num_queries = options.shape.num_drafts + 1
    limits = RunnerLimits(
        settings.chunked_prefill_size + most * num_queries, most, most * num_pages, settings.cuda_graph_max_bs, 0,
        num_queries=num_queries,
    )  # fmt: skip
    kind = InvariantOperations if settings.deterministic else FusedOperations
    operations = kind(launcher, max_samples=limits.max_samples, vocab_size=config.vocab_size, device=device)
    build_weights = partial(load_weights, folder) if (folder / "model.safetensors").exists() else build_dummy_weights
    with torch.inference_mode():
        weights = build_weights(config, device=device, dtype=dtype)
        parameters = {name: parameter.contiguous() for name, parameter in weights.parameters.items()}
        loaded = head.load(config, parameters["embedding.weight"], num_positions=num_pages * 16)
        model = FusedDecoder(
            config, parameters, operations, num_positions=num_pages * 16,
            captured_layers=loaded.head.config.captured_layers, cache_scales=scales,
        )  # fmt: skip
        pages = allocate_pages(
            num_layers=config.num_layers, num_pages=num_pages, num_kv_heads=config.num_kv_heads,
            head_dim=config.head_dim, device=device, dtype=cached,
        ).zero_()  # fmt: skip
        use = CacheUse(pages, config, most, context_length_of(settings, config), dtype, scales)
        attention: DeviceAttention = build_triton_attention(launcher, use, num_multiprocessors)
        if settings.deterministic:
            attention = build_invariant_attention(launcher, use, num_multiprocessors)
        speculation = build_speculation(
            HeadOnDevice(loaded.head, options.shape, ""), config, pages, attention, operations, launcher,
            max_sequences=most, scales=scales, num_multiprocessors=num_multiprocessors,
        )  # fmt: skip
    runner = DeviceRunner(
        config, model, operations, attention, pages, limits, weights_digest="", speculation=speculation
    )
    runner.capture_graphs()
    return runner
