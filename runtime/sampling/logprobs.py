"""Logarithms of probabilities under the model itself: before penalties, temperature and masks.

For a prompt the caller gives a few rows at a time, so that [tokens, vocab_size] never exists.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch import Tensor

from runtime.batch import LogprobRows

_ID_MASK = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class DeviceLogprobs:
    """`LogprobRows` before they are on the host; ids int64."""

    chosen: Tensor
    top_ids: Tensor
    top_values: Tensor

    def start_copy(self) -> "DeviceLogprobs":
        """The same on the host, once the current stream has run so far; nothing waits here."""
        return DeviceLogprobs(
            *(part.to("cpu", non_blocking=True) for part in (self.chosen, self.top_ids, self.top_values))
        )

    def to_host(self) -> LogprobRows:
        """Wait for the device and copy."""
        return LogprobRows(
            chosen=self.chosen.cpu().numpy(),
            top_ids=self.top_ids.to("cpu", torch.int32).numpy(),
            top_values=self.top_values.cpu().numpy(),
        )

    def spread(self, rows: Tensor, num_rows: int) -> "DeviceLogprobs":
        """Put row i at `rows[i]` of `num_rows`; the others hold zeros."""

        def spread(values: Tensor) -> Tensor:
            return values.new_zeros(num_rows, *values.shape[1:]).index_copy_(0, rows, values)

        return DeviceLogprobs(spread(self.chosen), spread(self.top_ids), spread(self.top_values))


def logprobs_of(logits: Tensor, targets: Tensor, num_top: int) -> DeviceLogprobs:
    """Logprobs of one target token a row, and of the most likely tokens.

    Args:
        logits: [n, vocab_size] float32; not changed.
        targets: [n] int64.
        num_top: how many of the most likely to give.
    """
    logprobs = torch.log_softmax(whole_lines(logits), dim=-1)[:, : logits.shape[1]].contiguous()
    top_ids = (_places(logprobs).topk(min(num_top, logits.shape[1]), dim=-1).values & _ID_MASK) ^ _ID_MASK
    return DeviceLogprobs(logprobs.gather(1, targets[:, None])[:, 0], top_ids, logprobs.gather(1, top_ids))


def whole_lines(rows: Tensor) -> Tensor:
    """Columns of minus infinity behind [n, m] float32, so that each row begins at a multiple of 16 bytes: torch's sums over a row
    on a GPU depend on where it begins. `rows` itself where nothing is missing."""
    missing = -rows.shape[1] % 4
    return functional.pad(rows, (0, missing), value=-torch.inf) if missing else rows


def _places(values: Tensor) -> Tensor:
    """int64, in the order of `values` [n, m] float32, and among equal ones the lower column ahead: no two of a row are equal.

    Which of several equal values `topk` takes, and in what order, would depend on the device and on n.
    """
    places = values.view(torch.int32).long()
    places ^= (places >> 63) & (_ID_MASK >> 1)  # The bits of numbers below zero are in the opposite order.
    places *= _ID_MASK + 1
    places += torch.arange(values.shape[1], device=values.device) ^ _ID_MASK
    return places


def concatenate(parts: Iterable[DeviceLogprobs]) -> DeviceLogprobs:
    """The rows of all parts, one after the other; all have the same number of top tokens."""
    columns = zip(*((part.chosen, part.top_ids, part.top_values) for part in parts), strict=True)
    return DeviceLogprobs(*(torch.cat(column) for column in columns))
