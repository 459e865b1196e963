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
_TREE_ROWS = 64
"""Queries of a program where they are nodes of trees, of which there may be many more than of a chain."""


@dataclass(frozen=True, slots=True)
class TreeRows:
    """What the rows of trees see, where these are not in order; all int32, on the device.

    A tree takes the places from its base on; what is before them every row sees.
    """

    words: Tensor
    """[num_rows, ceil(most places / 32)]; bit i: the row sees the i-th place behind the base."""
    depths: Tensor | None
    """[num_rows]; positions behind the base's; each row's place has the row's own. None: there is no window."""
    bases: Tensor
    """[num_sequences]"""
    ends: Tensor
    """[num_sequences]; places to be read at most: no more than the tree takes and the sequence's pages hold."""


class VerifyAttention(Protocol):
    """Kernels over one cache; capture-safe."""

    def plan(
        self, device: DeviceTables, num_sequences: int, num_queries: int, tree: TreeRows | None = None
    ) -> DevicePlan:
        """For the first rows of a step: the `num_queries` latest positions of so many sequences.

        Args:
            device: `context_lengths` may go beyond a sequence's pages; nothing is read there. With a tree they are not read.
            tree: of rows that are nodes of trees; None: positions follow each other.
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

    def plan(
        self, device: DeviceTables, num_sequences: int, num_queries: int, tree: TreeRows | None = None
    ) -> "VerifyPlan":
        """See `VerifyAttention.plan`."""
        return VerifyPlan(self, device, num_sequences, num_queries, tree)

    def attend(self, layer: int, query: Tensor, out: Tensor, plan: "VerifyPlan") -> None:
        """Attend for the rows of a plan."""
        splits = self._num_splits(plan.num_sequences)
        window, group = self._layer_windows[layer] or 0, self._num_heads // self._num_kv_heads
        tables, tree, lengths = plan.tables, plan.tree, plan.tables.context_lengths
        # What is absent is never read, but has to be a pointer of a known type.
        words, depths, bases, num_words, row_blocks = lengths, lengths, lengths, 0, 1
        block_rows = max(16, _power_of_two(plan.num_queries * group))
        if tree is not None:
            words, bases, lengths, num_words = tree.words, tree.bases, tree.ends, tree.words.shape[1]
            assert tree.depths is not None or not window
            depths = words if tree.depths is None else tree.depths
            block_rows = min(_TREE_ROWS, block_rows)
            row_blocks = -(-plan.num_queries * group // block_rows)
        self._launcher.launch(
            "verify.split",
            (plan.num_sequences * row_blocks, self._num_kv_heads, splits),
            (
                query,
                self._pages[layer],
                self._log_sums if self._scales is None else self._scales[layer],
                lengths,
                tables.page_starts,
                tables.page_ids,
                words,
                depths,
                bases,
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
                "BLOCK_ROWS": block_rows,
                "BLOCK_DIM": _power_of_two(self._head_dim),
                "SPLITS": splits,
                "MIN_TOKENS": _BLOCK_TOKENS,
                "WINDOW": window,
                "SOFTMAX_SCALE": self._head_dim**-0.5,
                "SCALED": self._scales is not None,
                "WORDS": num_words,
                "ROW_BLOCKS": row_blocks,
                "STAGES": 3,
                "PDL": self._pdl,
            },
            Options(num_warps=4, num_stages=3, launch_pdl=self._pdl),
        )
        if splits > 1:
            self._merge(out, plan.num_sequences * plan.num_queries, splits)

    def _merge(self, out: Tensor, num_rows: int, splits: int) -> None:
        """Weigh what the parts of each row's keys gave."""
        self._launcher.launch(
            "verify.merge",
            (num_rows, self._num_heads, 1),
            (self._partial, self._log_sums, out),
            {
                "HEADS": self._num_heads,
                "HEAD_DIM": self._head_dim,
                "BLOCK_DIM": _power_of_two(self._head_dim),
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
    tree: TreeRows | None = None

    def attend(self, layer: int, query: Tensor, out: Tensor) -> None:
        """See `DevicePlan.attend`."""
        self.attention.attend(layer, query, out, self)


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()
