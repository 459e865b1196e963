"""Attention where a row's result must not depend on the step that it is in (`deterministic`): our Triton kernel for prompts alone.

It goes through the keys of a row from the first to the last in tiles that begin at multiples of their length, whatever chunk the
row came in. A decode is a chunk of one: so a token has the same keys and values whether it was generated, was part of a prompt, or
was computed again after a retraction. Contexts are not cut into parts, which costs time where few sequences are long.
"""

from dataclasses import replace

from runtime.attention.device import DevicePlan, DeviceTables, SequenceTables
from runtime.attention.shared_prefixes import SharedPrefixes
from runtime.attention.triton import PrefillSpan, TritonAttention, TritonChunks
from runtime.batch import Int32


class InvariantAttention:
    """A `DeviceAttention`.

    Args:
        chunks: which decodes nothing, and may be built for none.
    """

    def __init__(self, chunks: TritonAttention) -> None:
        self._chunks = chunks

    def plan(self, host: SequenceTables, device: DeviceTables) -> TritonChunks:
        """See `DeviceAttention.plan`."""
        return self._chunks.plan_chunks(replace(host, num_decodes=0), device)

    def plan_capture(self, device: DeviceTables, num_sequences: int) -> TritonChunks:
        """See `DeviceAttention.plan_capture`. A tile for each sequence, and those that the kernel's numbering leaves over."""
        num_tiles = num_sequences // self._chunks.block_queries + num_sequences
        return TritonChunks(self._chunks, device, PrefillSpan(0, num_sequences, num_tiles))

    def share(self, page_tables: Int32, context_lengths: Int32) -> SharedPrefixes | None:
        """None: what is read for several is added up in another order."""

    def plan_shared(self, device: DeviceTables, num_sequences: int) -> DevicePlan | None:
        """None, as in `share`."""

    def refresh(self, plan: DevicePlan, host: SequenceTables) -> None:
        """Nothing: the device computes all that differs between replays."""
