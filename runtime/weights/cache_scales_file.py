"""The file of `quantization_param_path`: scales of keys and values for a KV cache in e4m3, measured apart from the checkpoint.

    {"model_type": "llama",
     "kv_cache": {"dtype": "float8_e4m3fn",
                  "k_scale": [0.0117, …], "v_scale": [0.0031, …],          one for each layer
                  "scaling_factor": {"0": {"0": 0.0117, …}}},              what SGLang reads: one for both
     "calibration": {…}}                                                   how it was made; not read

Files of SGLang, which have `scaling_factor` alone, are read as well, if they are for one GPU. Whatever is missing, not positive or
for another model is refused, and named.

Source: SGLang's `QuantParamSchema`.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.errors import CheckpointRejected
from runtime.weights.config import MODEL_TYPES, ModelConfig
from runtime.weights.fields import Fields
from runtime.weights.json_file import parse_json_object, read_regular_file

MAX_FILE_BYTES = 1 << 22
_DTYPE = "float8_e4m3fn"


@dataclass(frozen=True, slots=True)
class LayerScales:
    """What a layer's keys and values are divided by before they are rounded."""

    key: float
    value: float


@dataclass(frozen=True, slots=True)
class CacheScalesFile:
    """A file that was read."""

    layers: tuple[LayerScales, ...]
    sha256: str


def load_cache_scales(path: Path, config: ModelConfig) -> CacheScalesFile:
    """Read the scales of a model.

    Raises: CheckpointRejected, naming file, key and layer.
    """
    content = read_regular_file(path, max_bytes=MAX_FILE_BYTES)
    return CacheScalesFile(parse_cache_scales(content, config, where=path.name), hashlib.sha256(content).hexdigest())


def parse_cache_scales(content: bytes, config: ModelConfig, *, where: str) -> tuple[LayerScales, ...]:
    """Parse untrusted bytes. Raises: CheckpointRejected."""
    fields = Fields(parse_json_object(content, where=where), where)
    expected = MODEL_TYPES[config.architecture]
    if fields.text("model_type", default=expected) != expected:
        raise fields.rejected("model_type", f"{expected!r}, as the model is")
    cache = fields.nested("kv_cache")
    if cache.text("dtype") != _DTYPE:
        raise cache.rejected("dtype", repr(_DTYPE))
    if cache.has("k_scale") or cache.has("v_scale"):
        keys, values = (_numbers(cache, name, config.num_layers) for name in ("k_scale", "v_scale"))
    else:
        keys = values = _shared_numbers(cache, config.num_layers)
    return tuple(LayerScales(*pair) for pair in zip(keys, values, strict=True))


def encode_cache_scales(
    layers: Sequence[LayerScales], config: ModelConfig, calibration: Mapping[str, str | int | float]
) -> bytes:
    """The file, as `parse_cache_scales` and SGLang read it."""
    shared = {str(index): max(scales.key, scales.value) for index, scales in enumerate(layers)}
    document = {
        "model_type": MODEL_TYPES[config.architecture],
        "kv_cache": {
            "dtype": _DTYPE,
            "k_scale": [scales.key for scales in layers],
            "v_scale": [scales.value for scales in layers],
            "scaling_factor": {"0": shared},
        },
        "calibration": dict(calibration),
    }
    return json.dumps(document, indent=1).encode() + b"\n"


def _numbers(cache: Fields, name: str, count: int) -> list[float]:
    values = cache.raw(name)
    if type(values) is not list or len(values) != count:
        raise CheckpointRejected(f"{cache.where}: {name}: expected a list of {count} numbers, one for each layer, "
                                 f"found {_described(values)}")  # fmt: skip
    return [_positive(cache, f"{name}[{layer}]", value) for layer, value in enumerate(values)]


def _shared_numbers(cache: Fields, count: int) -> list[float]:
    ranks = cache.nested("scaling_factor")
    if ranks.keys() != ["0"]:
        raise cache.rejected("scaling_factor", "the scales of one GPU, under '0'")
    layers = ranks.nested("0")
    wanted = [str(layer) for layer in range(count)]
    for layer in wanted:
        if not layers.names(layer):
            raise CheckpointRejected(f"{layers.where}: lacks the scale of layer {layer}")
    if len(layers.keys()) != count:
        extra = next(key for key in layers.keys() if key not in wanted)  # noqa: SIM118
        raise CheckpointRejected(f"{layers.where}: layer {extra!r}: the model has {count} layers")
    return [_positive(layers, layer, layers.raw(layer)) for layer in wanted]


def _positive(fields: Fields, name: str, value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value) or not 0 < value <= 1e30:
        raise CheckpointRejected(f"{fields.where}: {name}: expected a positive number, found {value!r}")
    return float(value)


def _described(value: Any) -> str:
    return f"{len(value)}" if type(value) is list else repr(value)[:80]
