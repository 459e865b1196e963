"""The interface between a step and the kernels that attend over its pages.

A backend is built once, over the cache tensor. For each step it makes a plan from host arrays, which is all host work
it ever does; the plan is then called once a layer. A plan is its own object, so that a step can be planned while the one
before still runs.
"""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from runtime.batch import Int32, Int64


@dataclass(frozen=True, slots=True)
class Tails:
    """Where the last positions of sequences lie, if not where their page tables say: of rows of a tree, among other branches."""

    slots: Int64
    """[num_sequences, longest]; a sequence's last columns count, and the last is its last position's."""
    lengths: Int64
    """[num_sequences]; how many; 0: none."""


@dataclass(frozen=True, slots=True)
class AttentionBatch:
    """What attention needs of a step, on the host.

    `query_starts`, `context_lengths` and `page_tables` as in `StepBatch`. The tensors of the step have `num_rows` rows,
    of which some may be padding; `rows` says where each token stands.
    """

    query_starts: Int32
    context_lengths: Int32
    page_tables: Int32
    rows: Int64
    """[num_tokens], each below num_rows."""
    num_rows: int
    slots: Int64
    """[num_rows]; for padding rows a slot of page 0."""
    tails: Tails | None = None


class AttentionPlan(Protocol):
    """One step, ready to attend."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Store the rows' keys and values, then attend causally over each row's own sequence.

        Args:
            layer: which slice of the cache.
            query: [num_rows, num_heads, head_dim], rotated, not scaled.
            key, value: [num_rows, num_kv_heads, head_dim].
        Returns: [num_rows, num_heads, head_dim], contiguous; padding rows hold zeros.
        """
        ...


class AttentionBackend(Protocol):
    """Kernels over one cache."""

    def plan(self, batch: AttentionBatch) -> AttentionPlan:
        """Prepare one step."""
        ...
