"""The scales of keys and values that a checkpoint brings for a KV cache in e4m3: one number each for every layer.

Their names differ by who wrote the checkpoint; all of these mean the same, below `model.layers.N.self_attn`:

- `k_scale`, `v_scale`: compressed-tensors;
- `k_proj.k_scale`, `v_proj.v_scale`: ModelOpt;
- `k_proj.output_scale`, `v_proj.output_scale`: older compressed-tensors, Quark;
- `kv_scale`: AutoFP8, one for both.

A checkpoint has them for all layers or for none; `config.json` may say that it has, by `kv_cache_scheme`.

Source: vLLM's `maybe_remap_kv_scale_name`; llm-compressor's and AutoFP8's exports.
"""

from collections.abc import Container, Iterator

from runtime.errors import CheckpointRejected
from runtime.weights.config import ModelConfig
from runtime.weights.layout import Role, TensorPlace

CACHE_SCALES = "cache_scales"
"""The parameter that they become: [2 * num_layers], a layer's keys before its values."""

_NAMES = {
    0: ("k_scale", "k_proj.k_scale", "k_proj.output_scale", "kv_scale"),
    1: ("v_scale", "v_proj.v_scale", "v_proj.output_scale", "kv_scale"),
}
_PARTS = ("keys", "values")


def cache_scale_places(config: ModelConfig, stored: Container[str]) -> dict[str, TensorPlace]:
    """Where each scale of a checkpoint goes; nothing if it has none.

    Args:
        stored: names of all its tensors.
    Raises: CheckpointRejected if some are missing, or two are for the same.
    """
    found: dict[str, TensorPlace] = {}
    missing: list[str] = []
    for layer in range(config.num_layers):
        for part in _NAMES:
            names = list(_stored_names(layer, part, stored))
            if len(names) > 1:
                raise CheckpointRejected(f"checkpoint has two scales for the {_PARTS[part]} of layer {layer}: {names}")
            if not names:
                missing.append(f"the {_PARTS[part]} of layer {layer}")
            elif names[0].endswith(".kv_scale"):
                found[names[0]] = _place(2 * layer, rows=2)
            else:
                found[names[0]] = _place(2 * layer + part, rows=1)
    declared = config.quantization is not None and config.quantization.cache_scales
    if missing and (found or declared):
        raise CheckpointRejected(
            f"checkpoint lacks scales of the KV cache for {missing[0]}"
            + (f" and {len(missing) - 1} others" if missing[1:] else "")
            + (": config.json says by kv_cache_scheme that it has them" if declared else "")
        )
    return found


def _stored_names(layer: int, part: int, stored: Container[str]) -> Iterator[str]:
    names = (f"model.layers.{layer}.self_attn.{name}" for name in _NAMES[part])
    return (name for name in names if name in stored)


def _place(start: int, *, rows: int) -> TensorPlace:
    return TensorPlace((1,), CACHE_SCALES, start, Role.TENSOR_SCALE, rows)
