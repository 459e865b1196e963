"""What late entries of the head follow from: hidden states of the target and the tokens after them, at numbered places.

Who is kept where, and when it is entered, is the scheduler's business, see `runtime.scheduling.backlog`.
"""

import torch
from torch import Tensor

from runtime.batch import BACKLOG_SIZE

DROPPED = BACKLOG_SIZE
"""The place of rows that are not kept; nobody reads it."""


class Backlog:
    """The places, on one device. All is capture-safe but for its making."""

    def __init__(self, width: int, *, dtype: torch.dtype, device: torch.device) -> None:
        """`width`: numbers of a row, of all layers that the head reads."""
        self._captured = torch.empty(BACKLOG_SIZE + 1, width, dtype=dtype, device=device)
        self._next_ids = torch.zeros(BACKLOG_SIZE + 1, dtype=torch.int32, device=device)

    def keep(self, places: Tensor, captured: Tensor, next_ids: Tensor) -> None:
        """Keep rows [num_rows, width] and their next tokens [num_rows] at places [num_rows] int64, or drop them."""
        self._captured.index_copy_(0, places, captured)
        self._next_ids.index_copy_(0, places, next_ids.to(torch.int32))

    def take(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Rows and their next tokens, int32, as new tensors."""
        return self._captured.index_select(0, places), self._next_ids.index_select(0, places)
