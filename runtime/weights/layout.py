"""Which tensors a checkpoint of a model must hold, and where each goes in the fused parameters that the layers use.

Queries, keys and values share one matrix, gate and up projection another: one product instead of three or two. The
checkpoint's tensors are row ranges of these. Names on the left are transformers', on the right ours.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum

from runtime.errors import CheckpointRejected
from runtime.weights.config import ModelConfig
from runtime.weights.quantization import BLOCK, Quantization


class Role(Enum):
    """What a stored tensor is, and so how it becomes a part of a parameter."""

    PLAIN = "plain"
    """Numbers, converted to the model's dtype."""
    E4M3 = "e4m3"
    """A matrix in e4m3."""
    TO_ROUND = "to round"
    """A matrix that is rounded to e4m3 as it is read; its scales follow."""
    SCALE = "scale"
    """One number for each row, or each block, of a matrix in e4m3."""
    TENSOR_SCALE = "tensor scale"
    """One number for all rows."""
    INPUT_SCALE = "input scale"
    """One number for the inputs of a layer; where matrices are fused the largest serves."""


@dataclass(frozen=True, slots=True)
class ParameterShape:
    """One of the model's own tensors."""

    shape: tuple[int, ...]
    is_matrix: bool
    """It multiplies activations (and is not merely looked up in, added or scaled by)."""
    role: Role = Role.PLAIN


@dataclass(frozen=True, slots=True)
class TensorPlace:
    """Where a stored tensor goes: rows [start, start + num_rows) of a parameter."""

    shape: tuple[int, ...]
    parameter: str
    start: int = 0
    role: Role = Role.PLAIN
    rows: int | None = None
    """Of the parameter, if not as many as the tensor has."""

    @property
    def num_rows(self) -> int:
        """How many rows of the parameter are its."""
        return self.shape[0] if self.rows is None else self.rows


def parameter_shapes(config: ModelConfig) -> dict[str, ParameterShape]:
    """Shapes of all parameters of the model, by our names."""
    shapes: dict[str, ParameterShape] = {}
    for place in tensor_places(config).values():
        _add_shape(shapes, place)
        if place.role is Role.TO_ROUND:
            _add_shape(
                shapes, replace(place, parameter=scales_of(place.parameter), shape=place.shape[:1], role=Role.SCALE)
            )
    return shapes


def _add_shape(shapes: dict[str, ParameterShape], place: TensorPlace) -> None:
    known = shapes[place.parameter].shape[0] if place.parameter in shapes else 0
    shape = (max(known, place.start + place.num_rows), *place.shape[1:])
    is_matrix = place.role is Role.PLAIN and len(shape) == 2 and place.parameter != "embedding.weight"
    shapes[place.parameter] = ParameterShape(shape, is_matrix, place.role)


def scales_of(weight: str) -> str:
    """The name of the scales of a matrix in e4m3."""
    return weight.removesuffix("weight") + "scales"


def input_scale_of(weight: str) -> str:
    """The name of the scale of its inputs, where the checkpoint has one."""
    return weight.removesuffix("weight") + "input_scale"


def tensor_places(config: ModelConfig) -> dict[str, TensorPlace]:
    """Every tensor that a checkpoint must hold, by its name there.

    Raises: CheckpointRejected for a quantization that does not fit the model's shape.
    """
    places = {
        "model.embed_tokens.weight": TensorPlace((config.vocab_size, config.hidden_size), "embedding.weight"),
        "model.norm.weight": TensorPlace((config.hidden_size,), "norm.weight"),
    }
    if not config.tie_word_embeddings:
        places["lm_head.weight"] = TensorPlace((config.vocab_size, config.hidden_size), "head.weight")
    for layer in range(config.num_layers):
        for name, place in (*_attention_places(config), *_mlp_places(config)):
            places[f"model.layers.{layer}.{name}"] = replace(place, parameter=f"layers.{layer}.{place.parameter}")
    return places if config.quantization is None else _quantized_places(places, config.quantization)


