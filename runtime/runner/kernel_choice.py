"""Which kernels an engine on a GPU runs: from the settings and the model's shape, said in the log where it is not what was
asked for by default.

With `frozen` they come from one verified bundle, and the module that compiles is never reached: Triton is imported by
`runtime.kernels.launcher` when something is launched by it, and by nothing else here.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from runtime.attention.beside import OneByOne, SideStream
from runtime.attention.combined import CombinedAttention
from runtime.attention.device import DeviceAttention
from runtime.attention.flashinfer.attention import FlashInferAttention, build_flashinfer_attention
from runtime.attention.flashinfer.libraries import DecodeAlgorithm, Libraries
from runtime.attention.invariant import InvariantAttention
from runtime.attention.triton import TritonAttention
from runtime.errors import EngineMisconfigured, KernelMissing
from runtime.kernels.bundle import Bundle, load_bundle
from runtime.kernels.frozen import load_frozen_launcher
from runtime.kernels.launcher import JitLauncher
from runtime.kernels.launching import Launcher
from runtime.kernels.libraries import BundleLibraries, FolderLibraries
from runtime.runner.attention_choice import build_invariant_attention, build_triton_attention, choose_attention
from runtime.runner.device_building import CacheUse, Kernels
from runtime.runner.kernel_needs import find_needs
from runtime.settings import EngineSettings
from runtime.weights.config import ModelConfig

Warn = Callable[[str], None]
"""Takes a sentence for the operator."""
_SUBSTITUTED = "prompts are computed by Triton kernels, as FlashInfer's cannot be used: {refused}"


def choose_kernels(settings: EngineSettings, warn: Warn) -> Kernels:
    """Launcher and attention of an engine.

    Raises: EngineMisconfigured, KernelMissing.
    """
    if settings.device != "cuda":
        raise EngineMisconfigured(
            f"attention_backend: {settings.attention_backend} needs device cuda, found {settings.device}"
        )
    if settings.attention_backend == "flashinfer" and settings.speculative_algorithm:
        warn("drafts are verified by Triton kernels, as FlashInfer's plans need lengths that only the device knows")
    if settings.frozen:
        return _choose_frozen(settings, warn)
    launcher = JitLauncher()
    libraries = FolderLibraries(Path(settings.kernels_path))
    builders: dict[str, Callable[[CacheUse], DeviceAttention]] = {
        "invariant": partial(_build_invariant, launcher),
        "triton": partial(_build_triton, launcher),
        "flashinfer": partial(_build_flashinfer, launcher, libraries),
        "flashinfer beside drafts": partial(_build_combined, settings, launcher, libraries),
        "auto": partial(_build_best, settings, launcher, libraries, warn),
    }
    backend: str = "invariant" if settings.deterministic else settings.attention_backend
    if backend == "flashinfer" and settings.speculative_algorithm:
        backend = "flashinfer beside drafts"
    return Kernels(launcher, builders[backend], lambda _config, _dtype: None, "")


def load_frozen_bundle(settings: EngineSettings) -> Bundle:
    """The verified bundle that an engine's settings name.

    Raises: EngineMisconfigured, KernelMissing.
    """
    if not settings.kernels_path:
        raise EngineMisconfigured("kernels_path: frozen needs the folder of a kernel bundle, found none")
    bundle = load_bundle(Path(settings.kernels_path))
    digest = bundle.manifest.digest
    if settings.kernels_sha256 not in ("", digest):
        raise KernelMissing(f"{settings.kernels_path}: expected the bundle {settings.kernels_sha256}, found {digest}")
    return bundle


def _choose_frozen(settings: EngineSettings, warn: Warn) -> Kernels:
    bundle = load_frozen_bundle(settings)
    device = torch.cuda.current_device()
    bundle.verify_sources()
    _verify_arch(bundle, torch.cuda.get_device_capability(device))
    launcher = load_frozen_launcher(bundle, device)
    return Kernels(
        launcher,
        partial(_build_frozen_attention, settings, launcher, BundleLibraries(bundle)),
        partial(_verify_complete, settings, bundle, warn),
        bundle.manifest.digest,
    )


def _verify_arch(bundle: Bundle, capability: tuple[int, int]) -> None:
    major, minor = capability
    if bundle.manifest.arch.rstrip("af") != f"sm_{major}{minor}":
        raise EngineMisconfigured(
            f"the kernel bundle is for {bundle.manifest.arch}, the GPU has compute capability {major}.{minor}"
        )


def _verify_complete(
    settings: EngineSettings, bundle: Bundle, warn: Warn, config: ModelConfig, dtype: torch.dtype
) -> None:
    refused = choose_attention(settings, config, dtype).refused
    if refused:
        warn(_SUBSTITUTED.format(refused=refused))
    needs = find_needs(config, settings, dtype, num_multiprocessors=_num_multiprocessors(torch.device("cuda")))
    bundle.verify_holds(needs.variants, map(str, needs.libraries))


def _build_frozen_attention(
    settings: EngineSettings, launcher: Launcher, libraries: Libraries, use: CacheUse
) -> DeviceAttention:
    """Nothing is tried, because what is missing was refused before."""
    if settings.deterministic:
        return _build_invariant(launcher, use)
    choice = choose_attention(settings, use.config, use.query_dtype)
    if choice.decodes == "flashinfer":
        return _build_flashinfer(launcher, libraries, use)
    if choice.chunks == "triton":
        return _build_triton(launcher, use)
    return _build_combined(settings, launcher, libraries, use)


def _build_combined(
    settings: EngineSettings, launcher: Launcher, libraries: Libraries, use: CacheUse
) -> DeviceAttention:
    """With drafts one behind the other: on an H200 a second stream made no difference there, neither to prompts of 1,024
    tokens nor to such of 2,304 of which 2,048 were cached."""
    decodes, chunks = _build_triton(launcher, use), _build_flashinfer(launcher, libraries, use, decode=None)
    beside = OneByOne() if settings.speculative_algorithm else SideStream(use.pages.device)
    return CombinedAttention(decodes, chunks, beside)


def _build_best(
    settings: EngineSettings, launcher: Launcher, libraries: Libraries, warn: Warn, use: CacheUse
) -> DeviceAttention:
    try:
        return _build_combined(settings, launcher, libraries, use)
    except EngineMisconfigured as refused:
        warn(_SUBSTITUTED.format(refused=refused))
        return _build_triton(launcher, use)


def _build_invariant(launcher: Launcher, use: CacheUse) -> InvariantAttention:
    return build_invariant_attention(launcher, use, _num_multiprocessors(use.pages.device))


def _build_triton(launcher: Launcher, use: CacheUse) -> TritonAttention:
    return build_triton_attention(launcher, use, _num_multiprocessors(use.pages.device))


def _build_flashinfer(
    launcher: Launcher, libraries: Libraries, use: CacheUse, decode: DecodeAlgorithm | None = "fa2"
) -> FlashInferAttention:
    return build_flashinfer_attention(
        use.pages,
        libraries,
        launcher,
        num_heads=use.config.num_heads,
        query_dtype=use.query_dtype,
        layer_windows=use.config.layer_windows,
        max_sequences=use.max_sequences,
        max_context_length=use.max_context_length,
        decode=decode,
        scales=use.scales,
    )


def _num_multiprocessors(device: torch.device) -> int:
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
