"""What the pages of a KV cache hold: the model's own dtype, or e4m3 with scales from a file, the checkpoint, or nowhere.

A file that the operator names comes before what the checkpoint brings. Without either all scales are 1: keys and values beyond
448 are cut off and small ones lose precision, so that is said, in the log and in the metrics.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from runtime.attention.pages import SCALE_COLUMNS, allocate_pages
from runtime.errors import EngineMisconfigured
from runtime.layers.quantized import E4M3
from runtime.weights.cache_scales_file import load_cache_scales
from runtime.weights.config import ModelConfig

E4M3_CACHE = "fp8_e4m3"
Origin = Literal["none", "checkpoint", "file"]


@dataclass(frozen=True, slots=True)
class CacheFormat:
    """How numbers are kept."""

    dtype: torch.dtype
    scales: Tensor | None = None
    """[num_layers, SCALE_COLUMNS] float32 on the cache's device, where the dtype is e4m3."""
    origin: Origin = "none"
    """Of the scales."""

    @property
    def is_unscaled(self) -> bool:
        """Whether the cache is e4m3 and nobody has measured its scales."""
        return self.scales is not None and self.origin == "none"

    def allocate(self, config: ModelConfig, num_pages: int, device: torch.device) -> Tensor:
        """Uninitialized pages of it for a model, the padding page included; see `runtime.attention.pages`."""
        return allocate_pages(
            num_layers=config.num_layers,
            num_pages=num_pages,
            num_kv_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            device=device,
            dtype=self.dtype,
        )

    @property
    def name(self) -> str:
        """What tells a cache from another: the dtype, and the digest of its scales. Empty: the model's own dtype."""
        if self.scales is None:
            return ""
        content = self.scales.cpu().contiguous().numpy().tobytes()
        return f"{E4M3_CACHE} {hashlib.sha256(content).hexdigest()}"


def cache_dtype(kv_cache_dtype: str, dtype: torch.dtype) -> torch.dtype:
    """Of the pages, in a model of `dtype`. Raises: EngineMisconfigured."""
    if kv_cache_dtype not in ("auto", E4M3_CACHE):
        raise EngineMisconfigured(f"kv_cache_dtype: expected auto or {E4M3_CACHE}, found {kv_cache_dtype!r}")
    return E4M3 if kv_cache_dtype == E4M3_CACHE else dtype


def choose_cache(
    kv_cache_dtype: str,
    scales_path: str,
    config: ModelConfig,
    *,
    dtype: torch.dtype,
    device: torch.device,
    stored: Tensor | None,
) -> CacheFormat:
    """What the settings mean for a model.

    Args:
        scales_path: of a file, see `runtime.weights.cache_scales_file`; empty: none.
        stored: the checkpoint's scales, [num_layers, 2], or None.
    Raises: EngineMisconfigured for settings that contradict each other, CheckpointRejected for the file.
    """
    kind = cache_dtype(kv_cache_dtype, dtype)
    if kind != E4M3:
        if scales_path:
            raise EngineMisconfigured(
                f"quantization_param_path: has a meaning only with kv_cache_dtype {E4M3_CACHE}, found {kv_cache_dtype}"
            )
        return CacheFormat(kind)
    scales = torch.ones(config.num_layers, SCALE_COLUMNS, dtype=torch.float32)
    origin: Origin = "none"
    if scales_path:
        layers = load_cache_scales(Path(scales_path), config).layers
        scales[:, :2] = torch.tensor([[layer.key, layer.value] for layer in layers])
        origin = "file"
    elif stored is not None:
        scales[:, :2] = stored.cpu()
        origin = "checkpoint"
    return CacheFormat(E4M3, scales.to(device), origin)
