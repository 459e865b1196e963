"""The choice of a token for each row.

Order: (1) repetition, frequency and presence penalties, bias, bans, grammars; (2) temperature; (3) top-k, top-p, min-p masks;
(4) the argmax of logits/temperature plus the noise of (seed, position, token id). At temperature 0 it is the argmax
after (1). Among equal values the lowest id wins.

Parameters come from pageable memory, out of which a copy returns as soon as it is staged: with `non_blocking` the host never
waits for the device here.

On a CPU the noise is computed row by row: the vector unit's logarithm and the scalar one for what is left over differ
in the last bit, so a row's noise must not depend on where it lies in a larger array.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from runtime.batch import SamplingBatch
from runtime.sampling.masks import mask_disallowed, mask_unlikely
from runtime.sampling.noise import gumbel_noise, noise_keys
from runtime.sampling.penalties import apply_penalties


@dataclass(frozen=True, slots=True)
class SampledTokens:
    """On the logits' device."""

    token_ids: Tensor
    """[num_samples] int64, below the vocabulary's size even where not finite."""
    is_finite: Tensor
    """[num_samples] bool; False where the logits held NaN or plus infinity, or no finite value was left to choose."""


class Sampler:
    """Chooses tokens of one vocabulary on one device."""

    def __init__(self, vocab_size: int, device: torch.device) -> None:
        self._token_ids = torch.arange(vocab_size, device=device)

    def sample(self, logits: Tensor, sampling: SamplingBatch, positions: Tensor | None = None) -> SampledTokens:
        """Choose one token a row.

        Args:
            logits: [num_samples, vocab_size] float32; not changed.
            positions: [num_samples] int64, on the logits' device, instead of `sampling.position`.
        """
        device = logits.device
        penalized = apply_penalties(logits, sampling)  # (1)
        if sampling.allowed_rows.size:
            masked_rows = torch.from_numpy(sampling.allowed_rows).to(device, torch.int64)
            penalized = mask_disallowed(penalized, masked_rows, torch.from_numpy(sampling.allowed_bits).to(device))
        largest, chosen = penalized.max(dim=-1)
        is_finite = logits.amax(dim=-1).isfinite() & largest.isfinite()
        drawn_rows = np.flatnonzero(sampling.temperature > 0.0)
        if drawn_rows.size:
            drawn = _select_rows(sampling, drawn_rows)
            rows = torch.from_numpy(drawn_rows).to(device, non_blocking=True)
            # The largest is subtracted first, so that no temperature, however small, makes a score overflow.
            shifted = penalized[rows] - largest[rows, None]
            scaled = shifted / torch.from_numpy(drawn.temperature).to(device, non_blocking=True)[:, None]  # (2)
            mask_unlikely(scaled, drawn)  # (3)
            chosen[rows] = self._draw(scaled, drawn, None if positions is None else positions[rows])  # (4)
        return SampledTokens(chosen, is_finite)

    def _draw(self, scaled: Tensor, drawn: SamplingBatch, positions: Tensor | None) -> Tensor:
        if positions is None:
            positions = torch.from_numpy(drawn.position).to(scaled.device, non_blocking=True)
        keys = noise_keys(torch.from_numpy(drawn.seed).to(scaled.device, non_blocking=True), positions)
        if scaled.device.type != "cpu":
            return scaled.add_(gumbel_noise(keys, self._token_ids)).argmax(dim=-1)
        for row in range(scaled.shape[0]):
            scaled[row].add_(gumbel_noise(keys[row : row + 1], self._token_ids)[0])
        return scaled.argmax(dim=-1)


def _select_rows(sampling: SamplingBatch, rows: np.ndarray[tuple[int, ...], np.dtype[np.intp]]) -> SamplingBatch:
    """The dense fields of some rows; sparse ones, which are used up by then, are left empty."""
    nothing = np.zeros(0, np.int32)
    return SamplingBatch(
        temperature=sampling.temperature[rows], top_p=sampling.top_p[rows], top_k=sampling.top_k[rows],
        min_p=sampling.min_p[rows], seed=sampling.seed[rows], position=sampling.position[rows],
        frequency_penalty=sampling.frequency_penalty[rows], presence_penalty=sampling.presence_penalty[rows],
        repetition_penalty=sampling.repetition_penalty[rows], num_logprobs=sampling.num_logprobs[rows],
        bias_rows=nothing, bias_ids=nothing, bias_values=np.zeros(0, np.float32),
        seen_rows=nothing, seen_ids=nothing, seen_prompt_counts=nothing, seen_output_counts=nothing,
        banned_rows=nothing, banned_ids=nothing,
    )  # fmt: skip
