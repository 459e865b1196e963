"""A step as bytes, and back: msgpack of the very classes, arrays as shape and content."""

import typing
from typing import Any

import msgspec
import numpy as np

from runtime.batch import StepBatch


def encode_step(batch: StepBatch) -> bytes:
    """See the module."""
    return _ENCODER.encode(batch)


def decode_step(message: bytes) -> StepBatch:
    """What `encode_step` was given; arrays may be written to."""
    return _DECODER.decode(message)


def _encode_array(array: object) -> tuple[tuple[int, ...], bytes]:
    assert isinstance(array, np.ndarray)
    return array.shape, array.tobytes()


def _decode_array(kind: Any, given: Any) -> Any:
    """`kind` is the field's annotation, `numpy.ndarray[shape, numpy.dtype[scalar]]`."""
    dtype = _DTYPES.get(kind)
    if dtype is None:
        dtype = _DTYPES[kind] = np.dtype(typing.get_args(typing.get_args(kind)[1])[0])
    shape, content = given
    return np.frombuffer(content, dtype).reshape(shape).copy()


_DTYPES: dict[Any, np.dtype[Any]] = {}
_ENCODER = msgspec.msgpack.Encoder(enc_hook=_encode_array)
_DECODER = msgspec.msgpack.Decoder(StepBatch, dec_hook=_decode_array)
