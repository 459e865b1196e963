"""FlashInfer's functions with their whole argument lists, which change from version to version: here and nowhere else.

Everything a kernel needs beyond a step's own tensors is fixed once, in the constructors. A plan's description is opaque:
FlashInfer gives it and takes it back.

Source: FlashInfer 0.6.14, `csrc/batch_prefill_jit_binding.cu`, `csrc/batch_prefill_sm90_jit_binding.cu`,
`csrc/flashinfer_xqa_binding.cu`.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from runtime.attention.device import DeviceTables
from runtime.attention.flashinfer.libraries import Libraries, LibraryName
from runtime.attention.flashinfer.workspace import PlanBuffers
from runtime.identifiers import PAGE_SIZE

_NOT_CAUSAL, _CAUSAL = 0, 1
_NHD = 0
_NO_MASKS_FA2: tuple[object, ...] = (None,) * 8
_NO_MASKS_FA3: tuple[object, ...] = (None,) * 4
"""Masks, slopes, item positions and scales as tensors."""
_NO_SOFT_CAP = 0.0
_VALUE_SCALE = 1.0
_ROPE_RCP_SCALE, _ROPE_RCP_THETA = 1.0, 1e-4
"""Without effect, as positions are not encoded by attention."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What all layers with one window have in common."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    window: int | None
    """How many latest positions a query sees, itself included; None: all."""

    @property
    def window_left(self) -> int:
        """The same as FlashInfer counts it: positions before the query's own; -1: all."""
        return -1 if self.window is None else self.window - 1


@dataclass(frozen=True, slots=True)
class HostTables:
    """Sequences of one plan, int32 tensors on the CPU. Starts may begin above 0, within the whole step's arrays.

    For gathered contexts `page_starts` are tokens.
    """

    query_starts: Tensor
    context_lengths: Tensor
    page_starts: Tensor


@dataclass(frozen=True, slots=True)
class Cache:
    """One layer's pages, each [num_pages, PAGE_SIZE, num_kv_heads, head_dim], with the strides of the whole cache; or what was
    gathered from them, each [num_tokens, num_kv_heads, head_dim]."""

    keys: Tensor
    values: Tensor
    scales: Tensor | None = None
    """Of pages in e4m3, see `runtime.attention.pages`."""


