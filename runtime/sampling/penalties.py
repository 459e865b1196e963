"""What changes single logits before the choice: penalties for tokens seen, bias, and bans. All sparse.

In this order: (1) repetition penalty over prompt and output: a positive logit is divided by it, any other multiplied
(CTRL, Keskar et al. 2019, as in transformers); (2) frequency penalty times the count in the output, and presence penalty
if that count is not 0, are subtracted (as in OpenAI's API); (3) bias is added; (4) banned ids get minus infinity.
"""

import numpy as np
import torch
from torch import Tensor

from runtime.batch import SamplingBatch


def apply_penalties(logits: Tensor, sampling: SamplingBatch) -> Tensor:
    """Apply (1) to (4) of the module.

    Args:
        logits: [num_samples, vocab_size] float32; not changed.
    Returns: a new tensor, or `logits` itself if the batch has no penalty, bias or ban.
    """
    if not (sampling.seen_rows.size or sampling.bias_rows.size or sampling.banned_rows.size):
        return logits
    result = logits.clone()
    device = logits.device
    if sampling.seen_rows.size:
        rows = sampling.seen_rows
        where = _indices(rows, sampling.seen_ids, device)
        output_counts = sampling.seen_output_counts.astype(np.float32)
        present = sampling.seen_output_counts > 0
        subtracted = sampling.frequency_penalty[rows] * output_counts + sampling.presence_penalty[rows] * present
        repetition = torch.from_numpy(sampling.repetition_penalty[rows]).to(device, non_blocking=True)
        values = result[where]
        values = torch.where(values > 0, values / repetition, values * repetition)  # (1)
        result[where] = values - torch.from_numpy(subtracted.astype(np.float32)).to(device, non_blocking=True)  # (2)
    if sampling.bias_rows.size:
        bias = torch.from_numpy(sampling.bias_values).to(device, non_blocking=True)
        result.index_put_(_indices(sampling.bias_rows, sampling.bias_ids, device), bias, accumulate=True)  # (3)
    if sampling.banned_rows.size:
        result[_indices(sampling.banned_rows, sampling.banned_ids, device)] = -torch.inf  # (4)
    return result


def _indices(
    rows: np.ndarray[tuple[int, ...], np.dtype[np.int32]],
    ids: np.ndarray[tuple[int, ...], np.dtype[np.int32]],
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(rows).to(device, torch.int64, non_blocking=True), torch.from_numpy(ids).to(
        device, torch.int64, non_blocking=True
    )
