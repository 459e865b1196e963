"""Where the bytes of stored tensors go, and what is done with them when they are there.

A reader asks for the `target` of a tensor, fills it, and says that it is `filled`. Most targets are the parameter's own rows.
What a rank keeps a part of goes through a tensor of its own that is gone afterwards, and so do matrices to be rounded to e4m3;
scales are checked, and spread over the rows that they are for. On a GPU nothing here waits for it: what is computed is enqueued,
on one stream, and whether scales are sound is asked once, by `verify`, when all is read.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from runtime.errors import CheckpointRejected
from runtime.layers.quantized import quantize_channels
from runtime.weights.layout import Role, TensorPlace, scales_of

FILE_DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F8_E4M3": torch.float8_e4m3fn}
"""Torch's dtypes by safetensors' names."""

_COPIED = (Role.PLAIN, Role.E4M3, Role.SCALE)
"""Become a part of their parameter as they are."""


class Placing:
    """The parameters of one model while they are read."""

    def __init__(self, places: Mapping[str, TensorPlace], parameters: Mapping[str, Tensor], dtype: torch.dtype) -> None:
        """
        Args:
            parameters: written in place; scales of inputs begin at 0.
            dtype: of the model; what is rounded to e4m3 is rounded to it first.
        """
        self._places = places
        self._parameters = parameters
        self._dtype = dtype
        self._are_sound: dict[str, Tensor] = {}

    def target(self, name: str) -> Tensor | None:
        """The tensor to fill, of the stored number of elements and any dtype; None for what has no place."""
        place = self._places.get(name)
        if place is None:
            return None
        parameter = self._parameters[place.parameter]
        if place.role in _COPIED:
            if place.cut is None and not place.is_elsewhere:
                return parameter.narrow(0, place.start, place.num_rows)
            return torch.empty(place.shape, dtype=parameter.dtype, device=parameter.device)
        if place.role is Role.TO_ROUND:
            return torch.empty(place.shape, dtype=self._dtype, device=parameter.device)
        return torch.empty(place.shape, dtype=torch.float32, device=parameter.device)

    def filled(self, name: str, target: Tensor) -> None:
        """The tensor has been read."""
        place = self._places[name]
        if place.role is Role.TO_ROUND:
            self._round(place, target)
            return
        if place.role in _COPIED and (place.cut is not None or place.is_elsewhere):
            self._keep(place, target)
        if place.role in (Role.PLAIN, Role.E4M3):
            return
        self._are_sound[name] = (target.isfinite() & (target > 0)).all()
        if place.role is Role.TENSOR_SCALE:
            self._parameters[place.parameter].narrow(0, place.start, place.num_rows).copy_(
                target.expand(place.num_rows)
            )
        elif place.role is Role.INPUT_SCALE:
            scale = self._parameters[place.parameter]
            scale.copy_(torch.maximum(scale, target))

    def verify(self) -> None:
        """That all values are such as their places take; waits for the device.

        Raises: CheckpointRejected for a scale that is NaN, infinite, zero or negative.
        """
        if not self._are_sound:
            return
        sound = torch.stack(list(self._are_sound.values())).tolist()
        for name, is_sound in zip(self._are_sound, sound, strict=True):
            if not is_sound:
                raise CheckpointRejected(f"tensor {name!r}: expected scales that are finite and positive")

    def _keep(self, place: TensorPlace, whole: Tensor) -> None:
        """This rank's part of it."""
        rows, cut = self._parameters[place.parameter].narrow(0, place.start, place.num_rows), place.cut
        if place.is_elsewhere:
            rows.zero_()
        else:
            rows.copy_(whole if cut is None else whole.narrow(cut.dimension, cut.start, cut.length))

    def _round(self, place: TensorPlace, weights: Tensor) -> None:
        """Before it is cut: all ranks round a row by the same scale."""
        values, scales = quantize_channels(weights)
        self._keep(place, values)
        self._keep(replace(place, parameter=scales_of(place.parameter), cut=place.row_cut), scales)
