"""The linear layer of FP8: weights and inputs both e4m3, each with scales in float32.

A number is scale * q, with q in e4m3 (3 bits of mantissa, up to 448). Inputs are rounded as they come: each row (token), or
each group of 128 inputs of a row, has a scale of its own, so what a request gets depends on no other request. Here is plain
torch, the judge of every faster implementation: it rounds the inputs and multiplies in float32.

Source: FP8 Formats for Deep Learning, Micikevicius et al. 2022; groups and blocks: DeepSeek-V3, section 3.3.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch import Tensor

from runtime.layers.linear import Linear

E4M3 = torch.float8_e4m3fn
E4M3_MAX = 448.0
BLOCK = 128
"""Rows and columns of a weight that share a scale, and inputs of a row that do, where scales are by block."""
SMALLEST_PEAK = 1e-10
"""Rows of nothing but zeros have a scale, too."""


@dataclass(frozen=True, slots=True)
class InputScaling:
    """How inputs are rounded: by their own largest magnitude, unless the checkpoint brought a scale for all."""

    by_group: bool = False
    """A scale for each BLOCK inputs of a row, instead of one for the row."""
    bound: float | None = None
    """Magnitudes beyond are cut off (`fbgemm_fp8`)."""
    static: Tensor | None = None
    """[1] float32: the scale of every row; what it cannot hold is cut off."""


@dataclass(frozen=True, slots=True)
class QuantizedRows:
    """Rows in e4m3."""

    values: Tensor
    """[num_rows, in] e4m3."""
    scales: Tensor
    """[num_rows] float32, or [num_rows, in / BLOCK]."""


@dataclass(frozen=True, slots=True)
class QuantizedLinear:
    """Like `Linear`, in e4m3."""

    weight: Tensor
    """[out, in] e4m3, contiguous."""
    scales: Tensor
    """float32: [out], or by block [ceil(out / BLOCK), ceil(in / BLOCK)]."""
    bias: Tensor | None = None
    inputs: InputScaling = InputScaling()

    @property
    def by_block(self) -> bool:
        """Scales belong to blocks of weights, not to rows of them."""
        return self.scales.ndim == 2

    def __call__(self, rows: Tensor) -> Tensor:
        """[num_rows, in] → [num_rows, out], in the inputs' dtype. Capture-safe."""
        rounded = dequantize_rows(quantize_rows(rows, self.inputs))
        bias = None if self.bias is None else self.bias.float()
        return functional.linear(rounded, self.dequantized(), bias).to(rows.dtype)

    def dequantized(self) -> Tensor:
        """The weights in float32."""
        if not self.by_block:
            return self.weight.float() * self.scales[:, None]
        wide = self.scales.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
        return self.weight.float() * wide[: self.weight.shape[0], : self.weight.shape[1]]


AnyLinear = Linear | QuantizedLinear


def quantize_rows(rows: Tensor, scaling: InputScaling) -> QuantizedRows:
    """Round [num_rows, in], of any float dtype, to e4m3; NaN and infinities make NaN. Capture-safe."""
    wide = rows.float()
    if scaling.static is not None:
        scales = scaling.static.expand(rows.shape[0])
        return QuantizedRows(_round(wide / scales[:, None]), scales)
    if scaling.by_group:
        wide = wide.unflatten(1, (-1, BLOCK))
    peak = wide.abs().amax(-1).clamp(min=SMALLEST_PEAK)
    if scaling.bound is not None:
        peak = peak.clamp(max=scaling.bound)
    # By a tensor: on CUDA torch divides by a number as by its reciprocal, which is off by a bit, and then whole classes of values
    # that lie between two of e4m3 go the other way (measured: 1.2 % of a row).
    scales = peak / torch.full_like(peak, E4M3_MAX)
    return QuantizedRows(_round(wide / scales[..., None]).view(rows.shape), scales)


def dequantize_rows(rows: QuantizedRows) -> Tensor:
    """[num_rows, in] float32."""
    wide = rows.values.float()
    if rows.scales.ndim == 1:
        return wide * rows.scales[:, None]
    grouped: Tensor = wide.unflatten(1, (-1, BLOCK)) * rows.scales[..., None]
    return grouped.flatten(1)


def quantize_channels(weight: Tensor) -> tuple[Tensor, Tensor]:
    """[out, in] → e4m3 and the scales [out], each output's by its largest weight."""
    quantized = quantize_rows(weight, InputScaling())
    return quantized.values, quantized.scales


def _round(values: Tensor) -> Tensor:
    """To the nearest e4m3, ties to even; torch would make NaN of what is too large."""
    return values.clamp(-E4M3_MAX, E4M3_MAX).to(E4M3)
