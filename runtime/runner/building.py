"""Building the reference runner: model folder, device and sizes in, a ready `TorchRunner` out."""

from dataclasses import replace
from pathlib import Path

import torch

from runtime.attention.reference import ReferenceAttention
from runtime.errors import EngineMisconfigured
from runtime.identifiers import PAGE_SIZE
from runtime.models.decoder import Decoder
from runtime.parallel.channel import Channel
from runtime.parallel.host_group import ALONE, Apart, HostGroup
from runtime.runner.cache_choice import choose_cache
from runtime.runner.rows import choose_grouping
from runtime.runner.torch_runner import TorchRunner
from runtime.settings import EngineSettings
from runtime.speculative.drafting import Drafter
from runtime.speculative.source import HeadSource
from runtime.weights.config import DTYPES, ModelConfig, load_model_config
from runtime.weights.file_check import FileCheck
from runtime.weights.folder import verify_model_folder
from runtime.weights.loading import Progress, build_dummy_weights, load_weights
from runtime.weights.quantization import AT_LOAD
from runtime.weights.shares import WHOLE, Share, share_config

LOAD_FORMATS = ("auto", "dummy")
REFERENCE_TOTAL_TOKENS = 32_768
"""Of the cache, where `max_total_tokens` leaves it open."""


def runs_on_reference(settings: EngineSettings) -> bool:
    """Whether an engine is built here, and not by `device_building`."""
    return settings.attention_backend == "reference" or (
        settings.attention_backend == "auto" and settings.device == "cpu"
    )


def build_runner(
    folder: Path,
    *,
    num_pages: int,
    device: str = "cpu",
    dtype: str = "auto",
    load_format: str = "auto",
    quantization: str = "auto",
    kv_cache_dtype: str = "auto",
    quantization_param_path: str = "",
    num_threads: int | None = 1,
    progress: Progress | None = None,
    verify: FileCheck | None = None,
    head: HeadSource | None = None,
    channel: Channel | None = None,
) -> TorchRunner:
    """Read a model folder and put a runner together.

    Args:
        num_pages: pages of the cache, the padding page included.
        device: torch's name of the device.
        dtype: of weights, activations and cache, one of DTYPES; `auto`: float32 on a CPU, else the checkpoint's.
        load_format: `dummy` takes shapes from `config.json` and random weights, and needs no checkpoint.
        quantization: `fp8`: weights that are not quantized are rounded to e4m3 as they are read.
        kv_cache_dtype: `fp8_e4m3`: pages of e4m3; `auto`: of the activations' dtype.
        quantization_param_path: file of the scales of e4m3 pages; empty: the checkpoint's, or none.
        num_threads: CPU threads of the whole process; None leaves torch's choice. Results on a CPU have the same bits
            for one number of threads, hence the default: it holds on every machine, and threads that wait for each
            other on busy cores are slower than one (measured: a twentieth of its speed on two cores under load).
        progress: called with (bytes read, bytes in all) while the checkpoint is read.
        verify: asked about the digest of every file that was read.
        head: of a speculating engine.
        channel: of a rank that shares the model with others, on a CPU; None: it has all of it.
    Raises: CheckpointRejected for the folder, EngineMisconfigured for the settings; whatever `verify` raises.
    """
    _verify_settings(num_pages, load_format, num_threads)
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    verify_model_folder(folder)
    whole = apply_quantization(load_model_config(folder), quantization)
    share = WHOLE if channel is None else channel.share
    config = share_config(whole, share)
    target, kind = resolve_device(device), resolve_dtype(dtype, device, config)
    if share.size > 1 and target.type != "cpu":
        raise EngineMisconfigured(
            "tp_size: the reference shares a model on a CPU only; choose another attention_backend"
        )
    with torch.inference_mode():
        weights = (
            build_dummy_weights(whole, device=target, dtype=kind, share=share)
            if load_format == "dummy"
            else load_weights(folder, whole, device=target, dtype=kind, share=share, progress=progress, verify=verify)
        )
        num_positions = (num_pages - 1) * PAGE_SIZE
        group = ALONE if channel is None else HostGroup(channel)
        model = Decoder(config, weights.parameters, num_positions=num_positions, group=group)
        cache = choose_cache(
            kv_cache_dtype, quantization_param_path, config, dtype=kind, device=target, stored=weights.cache_scales
        )
        pages = cache.allocate(config, num_pages, target)
        own = Decoder(config, weights.parameters, num_positions=num_positions, group=Apart(share))
        grouping = choose_grouping(own, hidden_size=config.hidden_size, device=target, dtype=kind, channel=channel)
        drafter, digest = None, weights.digest
        if head is not None:
            embedding = weights.parameters["embedding.weight"]
            loaded = head.load(whole, embedding, num_positions=model.rotary.num_positions)
            drafter, digest = Drafter(loaded.head, num_pages=num_pages), f"{digest} head {loaded.digest}"
    attention = ReferenceAttention(
        pages, num_heads=config.num_heads, layer_windows=config.layer_windows, scales=cache.scales
    )
    return TorchRunner(config, model, pages, attention, grouping, weights_digest=digest, drafter=drafter, cache=cache)


def _verify_settings(num_pages: int, load_format: str, num_threads: int | None) -> None:
    if num_pages < 2:
        raise EngineMisconfigured(f"num_pages: expected at least 2, the padding page and one more, found {num_pages}")
    if load_format not in LOAD_FORMATS:
        raise EngineMisconfigured(f"load_format: expected one of {', '.join(LOAD_FORMATS)}, found {load_format!r}")
    if num_threads is not None and num_threads < 1:
        raise EngineMisconfigured(f"num_threads: expected at least 1, found {num_threads}")


def verify_ranks(settings: EngineSettings, share: Share) -> None:
    """That an engine has the ranks it is to have. Raises: EngineMisconfigured where a single process is to do."""
    if settings.tp_size != share.size:
        raise EngineMisconfigured(
            f"tp_size: expected {share.size}, as here one process computes the model, found {settings.tp_size}"
        )


def apply_quantization(config: ModelConfig, quantization: str) -> ModelConfig:
    """The model as a setting wants it: `fp8` quantizes what is not quantized yet."""
    if quantization == "fp8" and config.quantization is None:
        return replace(config, quantization=AT_LOAD)
    return config


def context_length_of(settings: EngineSettings, config: ModelConfig) -> int:
    """The longest sequence that an engine takes, in tokens."""
    return min(settings.context_length or config.max_position, config.max_position)


def resolve_device(device: str) -> torch.device:
    """Torch's device of that name, tried. Raises: EngineMisconfigured."""
    try:
        target = torch.device(device)
        torch.empty(1, device=target)
    except (RuntimeError, AssertionError) as error:
        raise EngineMisconfigured(f"device: {device!r} cannot be used: {str(error).splitlines()[0]}") from error
    return target


def resolve_dtype(dtype: str, device: str, config: ModelConfig) -> torch.dtype:
    """The dtype that a setting means for a model on a device. Raises: EngineMisconfigured."""
    if dtype == "auto":
        dtype = "float32" if device == "cpu" or config.dtype is None else config.dtype
    if dtype not in DTYPES:
        raise EngineMisconfigured(f"dtype: expected auto or one of {', '.join(DTYPES)}, found {dtype!r}")
    kind: torch.dtype = getattr(torch, dtype)
    return kind
