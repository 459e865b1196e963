"""Which kernels an engine on a GPU runs: from the settings and the model's shape, said in the log where it is not what was
asked for by default."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from runtime.attention.combined import CombinedAttention
from runtime.attention.device import DeviceAttention
from runtime.attention.flashinfer.attention import FlashInferAttention, build_flashinfer_attention
from runtime.attention.flashinfer.libraries import DecodeAlgorithm, Libraries
from runtime.attention.triton import TritonAttention
from runtime.errors import EngineMisconfigured
from runtime.kernels.launcher import JitLauncher
from runtime.kernels.launching import Launcher
from runtime.kernels.libraries import FolderLibraries
from runtime.runner.device_building import CacheUse, Kernels
from runtime.settings import EngineSettings

Warn = Callable[[str], None]
"""Takes a sentence for the operator."""


def choose_kernels(settings: EngineSettings, warn: Warn) -> Kernels:
    """Launcher and attention of an engine.

    Raises: EngineMisconfigured, KernelMissing.
    """
    if settings.device != "cuda":
        raise EngineMisconfigured(
            f"attention_backend: {settings.attention_backend} needs device cuda, found {settings.device}"
        )
    launcher = JitLauncher()
    libraries = FolderLibraries(Path(settings.kernels_path))
    builders: dict[str, Callable[[CacheUse], DeviceAttention]] = {
        "triton": partial(_build_triton, launcher),
        "flashinfer": partial(_build_flashinfer, libraries),
        "auto": partial(_build_best, launcher, libraries, warn),
    }
    return Kernels(launcher, builders[settings.attention_backend])


def _build_best(launcher: Launcher, libraries: Libraries, warn: Warn, use: CacheUse) -> DeviceAttention:
    decodes = _build_triton(launcher, use)
    try:
        return CombinedAttention(decodes, _build_flashinfer(libraries, use, decode=None))
    except EngineMisconfigured as refused:
        warn(f"prompts are computed by Triton kernels, as FlashInfer's cannot be used: {refused}")
        return decodes


def _build_triton(launcher: Launcher, use: CacheUse) -> TritonAttention:
    return TritonAttention(
        use.pages,
        num_heads=use.config.num_heads,
        layer_windows=use.config.layer_windows,
        launcher=launcher,
        max_decodes=use.max_sequences,
        num_multiprocessors=torch.cuda.get_device_properties(use.pages.device).multi_processor_count,
        pdl=True,
    )


def _build_flashinfer(
    libraries: Libraries, use: CacheUse, decode: DecodeAlgorithm | None = "fa2"
) -> FlashInferAttention:
    return build_flashinfer_attention(
        use.pages,
        libraries,
        num_heads=use.config.num_heads,
        query_dtype=use.pages.dtype,
        layer_windows=use.config.layer_windows,
        max_sequences=use.max_sequences,
        max_context_length=use.max_context_length,
        decode=decode,
    )
