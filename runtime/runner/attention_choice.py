"""Which attention an engine runs: for those who run it, and for those who compile it ahead of time."""

from dataclasses import dataclass
from typing import Literal

import torch

from runtime.attention.flashinfer.libraries import CacheShape, LibraryName, needed_libraries
from runtime.attention.invariant import InvariantAttention
from runtime.attention.triton import TritonAttention
from runtime.errors import EngineMisconfigured
from runtime.kernels.launching import Launcher
from runtime.runner.cache_choice import cache_dtype
from runtime.runner.device_building import CacheUse
from runtime.settings import EngineSettings
from runtime.weights.config import ModelConfig


@dataclass(frozen=True, slots=True)
class AttentionChoice:
    """Who computes which part of a step, where everything needed is there."""

    decodes: Literal["triton", "flashinfer"]
    chunks: Literal["triton", "flashinfer"]
    libraries: tuple[LibraryName, ...]
    refused: str = ""
    """Why FlashInfer computes no prompts, where it was left to the engine."""


def choose_attention(settings: EngineSettings, config: ModelConfig, dtype: torch.dtype) -> AttentionChoice:
    """What the settings mean for a model.

    Drafts are verified by our Triton kernels, and so are single rows beside them, whose lengths only the device knows, which
    FlashInfer's plans do not take: with speculation FlashInfer computes prompts.

    Args:
        dtype: of activations.
    Raises: EngineMisconfigured if FlashInfer is asked for and does not serve the model's shape, or pages in e4m3.
    """
    if settings.deterministic:
        return AttentionChoice("triton", "triton", ())
    cached = cache_dtype(settings.kv_cache_dtype, dtype)
    shape = CacheShape(config.num_heads, config.num_kv_heads, config.head_dim, dtype, cached, config.layer_windows)
    if settings.attention_backend == "flashinfer":
        if settings.speculative_algorithm:
            return AttentionChoice("triton", "flashinfer", needed_libraries(shape, decode=None))
        return AttentionChoice("flashinfer", "flashinfer", needed_libraries(shape))
    if settings.attention_backend == "auto":
        try:
            return AttentionChoice("triton", "flashinfer", needed_libraries(shape, decode=None))
        except EngineMisconfigured as refused:
            return AttentionChoice("triton", "triton", (), str(refused))
    return AttentionChoice("triton", "triton", ())


def build_invariant_attention(launcher: Launcher, use: CacheUse, num_multiprocessors: int) -> InvariantAttention:
    """The same, where no row's result may depend on the others."""
    return InvariantAttention(
        use.pages,
        num_heads=use.config.num_heads,
        layer_windows=use.config.layer_windows,
        launcher=launcher,
        max_context_length=use.max_context_length,
        num_multiprocessors=num_multiprocessors,
        scales=use.scales,
        pdl=True,
    )


def build_triton_attention(launcher: Launcher, use: CacheUse, num_multiprocessors: int) -> TritonAttention:
    """Our own kernels over a cache."""
    return TritonAttention(
        use.pages,
        num_heads=use.config.num_heads,
        layer_windows=use.config.layer_windows,
        launcher=launcher,
        max_decodes=use.max_sequences,
        num_multiprocessors=num_multiprocessors,
        scales=use.scales,
        pdl=True,
    )
