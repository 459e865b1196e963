"""Sums over ranks on GPUs: parts are written where every rank can read them, and each adds them up for itself.

Memory of a rank, half-open, in rows of the model's dtype:

    [0, max_rows)             parts of the attentions' products     [max_rows, 2 * max_rows)   of the feed-forwards'
    and behind them the rank's part of `max_samples` rows of logits.

A pass uses the first two in turn, whatever graphs it is made of, so a part is not written over before all have read it
(`runtime.kernels.triton.ranks`).
"""

from collections.abc import Callable
from enum import IntEnum
from typing import Protocol

import torch
from torch import Tensor

from runtime.kernels.launching import Launcher
from runtime.kernels.ranks import MAX_PROGRAMS, Meeting, add_sum, join
from runtime.weights.shares import Share


class Sum(IntEnum):
    """Which of a layer's two."""

    ATTENTION = 0
    FEED_FORWARD = 1


class DeviceGroup(Protocol):
    """What a decoder on a GPU asks of all ranks together, in the same order on each. Capture-safe."""

    share: Share

    def part(self, which: Sum, num_rows: int) -> Tensor:
        """[num_rows, hidden_size], to be written with this rank's part of a sum."""
        ...

    def add_sum(self, which: Sum, hidden: Tensor) -> None:
        """hidden [num_rows, hidden_size] += the sum of what all ranks wrote, in place."""
        ...

    def logits_part(self, num_rows: int) -> Tensor:
        """[num_rows, vocab_size / ranks], to be written with this rank's part of the logits."""
        ...

    def join_logits(self, out: Tensor) -> None:
        """out [num_rows, vocab_size] = what all ranks wrote, side by side."""
        ...


class PeerGroup:
    """See `DeviceGroup`; through `peer_memory`."""

    def __init__(
        self,
        share: Share,
        tell: Callable[[Tensor], Tensor],
        launcher: Launcher,
        *,
        max_rows: int,
        hidden_size: int,
        max_samples: int,
        vocab_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """
        Args:
            tell: shows memory to the other ranks, see `share_memory`.
        Raises: whatever `tell` raises.
        """
        self.share = share
        self._launcher = launcher
        self._parts = torch.zeros(2, max_rows, hidden_size, dtype=dtype, device=device)
        self._logits = torch.zeros(max_samples * (vocab_size // self.share.size), dtype=dtype, device=device)
        self._vocab_size = vocab_size
        self._flags = torch.zeros(MAX_PROGRAMS, self.share.size, dtype=torch.int32, device=device)
        counts = torch.zeros(MAX_PROGRAMS, dtype=torch.int32, device=device)
        if device.type == "cuda":
            torch.cuda.synchronize()
        self._part_addresses = [tell(part) for part in self._parts]
        self._logits_addresses = tell(self._logits)
        self._meeting = Meeting(tell(self._flags), counts, self.share.rank)

    @property
    def num_bytes(self) -> int:
        """That it takes of this rank's GPU."""
        return sum(each.numel() * each.element_size() for each in (self._parts, self._logits, self._flags))

    def part(self, which: Sum, num_rows: int) -> Tensor:
        """See `DeviceGroup.part`."""
        return self._parts[which, :num_rows]

    def add_sum(self, which: Sum, hidden: Tensor) -> None:
        """See `DeviceGroup.add_sum`."""
        add_sum(hidden, self._part_addresses[which], self._meeting, launcher=self._launcher, pdl=True)

    def logits_part(self, num_rows: int) -> Tensor:
        """See `DeviceGroup.logits_part`."""
        width = self._vocab_size // self.share.size
        return self._logits[: num_rows * width].view(num_rows, width)

    def join_logits(self, out: Tensor) -> None:
        """See `DeviceGroup.join_logits`."""
        join(out, self._logits_addresses, self._meeting, launcher=self._launcher, pdl=True)
