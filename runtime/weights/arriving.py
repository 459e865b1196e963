"""Stored tensors on their way to their places: their bytes come in any order, from one thread.

Bytes go straight to where they belong. What is converted to another dtype is gathered first, as it is stored, and so is the
stored copy of an embedding that has no place of its own.
"""

import torch
from torch import Tensor

from runtime.weights.header import StoredTensor
from runtime.weights.placing import FILE_DTYPES, Placing


class ArrivingTensor:
    """One tensor, from its first bytes to its last."""

    def __init__(self, stored: StoredTensor, placing: Placing, device: torch.device, *, is_kept: bool) -> None:
        """
        Args:
            is_kept: whether it is gathered where it has no place.
        """
        self.begin, self.end = stored.begin, stored.end
        self._name, self._dtype = stored.name, FILE_DTYPES[stored.dtype]
        self._placing, self._device, self._is_kept = placing, device, is_kept
        self._is_open = False
        self._left_bytes = stored.end - stored.begin
        self._target: Tensor | None = None
        self._bytes: Tensor | None = None

    def add(self, begin: int, piece: Tensor) -> None:
        """Copy bytes [uint8] that stand at `begin` in the file; whoever brings the last ones finishes the tensor.

        For a GPU all of it is enqueued on the current stream, which has to be the same one each time.
        """
        self._open()
        if self._bytes is not None:
            start = begin - self.begin
            self._bytes[start : start + len(piece)].copy_(piece, non_blocking=True)
        self._left_bytes -= len(piece)
        if self._left_bytes == 0 and self._target is not None:
            self._finish(self._target)

    @property
    def kept(self) -> Tensor | None:
        """All elements in one dimension, as stored, of a tensor that is kept without a place."""
        return None if self._bytes is None or self._target is not None else self._bytes.view(self._dtype)

    def _open(self) -> None:
        if self._is_open:
            return
        self._is_open = True
        self._target = self._placing.target(self._name)
        if self._target is not None and self._target.dtype == self._dtype:
            self._bytes = self._target.view(-1).view(torch.uint8)
        elif self._target is not None or self._is_kept:
            self._bytes = torch.empty(self.end - self.begin, dtype=torch.uint8, device=self._device)

    def _finish(self, target: Tensor) -> None:
        assert self._bytes is not None
        if target.dtype != self._dtype:
            target.copy_(self._bytes.view(self._dtype).view(target.shape))
        self._bytes = self._target = None
        self._placing.filled(self._name, target)
