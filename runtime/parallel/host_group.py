"""Sums over ranks on a CPU: through the first rank, which adds in the order of the ranks."""

from typing import Protocol

import torch
from torch import Tensor

from runtime.parallel.channel import Channel
from runtime.weights.shares import WHOLE, Share


class Group(Protocol):
    """What a decoder asks of all ranks together. Each rank has to ask for the same, in the same order."""

    share: Share

    def sum(self, part: Tensor) -> Tensor:
        """The sum of all ranks' parts [num_rows, size], the same bits on each."""
        ...

    def join(self, part: Tensor) -> Tensor:
        """All ranks' parts [num_rows, size] side by side, [num_rows, ranks * size]."""
        ...


class Apart:
    """Each rank by itself: a group of one, or a trial that leaves the others out."""

    def __init__(self, share: Share) -> None:
        self.share = share

    def sum(self, part: Tensor) -> Tensor:
        """The part itself."""
        return part

    def join(self, part: Tensor) -> Tensor:
        """The part itself."""
        return part


ALONE = Apart(WHOLE)


class HostGroup:
    """See `Group`."""

    def __init__(self, channel: Channel) -> None:
        self.share = channel.share
        self._channel = channel

    def sum(self, part: Tensor) -> Tensor:
        """See `Group.sum`. Raises: RankLost."""

        def add(parts: list[bytes]) -> bytes:
            total = _tensor(parts[0], part)
            for other in parts[1:]:
                total += _tensor(other, part)
            return _bytes(total)

        return _tensor(self._channel.exchange(_bytes(part), add), part)

    def join(self, part: Tensor) -> Tensor:
        """See `Group.join`. Raises: RankLost."""
        joined = self._channel.exchange(
            _bytes(part), lambda parts: _bytes(torch.cat([_tensor(each, part) for each in parts], dim=1))
        )
        return torch.frombuffer(bytearray(joined), dtype=part.dtype).view(len(part), -1)


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


def _tensor(content: bytes, like: Tensor) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=like.dtype).view(like.shape)
