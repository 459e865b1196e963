"""Attention where a row's result must not depend on the step that it is in (`deterministic`), by kernels of its own.

The keys that a row sees are added up in parts that begin at multiples of PART_TOKENS, and the parts in their order, whatever
chunk the row came in. A decode is a chunk of one, and drafts are verified as a chunk of a few: so a token has the same keys
and values whether it was generated, was part of a prompt, or was computed again after a retraction. Who adds up a part is
another matter: with few rows the parts of a context are shared among programs, with many each program goes through all of
them, and the bits are the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from runtime.attention.beside import OneByOne
from runtime.attention.device import DevicePlan, DeviceTables, SequenceTables
from runtime.attention.shared_prefixes import SharedPrefixes
from runtime.attention.verifying import TreeRows
from runtime.batch import Int32
from runtime.kernels.launching import Constant, Launcher, Options
from runtime.layers.quantized import E4M3

PART_TOKENS = 512
_BLOCK_ROWS = 64
"""Queries times heads of a group."""
_BLOCK_TOKENS = 64
_STAGES = 2
_PROGRAMS_PER_MULTIPROCESSOR = 2
"""Contexts are shared among programs until there are so many."""
_MAX_PARTS_BYTES = 128 << 20
"""Of what programs leave of parts."""


class InvariantAttention:
    """A `DeviceAttention`, and a `ChunkAttention` of engines with drafts, which `InvariantRows` verifies.

    Args:
        pages: the cache, see `pages`.
        num_heads: query heads.
        layer_windows: per layer, how many latest positions a query sees, itself included; None: all.
        launcher: how kernels are launched.
        max_context_length: of a sequence, in tokens.
        num_multiprocessors: of the device.
        scales: of a cache in e4m3, else None; see `pages`.
        pdl: whether the kernels around take part in programmatic dependent launch.
    """

    def __init__(
        self,
        pages: Tensor,
        *,
        num_heads: int,
        layer_windows: Sequence[int | None],
        launcher: Launcher,
        max_context_length: int,
        num_multiprocessors: int,
        scales: Tensor | None = None,
        pdl: bool = False,
    ) -> None:
        assert (scales is not None) == (pages.dtype == E4M3), "e4m3 has scales, and nothing else has"
        self.beside = OneByOne()
        """Of chunks and of who attends before them: both use the same memory for parts."""
        self._pages = pages
        self._num_heads = num_heads
        self._layer_windows = tuple(layer_windows)
        self._launcher = launcher
        self._scales = scales
        self._pdl = pdl
        self._page_size, self._num_kv_heads, self._head_dim = pages.shape[-3:]
        self.block_queries = max(1, _BLOCK_ROWS * self._num_kv_heads // num_heads)
        """Queries of a tile."""
        self._num_programs = _PROGRAMS_PER_MULTIPROCESSOR * num_multiprocessors
        self._num_parts = -(-max_context_length // PART_TOKENS)
        row_bytes = 4 * num_heads * self._num_parts * (self._head_dim + 2)
        # Of tiles that have two programs or more for each key head.
        most_rows = self._num_programs // (2 * self._num_kv_heads) * self.block_queries
        self._max_rows = min(most_rows, _MAX_PARTS_BYTES // row_bytes) if self._num_parts > 1 else 0
        parts = self._max_rows * num_heads * self._num_parts
        self._partial = torch.empty(max(4, parts * self._head_dim), dtype=torch.float32, device=pages.device)
        self._weights = torch.empty(max(4, parts * 2), dtype=torch.float32, device=pages.device)

    @property
    def parts_bytes(self) -> int:
        """What programs leave of parts takes so much memory."""
        return self._partial.nbytes + self._weights.nbytes

    def plan(self, host: SequenceTables, device: DeviceTables) -> "InvariantPlan":
        """See `DeviceAttention.plan`."""
        return self._plan_from(0, host, device)

    def plan_chunks(self, host: SequenceTables, device: DeviceTables) -> "InvariantPlan":
        """See `ChunkAttention.plan_chunks`."""
        return self._plan_from(host.num_decodes, host, device)

    def plan_capture(self, device: DeviceTables, num_sequences: int) -> "InvariantPlan":
        """See `DeviceAttention.plan_capture`."""
        return self.plan_rows(device, num_sequences, 1)

    def plan_rows(self, device: DeviceTables, num_sequences: int, num_queries: int) -> "InvariantPlan":
        """For the first rows of a step, `num_queries` of each sequence. Tiles are as many as the kernel's numbering has."""
        num_rows = num_sequences * num_queries
        return InvariantPlan(self, device, 0, num_sequences, num_rows, num_rows // self.block_queries + num_sequences)

    def share(self, page_tables: Int32, context_lengths: Int32) -> SharedPrefixes | None:
        """None: what is read for several is added up in another order."""

    def plan_shared(self, device: DeviceTables, num_sequences: int) -> DevicePlan | None:
        """None, as in `share`."""

    def refresh(self, plan: DevicePlan, host: SequenceTables) -> None:
        """Nothing: the device computes all that differs between replays."""

    def attend(self, layer: int, query: Tensor, out: Tensor, plan: "InvariantPlan") -> None:
        """Attend for the rows of a plan."""
        programs = self.programs_for(plan)
        num_parts = self._num_parts if programs > 1 else 0
        # What is absent is never read, but has to be a pointer of a known type.
        scales = self._weights if self._scales is None else self._scales[layer]
        tables, span = plan.tables, (plan.first_sequence, plan.num_sequences, num_parts)
        shape: dict[str, Constant] = {
            "HEADS": self._num_heads,
            "HEAD_DIM": self._head_dim,
            "PAGE_SIZE": self._page_size,
            "BLOCK_DIM": _power_of_two(self._head_dim),
            "PART_TOKENS": PART_TOKENS,
            "WINDOW": self._layer_windows[layer] or 0,
            "SCALED": self._scales is not None,
            "PDL": self._pdl,
        }
        group = self._num_heads // self._num_kv_heads
        self._launcher.launch(
            "invariant_attention.attend",
            (plan.num_tiles, self._num_kv_heads, programs),
            (
                query,
                self._pages[layer],
                scales,
                tables.query_starts,
                tables.context_lengths,
                tables.page_starts,
                tables.page_ids,
                out,
                self._partial,
                self._weights,
                *span,
            ),
            shape
            | {
                "KV_HEADS": self._num_kv_heads,
                "BLOCK_QUERIES": self.block_queries,
                "BLOCK_ROWS": max(16, _power_of_two(self.block_queries * group)),
                "BLOCK_TOKENS": _BLOCK_TOKENS,
                "SOFTMAX_SCALE": self._head_dim**-0.5,
                "STAGES": _STAGES,
            },
            Options(num_warps=8 if self._head_dim > 128 else 4, num_stages=_STAGES, launch_pdl=self._pdl),
        )
        if programs > 1:
            self._launcher.launch(
                "invariant_attention.join",
                (plan.num_rows, self._num_heads, 1),
                (
                    self._partial,
                    self._weights,
                    scales,
                    tables.query_starts,
                    tables.context_lengths,
                    tables.page_starts,
                    out,
                    *span,
                ),
                shape,
                Options(num_warps=1, launch_pdl=self._pdl),
            )

    def _plan_from(self, first: int, host: SequenceTables, device: DeviceTables) -> "InvariantPlan":
        count, begin = len(host.context_lengths), int(host.query_starts[first])
        num_rows = int(host.query_starts[-1])
        num_tiles = num_rows // self.block_queries + count - (begin // self.block_queries + first)
        return InvariantPlan(self, device, first, count, num_rows - begin, num_tiles)

    def programs_for(self, plan: "InvariantPlan") -> int:
        """For each tile; 1: no parts are shared."""
        if plan.num_rows > self._max_rows:
            return 1
        return max(1, min(self._num_parts, self._num_programs // (plan.num_tiles * self._num_kv_heads)))


class InvariantRows:
    """A `VerifyAttention`, of chains."""

    def __init__(self, attention: InvariantAttention) -> None:
        self._attention = attention

    def plan(
        self, device: DeviceTables, num_sequences: int, num_queries: int, tree: TreeRows | None = None
    ) -> "InvariantPlan":
        """See `VerifyAttention.plan`."""
        assert tree is None, "a deterministic engine with trees"
        return self._attention.plan_rows(device, num_sequences, num_queries)


@dataclass(frozen=True, slots=True)
class InvariantPlan:
    """One step, or one captured size."""

    attention: InvariantAttention
    tables: DeviceTables
    first_sequence: int
    num_sequences: int
    """Of the step, those before the first included."""
    num_rows: int
    num_tiles: int

    def attend(self, layer: int, query: Tensor, out: Tensor) -> None:
        """See `DevicePlan.attend`."""
        self.attention.attend(layer, query, out, self)


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()
