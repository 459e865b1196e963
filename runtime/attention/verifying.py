"""Attention of a step that verifies drafts: so many latest positions of each sequence, in a captured graph.

Lengths are read on the device, where a step finds its sequences' places; see `runtime.batch.SpeculationBatch`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from runtime.attention.device import DevicePlan, DeviceTables
from runtime.kernels.launching import Launcher, Options

_MAX_SPLITS = 32
_BLOCK_TOKENS = 64


class VerifyAttention(Protocol):
    """Kernels over one cache; capture-safe."""

    def plan(self, device: DeviceTables, num_sequences: int, num_queries: int) -> DevicePlan:
        """For the first rows of a step: the `num_queries` latest positions of so many sequences.

        Args:
            device: `context_lengths` may go beyond a sequence's pages; nothing is read there.
        """
        ...


class TritonVerification:
    """A `VerifyAttention`; arguments as for `TritonAttention`.

    Args:
        max_queries: most positions of each sequence.
        scales: of a cache in e4m3: [num_layers, 4] float32, keys' and values' first.
    """

    def __init__(
        self,
        pages: Tensor,
        *,
        num_heads: int,
        layer_windows: Sequence[int | None],
        launcher: Launcher,
        max_queries: int,
        max_sequences: int,
        num_multiprocessors: int,
        scales: Tensor | None = None,
        pdl: bool = False,
    ) -> None:
        self._pages = pages
        self._num_heads = num_heads
        self._layer_windows = tuple(layer_windows)
        self._launcher = launcher
        self._scales = scales
        self._pdl = pdl
        self._page_size, self._num_kv_heads, self._head_dim = pages.shape[-3:]
        self._num_programs = 2 * num_multiprocessors
        counts = range(1, max_sequences + 1)
        most_parts = max((n * splits for n in counts if (splits := self._num_splits(n)) > 1), default=0)
        parts = most_parts * max_queries * num_heads
        self._partial = torch.empty(parts * self._head_dim, dtype=torch.float32, device=pages.device)
        self._log_sums = torch.empty(max(4, parts), dtype=torch.float32, device=pages.device)

    def plan(self, device: DeviceTables, num_sequences: int, num_queries: int) -> "VerifyPlan":
        """See `VerifyAttention.plan`."""
        return VerifyPlan(self, device, num_sequences, num_queries)

    def attend(self, layer: int, query: Tensor, out: Tensor, plan: "VerifyPlan") -> None:
        """Attend for the rows of a plan."""
        splits = self._num_splits(plan.num_sequences)
        window, group = self._layer_windows[layer] or 0, self._num_heads // self._num_kv_heads
        block_dim = _power_of_two(self._head_dim)
        tables = plan.tables
        self._launcher.launch(
            "verify.split",
            (plan.num_sequences, self._num_kv_heads, splits),
            (
                query,
                self._pages[layer],
                self._log_sums if self._scales is None else self._scales[layer],
                tables.context_lengths,
                tables.page_starts,
                tables.page_ids,
                out if splits == 1 else self._partial,
                self._log_sums,
            ),
            {
                "HEADS": self._num_heads,
                "KV_HEADS": self._num_kv_heads,
                "HEAD_DIM": self._head_dim,
                "PAGE_SIZE": self._page_size,
                "QUERIES": plan.num_queries,
                "BLOCK_TOKENS": _BLOCK_TOKENS,
                "BLOCK_ROWS": max(16, _power_of_two(plan.num_queries * group)),
                "BLOCK_DIM": block_dim,
                "SPLITS": splits,
                "MIN_TOKENS": _BLOCK_TOKENS,
                "WINDOW": window,
                "SOFTMAX_SCALE": self._head_dim**-0.5,
                "SCALED": self._scales is not None,
                "STAGES": 3,
                "PDL": self._pdl,
            },
            Options(num_warps=4, num_stages=3, launch_pdl=self._pdl),
        )
        if splits > 1:
            self._launcher.launch(
                "verify.merge",
                (plan.num_sequences * plan.num_queries, self._num_heads, 1),
                (self._partial, self._log_sums, out),
                {
                    "HEADS": self._num_heads,
                    "HEAD_DIM": self._head_dim,
                    "BLOCK_DIM": block_dim,
                    "SPLITS": splits,
                    "BLOCK_SPLITS": _power_of_two(splits),
                    "PDL": self._pdl,
                },
                Options(num_warps=4 if splits * self._head_dim >= 2048 else 1, launch_pdl=self._pdl),
            )

    def _num_splits(self, num_sequences: int) -> int:
        return max(1, min(_MAX_SPLITS, -(-self._num_programs // (num_sequences * self._num_kv_heads))))


@dataclass(frozen=True, slots=True)
class VerifyPlan:
    """One step, or one captured size."""

    attention: TritonVerification
    tables: DeviceTables
    num_sequences: int
    num_queries: int

    def attend(self, layer: int, query: Tensor, out: Tensor) -> None:
        """See `DevicePlan.attend`."""
        self.attention.attend(layer, query, out, self)


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()
