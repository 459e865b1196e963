"""Rotary position embedding: pairs (i, i + head_dim/2) of each head are turned by an angle that grows with the position.

The angles are tabulated once. Sine and cosine are taken in float64 of the float32 angle that transformers uses, and
rounded, so that the table does not depend on how a vector unit splits the work.
Sources: RoFormer, Su et al. 2021; YaRN, Peng et al. 2023; the `llama3` rule is that of Llama 3.1's published configuration.
"""

import math

import torch
from torch import Tensor

from runtime.weights.rope import RopeConfig

_TABLE_ROWS = 4096


class RotaryTable:
    """Cosines and sines for positions 0 … num_positions - 1, times the `attention_factor`."""

    def __init__(
        self, rope: RopeConfig, head_dim: int, num_positions: int, *, device: torch.device, dtype: torch.dtype
    ):
        frequencies = rotary_frequencies(rope, head_dim)
        self._cosines = torch.empty(num_positions, 1, head_dim, device=device, dtype=dtype)
        self._sines = torch.empty_like(self._cosines)
        for start in range(0, num_positions, _TABLE_ROWS):
            end = min(start + _TABLE_ROWS, num_positions)
            angles = (torch.arange(start, end).float()[:, None, None] * frequencies).double()
            cosines, sines = angles.cos() * rope.attention_factor, angles.sin() * rope.attention_factor
            self._cosines[start:end] = torch.cat((cosines, cosines), dim=-1)
            self._sines[start:end] = torch.cat((-sines, sines), dim=-1)

    @property
    def num_positions(self) -> int:
        """Positions tabulated."""
        return self._cosines.shape[0]

    @property
    def cosines(self) -> Tensor:
        """[num_positions, head_dim]; both halves of a row hold the same."""
        return self._cosines.flatten(1)

    @property
    def sines(self) -> Tensor:
        """[num_positions, head_dim]; negative in the first half of a row."""
        return self._sines.flatten(1)

    def at(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """positions: [num_rows] int64 → cosines and sines, each [num_rows, 1, head_dim], as `apply_rotary` takes them.

        Each half of a row holds the cosines; the sines are negative in the first half. Capture-safe.
        """
        return self._cosines.index_select(0, positions), self._sines.index_select(0, positions)


def rotary_frequencies(rope: RopeConfig, head_dim: int) -> Tensor:
    """Radians per position of each pair, [head_dim / 2] float32, on the CPU."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    frequencies = 1.0 / (rope.theta**exponents)
    if rope.kind == "linear":
        return frequencies / rope.factor
    if rope.kind == "yarn":
        return _stretch_rare_turns(frequencies, rope, head_dim)
    return _stretch_long_waves(frequencies, rope) if rope.kind == "llama3" else frequencies


def _stretch_rare_turns(frequencies: Tensor, rope: RopeConfig, head_dim: int) -> Tensor:
    """YaRN's rule, by how often a pair turns in the original context: rarely, slowed by `factor`; often, kept; a line between,
    over the numbers of the pairs."""

    def pair_that_turns(times: float) -> float:
        return head_dim * math.log(rope.original_max_position / (times * 2 * math.pi)) / (2 * math.log(rope.theta))

    first, last = pair_that_turns(rope.beta_fast), pair_that_turns(rope.beta_slow)
    if rope.truncates:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, head_dim - 1)
    pairs = torch.arange(head_dim // 2, dtype=torch.float32)
    slowed_share = ((pairs - first) / (last - first if last != first else 0.001)).clamp(0, 1)
    return frequencies / rope.factor * slowed_share + frequencies * (1 - slowed_share)


def _stretch_long_waves(frequencies: Tensor, rope: RopeConfig) -> Tensor:
    """Llama 3's rule, by wavelength in tokens: long ones slowed by `factor`, short ones kept, a line between the two."""
    wavelengths = 2 * math.pi / frequencies
    longest_kept = rope.original_max_position / rope.high_freq_factor
    shortest_stretched = rope.original_max_position / rope.low_freq_factor
    kept_share = (rope.original_max_position / wavelengths - rope.low_freq_factor) / (
        rope.high_freq_factor - rope.low_freq_factor
    )
    between = (1 - kept_share) * frequencies / rope.factor + kept_share * frequencies
    result = torch.where(wavelengths > shortest_stretched, frequencies / rope.factor, between)
    return torch.where(wavelengths < longest_kept, frequencies, result)


def apply_rotary(heads: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn each head of each row.

    Args:
        heads: [num_rows, num_heads, head_dim].
        cosines, sines: [num_rows, 1, head_dim], of the rows' positions, see `RotaryTable.at`.
    Returns: a new contiguous tensor of the shape of `heads`. Capture-safe.
    """
    return (heads * cosines).add_(heads.roll(heads.shape[-1] // 2, -1).mul_(sines))
