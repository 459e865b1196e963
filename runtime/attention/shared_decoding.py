"""Our kernels for decodes of which some begin with the same pages: read once for each group, see `shared_prefixes`.

Layers with a sliding window are the caller's: what their queries see of a beginning differs from sequence to sequence.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from runtime.attention.device import DeviceTables
from runtime.attention.shared_prefixes import MEMBERS
from runtime.kernels.launching import Constant, Launcher, Options

_MAX_SPLITS = 32


@dataclass(frozen=True, slots=True)
class DecodeShape:
    """What kernels over one cache know of it, and how they are launched."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    page_size: int
    tokens: int
    """Read at once; parts are multiples of it."""
    warps: int
    stages: int
    num_programs: int
    """Contexts are cut until there are so many."""
    pdl: bool

    def num_splits(self, num_sequences: int) -> int:
        """Into how many parts the contexts of so many sequences are cut."""
        return max(1, min(_MAX_SPLITS, -(-self.num_programs // (num_sequences * self.num_kv_heads))))


class SharedDecoding:
    """Over one cache.

    Args:
        scales: of a cache in e4m3, else None.
        max_sequences: 0: none of this will be called.
    """

    def __init__(
        self, pages: Tensor, scales: Tensor | None, shape: DecodeShape, launcher: Launcher, max_sequences: int
    ) -> None:
        self._pages, self._scales, self._shape, self._launcher = pages, scales, shape, launcher
        parts = max((n * sum(self._splits(n)) for n in range(1, max_sequences + 1)), default=0) * shape.num_heads
        self._partial = torch.empty(parts * shape.head_dim, dtype=torch.float32, device=pages.device)
        self._log_sums = torch.empty(parts, dtype=torch.float32, device=pages.device)

    def decode(self, layer: int, query: Tensor, out: Tensor, tables: DeviceTables, num_sequences: int) -> None:
        """Attend for the first `num_sequences` rows, one sequence each, in a layer without a window. Capture-safe."""
        shape, shared = self._shape, tables.shared
        assert shared is not None, "a step without tables of groups"
        shared_splits, own_splits = self._splits(num_sequences)
        num_groups = num_sequences // 2
        cut: dict[str, Constant] = {
            "HEADS": shape.num_heads,
            "HEAD_DIM": shape.head_dim,
            "BLOCK_DIM": _power_of_two(shape.head_dim),
            "BLOCK_TOKENS": shape.tokens,
            "SHARED_SPLITS": shared_splits,
            "OWN_SPLITS": own_splits,
            "PDL": shape.pdl,
        }
        self._launcher.launch(
            "decode_shared.split",
            (num_groups * shared_splits + num_sequences * own_splits, shape.num_kv_heads, 1),
            (
                query,
                self._pages[layer],
                self._log_sums if self._scales is None else self._scales[layer],
                tables.context_lengths,
                tables.page_starts,
                tables.page_ids,
                shared.tokens,
                shared.group_tokens,
                shared.group_members,
                self._partial,
                self._log_sums,
                num_groups,
            ),
            cut
            | {
                "KV_HEADS": shape.num_kv_heads,
                "PAGE_SIZE": shape.page_size,
                "BLOCK_ROWS": max(16, _power_of_two(MEMBERS * shape.num_heads // shape.num_kv_heads)),
                "MEMBERS": MEMBERS,
                "SOFTMAX_SCALE": shape.head_dim**-0.5,
                "SCALED": self._scales is not None,
                "STAGES": shape.stages,
            },
            Options(num_warps=shape.warps, num_stages=shape.stages, launch_pdl=shape.pdl),
        )
        splits = shared_splits + own_splits
        self._launcher.launch(
            "decode_shared.merge",
            (num_sequences, shape.num_heads, 1),
            (self._partial, self._log_sums, tables.context_lengths, shared.tokens, out),
            cut | {"BLOCK_SPLITS": _power_of_two(splits)},
            Options(num_warps=4 if splits * shape.head_dim >= 2048 else 1, launch_pdl=shape.pdl),
        )

    def _splits(self, num_sequences: int) -> tuple[int, int]:
        """Parts of what groups share, as if all groups were full, and parts of what each sequence has for itself."""
        return self._shape.num_splits(max(1, num_sequences // MEMBERS)), self._shape.num_splits(num_sequences)


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()
