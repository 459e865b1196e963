"""FlashInfer's libraries: what each is called, and what Casemate asks of one.

A library is FlashInfer's source compiled for one algorithm and one set of types; it exports functions through tvm-ffi.
Neither FlashInfer's Python nor a compiler is needed to call it. Names are ours, so that nothing here follows a change of
FlashInfer's own; the build maps them to its recipes.

- `fa2`: `plan`, `paged_run`; FlashAttention 2 with queries of a group in one tile and keys split over blocks.
- `fa3`: `plan`, `paged_run`; FlashAttention 3 on Hopper's tensor cores, faster for long queries.
- `xqa`: `xqa_wrapper`; one query a sequence, lengths and pages read on the device, no plan.

Source: FlashInfer 0.6.14, `csrc/batch_prefill*.cu`, `csrc/xqa/`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch

from runtime.errors import EngineMisconfigured
from runtime.layers.quantized import E4M3

Algorithm = Literal["fa2", "fa3", "xqa"]
DecodeAlgorithm = Literal["fa2", "xqa"]
PrefillAlgorithm = Literal["fa2", "fa3"]

TYPE_NAMES = {torch.float16: "f16", torch.bfloat16: "bf16", torch.float8_e4m3fn: "e4m3"}
HEAD_DIMS = (64, 128, 256)


class Libraries(Protocol):
    """Where compiled libraries come from: a folder, or a frozen bundle."""

    def function(self, library: str, name: str) -> Callable[..., Any]:
        """An exported function. It runs on torch's current stream of the tensors' device.

        Raises: KernelMissing, naming the library.
        """
        ...


@dataclass(frozen=True, slots=True)
class LibraryName:
    """What a library was compiled for."""

    algorithm: Algorithm
    query_type: str
    cache_type: str
    head_dim: int
    windowed: bool
    group_size: int = 0
    """Query heads per key head; a part of XQA's libraries only."""

    def __str__(self) -> str:
        group = f"_g{self.group_size}" if self.group_size else ""
        window = "_window" if self.windowed else ""
        return f"{self.algorithm}_{self.query_type}_{self.cache_type}_d{self.head_dim}{group}{window}"


@dataclass(frozen=True, slots=True)
class CacheShape:
    """What of a model and its cache decides which libraries are needed."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    query_dtype: torch.dtype
    cache_dtype: torch.dtype
    layer_windows: tuple[int | None, ...]


def needed_libraries(
    shape: CacheShape, *, decode: DecodeAlgorithm | None = "fa2", prefill: PrefillAlgorithm = "fa3"
) -> tuple[LibraryName, ...]:
    """The libraries of a configuration, sorted by name. A cache in e4m3 is for chunks by `fa3` alone, which gathers it.

    Raises: EngineMisconfigured for a shape or type that FlashInfer does not serve.
    """
    if shape.head_dim not in HEAD_DIMS:
        raise EngineMisconfigured(f"attention: FlashInfer has head sizes {HEAD_DIMS}, the model has {shape.head_dim}")
    if shape.query_dtype not in (torch.float16, torch.bfloat16):
        raise EngineMisconfigured(f"attention: FlashInfer wants float16 or bfloat16, found {shape.query_dtype}")
    if shape.cache_dtype != shape.query_dtype and (shape.cache_dtype != E4M3 or decode is not None or prefill != "fa3"):
        raise EngineMisconfigured(f"attention: expected a cache of {shape.query_dtype}, found {shape.cache_dtype}")
    names = {
        library_name(shape, algorithm, windowed=window is not None)
        for algorithm in {decode or prefill, prefill}
        for window in set(shape.layer_windows)
    }
    return tuple(sorted(names, key=str))


def library_name(shape: CacheShape, algorithm: Algorithm, *, windowed: bool) -> LibraryName:
    """The library that runs this algorithm on such a model and cache."""
    query = TYPE_NAMES[shape.query_dtype]
    cache = query if algorithm == "fa3" else TYPE_NAMES[shape.cache_dtype]
    group = shape.num_heads // shape.num_kv_heads if algorithm == "xqa" else 0
    return LibraryName(algorithm, query, cache, shape.head_dim, windowed, group)
