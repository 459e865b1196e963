"""Which tokens stay in the draw: what a grammar allows; and later top-k, then top-p over what is left, then min-p.

A masked token gets minus infinity. Where equal logits straddle a limit, lower ids stay: exactly k tokens survive top-k.
"""

import numpy as np
import torch
from torch import Tensor

from runtime.batch import SamplingBatch
from runtime.sampling.logprobs import whole_lines

_UNITS = 2.0**40
"""Of a probability of 1."""


def mask_disallowed(logits: Tensor, rows: Tensor, bits: Tensor) -> Tensor:
    """Leave only what grammars allow in the rows that have one.

    Args:
        logits: [num_samples, vocab_size] float32; not changed.
        rows: [num_masked] int64, distinct, on the same device.
        bits: [num_masked, ceil(vocab_size / 32)] int32, packed, lowest bit first, on the same device.
    Returns: a new tensor.
    Capture-safe: reads no value on the host.
    """
    places = torch.arange(32, dtype=torch.int32, device=logits.device)
    allowed = ((bits[:, :, None] >> places) & 1).bool().flatten(1)[:, : logits.shape[1]]
    return logits.index_copy(0, rows, logits[rows].masked_fill(~allowed, -torch.inf))


def mask_unlikely(scaled: Tensor, sampling: SamplingBatch) -> Tensor:
    """Mask the rows that ask for it.

    Args:
        scaled: [num_samples, vocab_size] float32, logits after temperature, each row's largest 0; changed in place.
    Returns: `scaled`.
    """
    limited_k = (sampling.top_k > 0) & (sampling.top_k < scaled.shape[1])
    sorted_rows = np.flatnonzero(limited_k | (sampling.top_p < 1.0))
    if sorted_rows.size:
        rows = torch.from_numpy(sorted_rows).to(scaled.device, non_blocking=True)
        top_k = np.where(limited_k, sampling.top_k, scaled.shape[1])[sorted_rows].astype(np.int64)
        scaled[rows] = _mask_sorted(
            scaled[rows],
            torch.from_numpy(top_k).to(scaled.device, non_blocking=True),
            torch.from_numpy(sampling.top_p[sorted_rows]).to(scaled.device, non_blocking=True),
        )
    if np.any(sampling.min_p > 0.0):
        # The largest is 0, so p_i >= min_p * p_max says scaled_i >= log(min_p).
        with np.errstate(divide="ignore"):
            floors = np.log(sampling.min_p.astype(np.float64)).astype(np.float32)
        scaled.masked_fill_(scaled < torch.from_numpy(floors).to(scaled.device, non_blocking=True)[:, None], -torch.inf)
    return scaled


def _mask_sorted(scaled: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """Keep the `top_k` largest of each row; of these, the fewest whose probabilities reach `top_p`; always one.

    Args:
        scaled: [n, vocab_size]; top_k: [n] int64; top_p: [n] float32.
    Returns: a new tensor.
    """
    ordered, order = torch.sort(scaled, dim=-1, descending=True, stable=True)
    ranks = torch.arange(scaled.shape[1], device=scaled.device)
    ordered.masked_fill_(ranks >= top_k[:, None], -torch.inf)
    # In whole units, whose sums do not depend on the order in which a device adds them up. A power of 2 rounds nothing.
    units = (torch.softmax(whole_lines(ordered), dim=-1)[:, : ordered.shape[1]] * _UNITS).long()
    before = units.cumsum(dim=-1).sub_(units)
    dropped = (before >= (top_p * _UNITS).long()[:, None]) & (top_p < 1.0)[:, None]
    dropped[:, 0] = False
    ordered.masked_fill_(dropped, -torch.inf)
    return torch.empty_like(scaled).scatter_(1, order, ordered)