class PagedKernel:
    """FA2 or FA3: planned on the host, then run in each layer, over pages or, by FA3, over gathered contexts.

    Args:
        partial_results: float32 room on the device for keys split over blocks; shared by all plans of a stream.
        causal: False is faster where each sequence has one query, which sees all keys.
    """

    def __init__(
        self, library: LibraryName, libraries: Libraries, shape: Shape, partial_results: Tensor, *, causal: bool
    ) -> None:
        self._plan = libraries.function(str(library), "plan")
        self._run = libraries.function(str(library), "paged_run")
        self._run_gathered = libraries.function(str(library), "ragged_run") if library.algorithm == "fa3" else None
        self._shape = shape
        self._partial_results = partial_results
        self._causal = causal
        scale = shape.head_dim**-0.5
        if library.algorithm == "fa2":
            self._plan_tail: tuple[object, ...] = (-1, False, 0)  # split size: its choice; split; no blocks set apart
            self._run_tail = (*_NO_MASKS_FA2, _NO_SOFT_CAP, scale, _ROPE_RCP_SCALE, _ROPE_RCP_THETA, 0)
        else:
            self._plan_tail = ()
            self._run_tail = (*_NO_MASKS_FA3, _NO_SOFT_CAP, scale, _VALUE_SCALE, 0)

    def plan(self, tables: HostTables, buffers: PlanBuffers, *, captured: bool) -> Any:
        """Cut the work over the device's blocks; enqueues one copy. Not capture-safe.

        Args:
            captured: for a graph; then whatever the lengths, equal numbers of sequences give equal descriptions.
        Returns: the plan's description for `run`.
        """
        num_sequences = len(tables.context_lengths)
        num_rows = int(tables.query_starts[-1]) - int(tables.query_starts[0])
        with buffers.staging() as staging:
            return self._plan(
                self._partial_results,
                buffers.on_device,
                staging,
                tables.query_starts,
                tables.page_starts,
                tables.context_lengths,
                num_rows,
                num_sequences,
                self._shape.num_heads,
                self._shape.num_kv_heads,
                PAGE_SIZE,
                captured,
                self._shape.head_dim,
                self._shape.head_dim,
                self._causal,
                self._shape.window_left,
                *self._plan_tail,
            )

    def run(
        self, plan: Any, buffers: PlanBuffers, cache: Cache, tables: DeviceTables, query: Tensor, out: Tensor
    ) -> None:
        """Attend in one layer. Capture-safe.

        Args:
            tables: of the plan's sequences, exactly.
            query, out: [num_rows, num_heads, head_dim]; FA2 wants the rows of its sequences only, from row 0.
        """
        self._run(
            self._partial_results,
            buffers.on_device,
            plan,
            query,
            cache.keys,
            cache.values,
            tables.query_starts,
            tables.page_starts,
            tables.page_ids,
            tables.last_page_lengths,
            out,
            None,
            _CAUSAL if self._causal else _NOT_CAUSAL,
            _NHD,
            self._shape.window_left,
            True,
            *self._run_tail,
        )

    def run_gathered(
        self, plan: Any, buffers: PlanBuffers, contexts: Cache, query_starts: Tensor, query: Tensor, out: Tensor
    ) -> None:
        """The same by FA3 over straight runs of keys and values, planned with `page_starts` that count their tokens.

        The tensor memory accelerator reads whole tiles of 128 tokens, past the end of a context as well: what is there has no
        weight, but must be finite.

        Args:
            contexts: each [num_tokens, num_kv_heads, head_dim].
        """
        assert self._run_gathered is not None, "FA2 reads pages"
        self._run_gathered(
            self._partial_results,
            buffers.on_device,
            plan,
            query,
            contexts.keys,
            contexts.values,
            query_starts,
            query_starts,  # where contexts begin is read from the plan, and from this nowhere
            out,
            None,
            _CAUSAL if self._causal else _NOT_CAUSAL,
            _NHD,
            self._shape.window_left,
            True,
            *self._run_tail,
        )


class QueryKernel:
    """XQA: one query a sequence, nothing planned.

    Args:
        num_multiprocessors: of the device.
        semaphores: uint32 zeros on the device, one for each key head of each sequence; the kernel leaves zeros.
        scratch: room on the device for keys split over blocks.
    """

    def __init__(
        self,
        library: LibraryName,
        libraries: Libraries,
        shape: Shape,
        *,
        num_multiprocessors: int,
        semaphores: Tensor,
        scratch: Tensor,
    ) -> None:
        self._run = libraries.function(str(library), "xqa_wrapper")
        self._shape = shape
        self._uses_fp8_products = library.cache_type == "e4m3"
        self._num_multiprocessors = num_multiprocessors
        self._semaphores = semaphores
        self._scratch = scratch

    def run(self, cache: Cache, block_tables: Tensor, context_lengths: Tensor, query: Tensor, out: Tensor) -> None:
        """Attend in one layer. Capture-safe; `block_tables` and lengths are read on the device.

        Args:
            block_tables: [num_sequences, max_pages] int32, contiguous.
            context_lengths: [num_sequences] int32.
            query, out: [num_sequences, num_heads, head_dim].
        """
        num_sequences, max_pages = block_tables.shape
        no_tensor = None
        self._run(
            self._uses_fp8_products,
            self._num_multiprocessors,
            self._shape.num_kv_heads,
            self._shape.window or 0,
            1.0,  # beside 1 / sqrt(head_dim)
            no_tensor,
            out,
            1.0,
            query,
            no_tensor,
            cache.keys,
            cache.values,
            no_tensor,
            no_tensor,
            block_tables,
            max_pages * PAGE_SIZE,
            context_lengths,
            num_sequences,
            1.0,
            no_tensor,
            1,
            no_tensor,
            self._semaphores,
            self._scratch,
            True,
        )
