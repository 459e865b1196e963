"""What a configuration says about FP8: which matrices are stored in e4m3, and how their numbers are scaled.

Three forms are read: compressed-tensors (`float-quantized`), `fbgemm_fp8`, and `fp8` with blocks of 128x128 or one scale for
each tensor. Activations are W8A8 in all of them; where they are dynamic their scales are by row (token), also where a
checkpoint says by tensor, so that no request changes another's numbers. Everything else is refused by name.

Sources: compressed-tensors' `QuantizationConfig`; transformers' `FbgemmFp8Config` and `FineGrainedFP8Config`.
"""

import re
from dataclasses import dataclass
from typing import Literal

from runtime.errors import CheckpointRejected
from runtime.weights.fields import Fields

BLOCK = 128
HEAD = "lm_head"

_MAX_IGNORED = 10_000
_MAX_PATTERN = 200


@dataclass(frozen=True, slots=True)
class Quantization:
    """How the linear layers of a model are quantized."""

    form: Literal["compressed-tensors", "fbgemm_fp8", "fp8", "at load"]
    """`at load`: the checkpoint is not quantized; its matrices are rounded as they are read."""
    scales: Literal["tensor", "channel", "block"]
    """What of a weight shares a scale."""
    static_inputs: bool = False
    """The checkpoint has a scale for each layer's inputs."""
    input_bound: float | None = None
    """Inputs beyond this magnitude are cut off."""
    cache_scales: bool = False
    """The checkpoint has scales of keys and values, for a KV cache in e4m3."""
    ignored: tuple[str, ...] = ()
    """Modules that are not quantized: names, their first or last parts, or patterns that begin with `re:`."""

    def covers(self, module: str) -> bool:
        """Whether a linear layer, by its name in the checkpoint, is quantized. Only compressed-tensors quantizes heads."""
        if module == HEAD and self.form != "compressed-tensors":
            return False
        return not any(_matches(entry, module) for entry in self.ignored)


AT_LOAD = Quantization("at load", "channel")


def parse_quantization(fields: Fields) -> Quantization | None:
    """The quantization that `config.json` declares; None: none.

    Raises: CheckpointRejected, naming the key.
    """
    keys = [key for key in ("quantization_config", "compression_config") if fields.has(key)]
    if not keys:
        return None
    if len(keys) > 1:
        raise fields.rejected("compression_config", "nothing beside quantization_config")
    declared = fields.nested(keys[0])
    method = declared.text("quant_method", default="compressed-tensors" if keys[0].startswith("comp") else "")
    if method == "compressed-tensors":
        return _parse_compressed(declared)
    if method == "fbgemm_fp8":
        bound = declared.number("activation_scale_ub", 1e-6, 1e9, default=1200.0)
        return Quantization("fbgemm_fp8", "channel", input_bound=bound, ignored=_ignored(declared))
    if method == "fp8":
        return _parse_fp8(declared)
    raise declared.rejected("quant_method", "'compressed-tensors', 'fbgemm_fp8' or 'fp8'")


def _parse_compressed(declared: Fields) -> Quantization:
    if declared.text("format", default="float-quantized") not in ("float-quantized", "naive-quantized"):
        raise declared.rejected("format", "'float-quantized'")
    groups = declared.nested("config_groups")
    names = groups.keys()
    if len(names) != 1:
        raise declared.rejected("config_groups", "one group")
    group = groups.nested(names[0])
    if group.texts("targets") != ["Linear"]:
        raise group.rejected("targets", "['Linear']")
    weights, inputs = group.nested("weights"), group.nested("input_activations")
    for part in (weights, inputs):
        if part.integer("num_bits", 1, 64) != 8 or part.text("type") != "float":
            raise part.rejected("num_bits", "8, of type 'float'")
        if not part.boolean("symmetric", default=True):
            raise part.rejected("symmetric", "true")
    strategy = weights.text("strategy")
    if strategy == "tensor":
        scales: Literal["tensor", "channel"] = "tensor"
    elif strategy == "channel":
        scales = "channel"
    else:
        raise weights.rejected("strategy", "'tensor' or 'channel'")
    static = not inputs.boolean("dynamic", default=False)
    if inputs.text("strategy") not in (("tensor",) if static else ("tensor", "token")):
        raise inputs.rejected("strategy", "'tensor'" if static else "'token' or 'tensor'")
    return Quantization(
        "compressed-tensors",
        scales,
        static_inputs=static,
        cache_scales=_has_cache_scales(declared),
        ignored=_ignored(declared),
    )


def _has_cache_scales(declared: Fields) -> bool:
    """compressed-tensors describes them as it does activations; AutoFP8 says `static`."""
    if not declared.has("kv_cache_scheme"):
        return False
    if declared.raw("kv_cache_scheme") == "static":
        return True
    scheme = declared.nested("kv_cache_scheme")
    if scheme.integer("num_bits", 1, 64) != 8 or scheme.text("type") != "float":
        raise scheme.rejected("num_bits", "8, of type 'float'")
    if scheme.text("strategy", default="tensor") != "tensor":
        raise scheme.rejected("strategy", "'tensor'")
    if scheme.boolean("dynamic", default=False):
        raise scheme.rejected("dynamic", "false")
    if not scheme.boolean("symmetric", default=True):
        raise scheme.rejected("symmetric", "true")
    return True


def _parse_fp8(declared: Fields) -> Quantization:
    if declared.text("fmt", default="e4m3") not in ("e4m3", "float8_e4m3fn"):
        raise declared.rejected("fmt", "'e4m3'")
    if declared.text("scale_fmt", default="float") != "float":
        raise declared.rejected("scale_fmt", "'float'")
    scheme = declared.text("activation_scheme", default="dynamic")
    if scheme not in ("dynamic", "static"):
        raise declared.rejected("activation_scheme", "'dynamic' or 'static'")
    if not declared.has("weight_block_size"):
        return Quantization(
            "fp8",
            "tensor",
            static_inputs=scheme == "static",
            cache_scales=_has_cache_scales(declared),
            ignored=_ignored(declared),
        )
    if declared.raw("weight_block_size") != [BLOCK, BLOCK]:
        raise declared.rejected("weight_block_size", f"[{BLOCK}, {BLOCK}]")
    if scheme == "static":
        raise declared.rejected("activation_scheme", "'dynamic' with weight_block_size")
    return Quantization("fp8", "block", cache_scales=_has_cache_scales(declared), ignored=_ignored(declared))


def _ignored(declared: Fields) -> tuple[str, ...]:
    entries: list[str] = []
    for key in ("ignore", "ignored_layers", "modules_to_not_convert"):
        if declared.has(key):
            entries += declared.texts(key)
    if len(entries) > _MAX_IGNORED or any(len(entry) > _MAX_PATTERN for entry in entries):
        raise CheckpointRejected(f"{declared.where}: more than {_MAX_IGNORED} ignored modules, or too long a name")
    for entry in entries:
        if entry.startswith("re:"):
            _compile(entry, declared.where)
    return tuple(entries)


def _compile(entry: str, where: str) -> None:
    try:
        re.compile(entry[3:])
    except re.error as error:
        raise CheckpointRejected(f"{where}: ignored module {entry!r} is no pattern: {error}") from error


def _matches(entry: str, module: str) -> bool:
    if entry.startswith("re:"):
        return re.match(entry[3:], module) is not None
    return f".{module}.".startswith(f".{entry}.") or f".{module}".endswith(f".{entry}")
