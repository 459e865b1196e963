"""FlashInfer behind `DeviceAttention`: decodes and prefill chunks of a step each go to the kernel that is best at them.

A step is planned once for each distinct window, not for each layer, and by the first of its layers: by then the device has that
layer's products to compute, and does not wait for the host. Decodes go to FA2, one tile of tensor cores holding
the queries of a group, or to XQA; chunks to FA3, over contexts that are gathered from their pages where that pays
(`contexts`). Where FA3 is absent the whole step is one FA2 run, decodes included, as FA2 wants its rows to begin at 0.

What always holds: plans of one `FlashInferAttention` share device memory, so a plan attends in all its layers, or its
graph is replayed, before the next is made or refreshed, all on one stream.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from runtime.attention.device import DevicePlan, DeviceTables, SequenceTables
from runtime.attention.flashinfer.block_tables import fill_block_tables
from runtime.attention.flashinfer.calls import Cache, PagedKernel, QueryKernel, Shape
from runtime.attention.flashinfer.contexts import GatheredContexts, GatheredWork
from runtime.attention.flashinfer.libraries import (
    Algorithm,
    CacheShape,
    DecodeAlgorithm,
    Libraries,
    LibraryName,
    PrefillAlgorithm,
    library_name,
    needed_libraries,
)
from runtime.attention.flashinfer.work import (
    PagedWork,
    QueryWork,
    Work,
    device_rows,
    host_rows,
    padding_sequences,
)
from runtime.attention.flashinfer.workspace import Event, PlanBuffers, partial_results_bytes, plan_bytes
from runtime.batch import Int32
from runtime.identifiers import PAGE_SIZE
from runtime.kernels.launching import Launcher
from runtime.layers.quantized import E4M3


@dataclass(frozen=True, slots=True)
class _WindowKernels:
    """The kernels of the layers with one window, and where their plans go."""

    decode: PagedKernel | QueryKernel | None
    prefill: PagedKernel
    decode_buffers: PlanBuffers
    prefill_buffers: list[PlanBuffers]
    """One for each plan of a step."""


class FlashInferPlan:
    """One step, or one captured size."""

    def __init__(
        self,
        layers: Sequence[Cache],
        layer_windows: Sequence[int | None],
        plan_work: Callable[[int | None], list[Work]],
        device: DeviceTables,
        num_captured: int = 0,
    ) -> None:
        """`plan_work` plans the layers of one window."""
        self._layers = layers
        self._layer_windows = layer_windows
        self._plan_work = plan_work
        self._work: dict[int | None, list[Work]] = {}
        self.device = device
        self.num_captured = num_captured

    def attend(self, layer: int, query: Tensor, out: Tensor) -> None:
        """See `DevicePlan.attend`. Capture-safe once its window is planned."""
        for work in self.work_of(self._layer_windows[layer]):
            work.run(self._layers[layer], query, out)

    def work_of(self, window: int | None) -> list[Work]:
        """What the layers of a window do; plans it, if that has not been done."""
        if window not in self._work:
            self._work[window] = self._plan_work(window)
        return self._work[window]


class FlashInferAttention:
    """FlashInfer over one cache on one device and stream.

    Args:
        pages: the cache, see `runtime.attention.pages`.
        num_heads: query heads.
        query_dtype: of queries and results.
        layer_windows: per layer, how many latest positions a query sees, itself included; None: all.
        max_sequences: in one step.
        max_context_length: of one sequence; rounded up to whole pages.
        num_multiprocessors: of the device.
        new_event: makes events of the device.
        launcher: of our own kernel, which gathers contexts.
        decode: None where another backend decodes, and only `plan_chunks` is called.
        scales: of a cache in e4m3, else None; see `runtime.attention.pages`. Such a cache wants `decode` None and `prefill` fa3.
    Raises: EngineMisconfigured for a shape that FlashInfer does not serve, KernelMissing for a library.
    """

    def __init__(
        self,
        pages: Tensor,
        libraries: Libraries,
        launcher: Launcher,
        *,
        num_heads: int,
        query_dtype: torch.dtype,
        layer_windows: Sequence[int | None],
        max_sequences: int,
        max_context_length: int,
        num_multiprocessors: int,
        new_event: Callable[[], Event],
        decode: DecodeAlgorithm | None = "fa2",
        prefill: PrefillAlgorithm = "fa3",
        scales: Tensor | None = None,
    ) -> None:
        assert (scales is not None) == (pages.dtype == E4M3), "e4m3 has scales, and nothing else has"
        num_kv_heads, head_dim = pages.shape[-2:]
        self._shape = CacheShape(num_heads, num_kv_heads, head_dim, query_dtype, pages.dtype, tuple(layer_windows))
        needed_libraries(self._shape, decode=decode, prefill=prefill)
        self._algorithms = decode, prefill
        self._num_multiprocessors = num_multiprocessors
        self._layers = [
            Cache(layer[:, 0], layer[:, 1], None if scales is None else scales[i]) for i, layer in enumerate(pages)
        ]
        self._partial_results = torch.empty(
            partial_results_bytes(
                num_heads=num_heads,
                num_kv_heads=num_kv_heads,
                head_dim=head_dim,
                max_sequences=max_sequences,
                num_multiprocessors=num_multiprocessors,
            ),
            dtype=torch.uint8,
            device=pages.device,
        )
        self._semaphores = torch.zeros(max_sequences * num_kv_heads, dtype=torch.int32, device=pages.device)
        self._block_tables = torch.zeros(
            max_sequences, -(-max_context_length // PAGE_SIZE), dtype=torch.int32, device=pages.device
        )
        self._contexts = None
        if prefill == "fa3":
            self._contexts = GatheredContexts(
                pages, launcher, dtype=query_dtype, layer_windows=layer_windows, max_sequences=max_sequences,
                max_context_length=max_context_length,
            )  # fmt: skip
        self._kernels = {w: self._build_kernels(w, libraries, new_event) for w in dict.fromkeys(layer_windows)}

    def _build_kernels(
        self, window: int | None, libraries: Libraries, new_event: Callable[[], Event]
    ) -> _WindowKernels:
        decode, prefill = self._algorithms
        shape = Shape(self._shape.num_heads, self._shape.num_kv_heads, self._shape.head_dim, window)

        def library(algorithm: Algorithm) -> LibraryName:
            return library_name(self._shape, algorithm, windowed=window is not None)

        def paged(algorithm: Algorithm, *, causal: bool) -> PagedKernel:
            return PagedKernel(library(algorithm), libraries, shape, self._partial_results, causal=causal)

        def buffers() -> PlanBuffers:
            return PlanBuffers(plan_bytes(shape.num_heads), self._partial_results.device, new_event)

        decoder: PagedKernel | QueryKernel | None = None
        if decode == "fa2":
            decoder = paged("fa2", causal=False)
        elif decode == "xqa":
            decoder = QueryKernel(
                library("xqa"),
                libraries,
                shape,
                num_multiprocessors=self._num_multiprocessors,
                semaphores=self._semaphores,
                scratch=self._partial_results,
            )
        return _WindowKernels(
            decode=decoder,
            prefill=paged(prefill, causal=True),
            decode_buffers=buffers(),
            prefill_buffers=[buffers() for _ in range(1 if self._contexts is None else self._contexts.max_spans)],
        )

    def plan(self, host: SequenceTables, device: DeviceTables) -> FlashInferPlan:
        """See `DeviceAttention.plan`."""
        num_sequences = len(host.context_lengths)
        # FA2 for chunks wants all rows, so it takes the decodes along.
        num_decodes = host.num_decodes if self._algorithms[1] == "fa3" or num_sequences == host.num_decodes else 0
        if num_decodes and self._algorithms[0] == "xqa":
            fill_block_tables(self._block_tables[:num_decodes], device)

        def plan_work(window: int | None) -> list[Work]:
            kernels, work = self._kernels[window], []
            if num_decodes:
                work.append(self._decode_work(kernels, host, device, num_decodes, captured=False))
            if num_sequences > num_decodes:
                work += self._chunk_work(kernels, host, device, num_decodes)
            return work

        return FlashInferPlan(self._layers, self._shape.layer_windows, plan_work, device)

    def takes_chunks(self, host: SequenceTables) -> bool:
        """Whether `plan_chunks` is for this step: pages in e4m3 are read only where it pays to gather them."""
        if self._contexts is None or self._shape.cache_dtype != E4M3:
            return True
        return bool(self._contexts.spans(host, host.num_decodes))

    def plan_chunks(self, host: SequenceTables, device: DeviceTables) -> FlashInferPlan:
        """Plan the chunks of a step alone, by FA3; its decodes are another backend's. See `takes_chunks`."""
        assert self._algorithms[1] == "fa3", "FA2 wants all rows of a step"

        def plan_work(window: int | None) -> list[Work]:
            return self._chunk_work(self._kernels[window], host, device, host.num_decodes)

        return FlashInferPlan(self._layers, self._shape.layer_windows, plan_work, device)

    def plan_capture(self, device: DeviceTables, num_sequences: int) -> FlashInferPlan:
        """See `DeviceAttention.plan_capture`."""
        host = padding_sequences(num_sequences)
        if self._algorithms[0] == "xqa":
            fill_block_tables(self._block_tables[:num_sequences], device)

        def plan_work(window: int | None) -> list[Work]:
            return [self._decode_work(self._kernels[window], host, device, num_sequences, captured=True)]

        plan = FlashInferPlan(self._layers, self._shape.layer_windows, plan_work, device, num_sequences)
        for window in self._kernels:  # It copies, which a capture must not.
            plan.work_of(window)
        return plan

    def share(self, page_tables: Int32, context_lengths: Int32) -> None:
        """None: its decodes read each their own."""

    def plan_shared(self, device: DeviceTables, num_sequences: int) -> None:
        """See `share`."""

    def refresh(self, plan: DevicePlan, host: SequenceTables) -> None:
        """See `DeviceAttention.refresh`.

        Raises: RuntimeError if FlashInfer lays a plan out otherwise than when it was captured, which it must not.
        """
        assert isinstance(plan, FlashInferPlan)
        assert plan.num_captured == len(host.context_lengths)
        if self._algorithms[0] == "xqa":
            fill_block_tables(self._block_tables[: plan.num_captured], plan.device)
            return
        for window, kernels in self._kernels.items():
            (captured,) = plan.work_of(window)
            again = self._decode_work(kernels, host, plan.device, plan.num_captured, captured=True)
            assert isinstance(captured, PagedWork)
            assert isinstance(again, PagedWork)
            if list(captured.description) != list(again.description):
                raise RuntimeError(f"the plan of {plan.num_captured} captured decodes changed its layout")

    def _decode_work(
        self, kernels: _WindowKernels, host: SequenceTables, device: DeviceTables, count: int, *, captured: bool
    ) -> Work:
        tables = device_rows(device, 0, count)
        if isinstance(kernels.decode, QueryKernel):
            return QueryWork(kernels.decode, self._block_tables[:count], tables.context_lengths)
        assert kernels.decode is not None
        buffers = kernels.decode_buffers
        description = kernels.decode.plan(host_rows(host, 0, count), buffers, captured=captured)
        return PagedWork(kernels.decode, description, buffers, tables, count)

    def _chunk_work(
        self, kernels: _WindowKernels, host: SequenceTables, device: DeviceTables, first: int
    ) -> list[Work]:
        """The sequences from `first` on; FA3 takes the places of their rows from the plan."""
        kernel, contexts = kernels.prefill, self._contexts
        spans = [] if contexts is None else contexts.spans(host, first)
        if contexts is None or not spans:
            assert self._shape.cache_dtype != E4M3, "chunks that this does not take"
            count, buffers = len(host.context_lengths), kernels.prefill_buffers[0]
            description = kernel.plan(host_rows(host, first, count), buffers, captured=False)
            return [PagedWork(kernel, description, buffers, device_rows(device, first, count), None)]
        work: list[Work] = []
        for span, buffers in zip(spans, kernels.prefill_buffers, strict=False):
            description = kernel.plan(contexts.tables(host, span), buffers, captured=False)
            work.append(GatheredWork(kernel, description, buffers, contexts, device, span))
        return work


def build_flashinfer_attention(
    pages: Tensor,
    libraries: Libraries,
    launcher: Launcher,
    *,
    num_heads: int,
    query_dtype: torch.dtype,
    layer_windows: Sequence[int | None],
    max_sequences: int,
    max_context_length: int,
    decode: DecodeAlgorithm | None = "fa2",
    prefill: PrefillAlgorithm = "fa3",
    scales: Tensor | None = None,
) -> FlashInferAttention:
    """FlashInfer on the GPU that holds `pages`; arguments and errors as `FlashInferAttention`."""
    return FlashInferAttention(
        pages,
        libraries,
        launcher,
        num_heads=num_heads,
        query_dtype=query_dtype,
        layer_windows=layer_windows,
        max_sequences=max_sequences,
        max_context_length=max_context_length,
        num_multiprocessors=torch.cuda.get_device_properties(pages.device).multi_processor_count,
        new_event=torch.cuda.Event,
        decode=decode,
        prefill=prefill,
        scales=scales,
    )
