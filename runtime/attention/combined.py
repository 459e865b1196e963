"""Decodes by one backend and prefill chunks by another, in one step.

Measured on an H100 for 32 query and 8 key heads of 128: our decode kernel reads the cache at 95 % of the copy rate and plans on
the device, so that a replay costs the host nothing; FlashAttention 3 is the faster one for long queries.
"""

from collections.abc import Sequence

from torch import Tensor

from runtime.attention.device import DevicePlan, DeviceTables, SequenceTables
from runtime.attention.flashinfer.attention import FlashInferAttention
from runtime.attention.shared_prefixes import SharedPrefixes
from runtime.attention.triton import TritonAttention
from runtime.batch import Int32


class CombinedPlan:
    """The plans of a step's parts, each over rows of its own."""

    def __init__(self, parts: Sequence[DevicePlan]) -> None:
        self._parts = parts

    def attend(self, layer: int, query: Tensor, out: Tensor) -> None:
        """See `DevicePlan.attend`."""
        for part in self._parts:
            part.attend(layer, query, out)


class CombinedAttention:
    """A `DeviceAttention` of two over the same cache."""

    def __init__(self, decodes: TritonAttention, chunks: FlashInferAttention) -> None:
        self._decodes = decodes
        self._chunks = chunks

    def plan(self, host: SequenceTables, device: DeviceTables) -> DevicePlan:
        """See `DeviceAttention.plan`."""
        parts: list[DevicePlan] = []
        if host.num_decodes:
            parts.append(self._decodes.plan_decodes(host, device))
        if len(host.context_lengths) > host.num_decodes:
            parts.append(self._chunks.plan_chunks(host, device))
        return CombinedPlan(parts)

    def plan_chunks(self, host: SequenceTables, device: DeviceTables) -> DevicePlan:
        """See `TritonAttention.plan_chunks`."""
        return self._chunks.plan_chunks(host, device)

    def plan_capture(self, device: DeviceTables, num_sequences: int) -> DevicePlan:
        """See `DeviceAttention.plan_capture`."""
        return self._decodes.plan_capture(device, num_sequences)

    def share(self, page_tables: Int32, context_lengths: Int32) -> SharedPrefixes | None:
        """See `DeviceAttention.share`."""
        return self._decodes.share(page_tables, context_lengths)

    def plan_shared(self, device: DeviceTables, num_sequences: int) -> DevicePlan | None:
        """See `DeviceAttention.plan_shared`."""
        return self._decodes.plan_shared(device, num_sequences)

    def refresh(self, plan: DevicePlan, host: SequenceTables) -> None:
        """Nothing: decodes are planned on the device."""