def _quantized_places(places: dict[str, TensorPlace], quantization: Quantization) -> dict[str, TensorPlace]:
    found: dict[str, TensorPlace] = {}
    covered: dict[str, str] = {}
    for name, place in places.items():
        module = name.removesuffix(".weight")
        if len(place.shape) != 2 or place.parameter == "embedding.weight":
            found[name] = place
            continue
        is_covered = quantization.covers(module)
        other = covered.setdefault(place.parameter, module if is_covered else "")
        if bool(other) != is_covered:
            raise CheckpointRejected(f"quantization: {module} shares a matrix with others of which some are ignored")
        found |= dict(_matrix_places(module, place, quantization)) if is_covered else {name: place}
    return found


def _matrix_places(module: str, place: TensorPlace, quantization: Quantization) -> Iterator[tuple[str, TensorPlace]]:
    if quantization.form == "at load":
        yield f"{module}.weight", replace(place, role=Role.TO_ROUND)
        return
    yield f"{module}.weight", replace(place, role=Role.E4M3)
    rows, columns = place.shape
    scale = replace(place, parameter=scales_of(place.parameter), role=Role.SCALE)
    if quantization.scales == "block":
        if place.start % BLOCK or columns % BLOCK:
            raise CheckpointRejected(f"quantization: {module}: {rows}x{columns} cannot be fused in blocks of {BLOCK}")
        shape = (-(-rows // BLOCK), columns // BLOCK)
        yield f"{module}.weight_scale_inv", replace(scale, shape=shape, start=place.start // BLOCK)
    elif quantization.scales == "channel":
        yield f"{module}.weight_scale", replace(scale, shape=(rows,))
    else:
        yield f"{module}.weight_scale", replace(scale, shape=(1,), role=Role.TENSOR_SCALE, rows=rows)
    if quantization.static_inputs:
        yield (
            f"{module}.input_scale",
            TensorPlace((1,), input_scale_of(place.parameter), role=Role.INPUT_SCALE),
        )


def _attention_places(config: ModelConfig) -> Iterator[tuple[str, TensorPlace]]:
    hidden = config.hidden_size
    q_rows, kv_rows = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    yield "input_layernorm.weight", TensorPlace((hidden,), "attention_norm.weight")
    for name, start, rows in (("q", 0, q_rows), ("k", q_rows, kv_rows), ("v", q_rows + kv_rows, kv_rows)):
        yield f"self_attn.{name}_proj.weight", TensorPlace((rows, hidden), "qkv.weight", start)
        if config.qkv_bias:
            yield f"self_attn.{name}_proj.bias", TensorPlace((rows,), "qkv.bias", start)
    if config.qk_norm:
        yield "self_attn.q_norm.weight", TensorPlace((config.head_dim,), "query_norm.weight")
        yield "self_attn.k_norm.weight", TensorPlace((config.head_dim,), "key_norm.weight")
    yield "self_attn.o_proj.weight", TensorPlace((hidden, q_rows), "output.weight")
    if config.output_bias:
        yield "self_attn.o_proj.bias", TensorPlace((hidden,), "output.bias")


def _mlp_places(config: ModelConfig) -> Iterator[tuple[str, TensorPlace]]:
    hidden, inner = config.hidden_size, config.intermediate_size
    yield "post_attention_layernorm.weight", TensorPlace((hidden,), "mlp_norm.weight")
    for name, parameter, start, rows, columns in (
        ("gate", "gate_up", 0, inner, hidden),
        ("up", "gate_up", inner, inner, hidden),
        ("down", "down", 0, hidden, inner),
    ):
        yield f"mlp.{name}_proj.weight", TensorPlace((rows, columns), f"{parameter}.weight", start)
        if config.mlp_bias:
            yield f"mlp.{name}_proj.bias", TensorPlace((rows,), f"{parameter}.bias", start)
