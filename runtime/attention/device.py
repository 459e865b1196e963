"""The interface of attention on a GPU, where steps are replayed as captured graphs.

It differs from `backend` in three ways. Keys and values are in the cache already when a plan attends (the kernel that
rotates them writes them). The tables of a step lie at fixed device addresses, which the runner fills by one copy a step.
And a plan may be captured: then it is refreshed before each replay by whatever the host has to compute, if anything.

Page tables are in compressed rows, as FlashInfer takes them: sequence i owns `page_ids[page_starts[i]:page_starts[i + 1]]`.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from runtime.batch import Int32
from runtime.kernels.rotary import HeadNorms


@dataclass(frozen=True, slots=True)
class SequenceTables:
    """The sequences of a step on the host; those with one query (decodes) come first."""

    query_starts: Int32
    """[num_sequences + 1]"""
    context_lengths: Int32
    """[num_sequences]; at least 1, new tokens included."""
    page_starts: Int32
    """[num_sequences + 1]"""
    page_ids: Int32
    """[page_starts[-1]]"""
    num_decodes: int
    """The first so many sequences have exactly one query each; every other is a prefill chunk."""


@dataclass(frozen=True, slots=True)
class DeviceTables:
    """The same on the device, int32, at addresses that never change. Entries beyond the step's own are undefined."""

    query_starts: Tensor
    context_lengths: Tensor
    page_starts: Tensor
    page_ids: Tensor
    last_page_lengths: Tensor
    """[num_sequences]; tokens in each sequence's last page, 1 to PAGE_SIZE; on the host, plans derive it themselves."""


class DevicePlan(Protocol):
    """One step, or one captured size, ready to attend."""

    def attend(self, layer: int, query: Tensor, out: Tensor) -> None:
        """Attend causally over each sequence's pages, its new tokens included, which are in the cache already.

        Args:
            layer: which slice of the cache.
            query: [num_tokens, num_heads, head_dim], rotated, not scaled, contiguous.
            out: as `query`; rows of no sequence are left alone.
        """
        ...


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a layer does to projected heads before they ask and are cached."""

    cosines: Tensor
    """[num_positions, head_dim], as `sines`; see `runtime.layers.rotary.RotaryTable`."""
    sines: Tensor
    head_norms: HeadNorms | None


@runtime_checkable
class ProjectedPlan(Protocol):
    """A captured size whose attention begins with the projection: it turns queries and keys, and caches, by itself.

    Only for steps in which no sequence reads a slot that another one writes, and positions follow from contexts' lengths.
    """

    def attend_projected(self, layer: int, heads: Tensor, rotation: Rotation, out: Tensor) -> None:
        """Turn the rows' heads, store their keys and values, and attend.

        Args:
            layer: which slice of the cache.
            heads: [num_sequences, (num_heads + 2 * num_kv_heads) * head_dim]: queries, keys, values, contiguous.
            out: [num_sequences, num_heads, head_dim].
        """
        ...


class DeviceAttention(Protocol):
    """Kernels over one cache. Everything is enqueued on the current stream; nothing waits for the device."""

    def plan(self, host: SequenceTables, device: DeviceTables) -> DevicePlan:
        """Prepare a step that runs outside a graph: decodes and prefill chunks mixed."""
        ...

    def plan_capture(self, device: DeviceTables, num_sequences: int) -> DevicePlan:
        """A plan for a graph of `num_sequences` decodes. What differs between replays is read from the device.

        The attention of a padding sequence is over one token of page 0, and `device` holds such tables when this is
        called, before the capture begins: it copies.
        """
        ...

    def plan_projected(self, device: DeviceTables, num_sequences: int) -> ProjectedPlan | None:
        """The same for a graph whose attention begins with the projection; it needs no refresh. None: `plan_capture` is faster."""
        ...

    def refresh(self, plan: DevicePlan, host: SequenceTables) -> None:
        """Before a replay of the graph that holds `plan`, on the stream of the replay, behind the copy of its tables.

        `host` is padded to the graph's size.
        """
        ...


CapturedPlan = DevicePlan | ProjectedPlan


def plan_graph(attention: DeviceAttention, device: DeviceTables, num_sequences: int) -> CapturedPlan:
    """What a graph of `num_sequences` decodes holds."""
    return attention.plan_projected(device, num_sequences) or attention.plan_capture(device, num_sequences)
