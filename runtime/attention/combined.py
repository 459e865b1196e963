"""Decodes by one backend and prefill chunks by another, in one step.

Measured on an H100 for 32 query and 8 key heads of 128: our decode kernel reads the cache at 95 % of the copy rate and plans on
the device, so that a replay costs the host nothing; FlashAttention 3 is the faster one for long queries. Chunks over e4m3 are our
own kernels' too where gathering their contexts for it does not pay.
"""

from runtime.attention.beside import Beside, BothPlan
from runtime.attention.device import DevicePlan, DeviceTables, SequenceTables
from runtime.attention.flashinfer.attention import FlashInferAttention
from runtime.attention.shared_prefixes import SharedPrefixes
from runtime.attention.triton import TritonAttention
from runtime.batch import Int32


class CombinedAttention:
    """A `DeviceAttention` of two over the same cache; where a step has work for both, they run beside each other."""

    def __init__(self, decodes: TritonAttention, chunks: FlashInferAttention, beside: Beside) -> None:
        self._decodes = decodes
        self._chunks = chunks
        self.beside = beside
        """Also for who plans other rows than decodes beside chunks."""

    def plan(self, host: SequenceTables, device: DeviceTables) -> DevicePlan:
        """See `DeviceAttention.plan`."""
        if len(host.context_lengths) == host.num_decodes:
            return self._decodes.plan_decodes(host, device)
        if not self._chunks.takes_chunks(host):
            return self._decodes.plan(host, device)
        chunks = self._chunks.plan_chunks(host, device)
        return BothPlan(self._decodes.plan_decodes(host, device), chunks, self.beside) if host.num_decodes else chunks

    def plan_chunks(self, host: SequenceTables, device: DeviceTables) -> DevicePlan:
        """See `TritonAttention.plan_chunks`."""
        return (self._chunks if self._chunks.takes_chunks(host) else self._decodes).plan_chunks(host, device)

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
