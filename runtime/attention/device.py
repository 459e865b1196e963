"""The interface of attention on a GPU, where steps are replayed as captured graphs.

It differs from `backend` in three ways. Keys and values are in the cache already when a plan attends (the kernel that
rotates them writes them). The tables of a step lie at fixed device addresses, which the runner fills by one copy a step.
And a plan may be captured: then it is refreshed before each replay by whatever the host has to compute, if anything.

Page tables are in compressed rows, as FlashInfer takes them: sequence i owns `page_ids[page_starts[i]:page_starts[i + 1]]`.
"""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from runtime.attention.shared_prefixes import SharedPrefixes
from runtime.batch import Int32


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
    prefixes: SharedPrefixes | None = None
    """Groups of decodes whose common beginnings are read once. None: each reads its own."""


@dataclass(frozen=True, slots=True)
class SharedTables:
    """Groups of decodes with a common beginning, as `SharedPrefixes` has them. Undefined in steps without any."""

    tokens: Tensor
    """[num_sequences]; how many of a sequence's tokens its group sees for it."""
    group_tokens: Tensor
    """[most groups]; 0 of one in excess."""
    group_members: Tensor
    """[most groups * MEMBERS]; -1 where there is none."""


@dataclass(frozen=True, slots=True)
class DeviceTables:
    """The same on the device, int32, at addresses that never change. Entries beyond the step's own are undefined."""

    query_starts: Tensor
    context_lengths: Tensor
    page_starts: Tensor
    page_ids: Tensor
    last_page_lengths: Tensor
    """[num_sequences]; tokens in each sequence's last page, 1 to PAGE_SIZE; on the host, plans derive it themselves."""
    shared: SharedTables | None = None


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

    def share(self, page_tables: Int32, context_lengths: Int32) -> SharedPrefixes | None:
        """Groups of decodes, if it pays to read what they have in common once; arguments as `find_shared_prefixes`."""
        ...

    def plan_shared(self, device: DeviceTables, num_sequences: int) -> DevicePlan | None:
        """As `plan_capture`, for steps with groups; it needs no refresh. None: there are none with so many sequences."""
        ...

    def refresh(self, plan: DevicePlan, host: SequenceTables) -> None:
        """Before a replay of the graph that holds `plan`, on the stream of the replay, behind the copy of its tables.

        `host` is padded to the graph's size.
        """
        ...
