"""Pinned memory through which a step's inputs go to the device.

A piece must not be written while a copy out of it is still to run. So there are as many as steps may be in flight, used in
turn, each with an event that its last copy records.
"""

import torch
from torch import Tensor

from runtime.batch import Int32


class Upload:
    """One piece."""

    def __init__(self, num_words: int, device: torch.device) -> None:
        self._host = torch.zeros(num_words, dtype=torch.int32, pin_memory=device.type == "cuda")
        self.words: Int32 = self._host.numpy()
        self._copied = torch.cuda.Event() if device.type == "cuda" else None

    def wait(self) -> None:
        """Until the last copy out of it has run."""
        if self._copied is not None:
            self._copied.synchronize()

    def send(self, target: Tensor, num_words: int) -> None:
        """Enqueue the copy of the first `num_words` words."""
        target[:num_words].copy_(self._host[:num_words], non_blocking=True)
        if self._copied is not None:
            self._copied.record()


class UploadPool:
    """The pieces, in turn."""

    def __init__(self, num_words: int, count: int, device: torch.device) -> None:
        self._pieces = [Upload(num_words, device) for _ in range(count)]
        self._next = 0

    def next(self) -> Upload:
        """The piece that was used longest ago, free to be written."""
        piece = self._pieces[self._next]
        self._next = (self._next + 1) % len(self._pieces)
        piece.wait()
        return piece
