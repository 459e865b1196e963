"""Logarithms of probabilities under the model itself: before penalties, temperature and masks.

For a prompt the caller gives a few rows at a time, so that [tokens, vocab_size] never exists.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from runtime.batch import LogprobRows


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
    logprobs = torch.log_softmax(logits, dim=-1)
    top_values, top_ids = logprobs.topk(min(num_top, logits.shape[1]), dim=-1)
    return DeviceLogprobs(logprobs.gather(1, targets[:, None])[:, 0], top_ids, top_values)


def concatenate(parts: Iterable[DeviceLogprobs]) -> DeviceLogprobs:
    """The rows of all parts, one after the other; all have the same number of top tokens."""
    columns = zip(*((part.chosen, part.top_ids, part.top_values) for part in parts), strict=True)
    return DeviceLogprobs(*(torch.cat(column) for column in columns))
