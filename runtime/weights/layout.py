"""Which tensors a checkpoint of a model must hold, and where each goes in the fused parameters that the layers use.

Queries, keys and values share one matrix, gate and up projection another: one product instead of three or two. The
checkpoint's tensors are row ranges of these. Names on the left are transformers', on the right ours.

Where several ranks share a model (`shares`), the tensors of a checkpoint are the same, and each rank keeps a part of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum

from runtime.errors import CheckpointRejected
from runtime.weights.config import ModelConfig
from runtime.weights.quantization import BLOCK, Quantization
from runtime.weights.shares import WHOLE, Share, cuts_head


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
class Cut:
    """What a rank keeps of a stored tensor: [start, start + length) along one dimension."""

    dimension: int
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class TensorPlace:
    """Where a stored tensor goes: rows [start, start + num_rows) of a parameter."""

    shape: tuple[int, ...]
    """As it is stored."""
    parameter: str
    start: int = 0
    role: Role = Role.PLAIN
    rows: int | None = None
    """Of the parameter, if not as many as the tensor has."""
    cut: Cut | None = None
    """What of it goes there; None: all."""
    is_elsewhere: bool = False
    """Another rank adds it, and this one has zeros in its place."""

    @property
    def kept_shape(self) -> tuple[int, ...]:
        """Of what goes there."""
        if self.cut is None:
            return self.shape
        return (*self.shape[: self.cut.dimension], self.cut.length, *self.shape[self.cut.dimension + 1 :])

    @property
    def num_rows(self) -> int:
        """How many rows of the parameter are its."""
        return self.kept_shape[0] if self.rows is None else self.rows

    @property
    def row_cut(self) -> Cut | None:
        """The same for what there is one of for each row."""
        return None if self.cut is None or self.cut.dimension else self.cut


def parameter_shapes(config: ModelConfig, share: Share = WHOLE) -> dict[str, ParameterShape]:
    """Shapes of all parameters that a rank has of a whole model, by our names."""
    shapes: dict[str, ParameterShape] = {}
    for place in tensor_places(config, share).values():
        _add_shape(shapes, place)
        if place.role is Role.TO_ROUND:
            scales = replace(place, parameter=scales_of(place.parameter), shape=place.shape[:1], cut=place.row_cut)
            _add_shape(shapes, replace(scales, role=Role.SCALE))
    return shapes


def _add_shape(shapes: dict[str, ParameterShape], place: TensorPlace) -> None:
    known = shapes[place.parameter].shape[0] if place.parameter in shapes else 0
    shape = (max(known, place.start + place.num_rows), *place.kept_shape[1:])
    is_matrix = place.role is Role.PLAIN and len(shape) == 2 and place.parameter != "embedding.weight"
    shapes[place.parameter] = ParameterShape(shape, is_matrix, place.role)


def scales_of(weight: str) -> str:
    """The name of the scales of a matrix in e4m3."""
    return weight.removesuffix("weight") + "scales"


def input_scale_of(weight: str) -> str:
    """The name of the scale of its inputs, where the checkpoint has one."""
    return weight.removesuffix("weight") + "input_scale"


def tensor_places(config: ModelConfig, share: Share = WHOLE) -> dict[str, TensorPlace]:
    """Every tensor that a checkpoint of a whole model must hold, by its name there, and what of it a rank keeps.

    Raises: CheckpointRejected for a quantization that does not fit the model's shape.
    """
    places = {
        "model.embed_tokens.weight": TensorPlace((config.vocab_size, config.hidden_size), "embedding.weight"),
        "model.norm.weight": TensorPlace((config.hidden_size,), "norm.weight"),
    }
    if not config.tie_word_embeddings:
        head = TensorPlace((config.vocab_size, config.hidden_size), "head.weight")
        places["lm_head.weight"] = _cut(head, 0, share) if cuts_head(config, share) else head
    for layer in range(config.num_layers):
        for name, place in (*_attention_places(config, share), *_mlp_places(config, share)):
            places[f"model.layers.{layer}.{name}"] = replace(place, parameter=f"layers.{layer}.{place.parameter}")
    return places if config.quantization is None else _quantized_places(places, config.quantization)


def _cut(place: TensorPlace, dimension: int, share: Share) -> TensorPlace:
    """A rank's part of it, of as many parts as there are ranks."""
    if share.size == 1:
        return place
    return replace(place, cut=Cut(dimension, *share.span(place.shape[dimension])))


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
    scale = replace(place, parameter=scales_of(place.parameter), role=Role.SCALE, cut=place.row_cut)
    if quantization.scales == "block":
        if place.start % BLOCK or columns % BLOCK:
            raise CheckpointRejected(f"quantization: {module}: {rows}x{columns} cannot be fused in blocks of {BLOCK}")
        shape = (-(-rows // BLOCK), columns // BLOCK)
        blocks = replace(scale, shape=shape, start=place.start // BLOCK, cut=_cut_of_blocks(module, place))
        yield f"{module}.weight_scale_inv", blocks
    elif quantization.scales == "channel":
        yield f"{module}.weight_scale", replace(scale, shape=(rows,))
    else:
        scale = replace(scale, shape=(1,), role=Role.TENSOR_SCALE, rows=place.num_rows, cut=None)
        yield f"{module}.weight_scale", scale
    if quantization.static_inputs:
        yield (
            f"{module}.input_scale",
            TensorPlace((1,), input_scale_of(place.parameter), role=Role.INPUT_SCALE),
        )


def _cut_of_blocks(module: str, place: TensorPlace) -> Cut | None:
    """The cut of a matrix as one of its scales. Raises: CheckpointRejected."""
    if place.cut is None:
        return None
    cut = place.cut
    if cut.start % BLOCK or cut.length % BLOCK:
        raise CheckpointRejected(
            f"quantization: {module}: tp_size cuts it into parts of {cut.length}, which are no whole blocks of {BLOCK}"
        )
    return Cut(cut.dimension, cut.start // BLOCK, cut.length // BLOCK)


def _attention_places(config: ModelConfig, share: Share) -> Iterator[tuple[str, TensorPlace]]:
    hidden = config.hidden_size
    q_rows, kv_rows = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    yield "input_layernorm.weight", TensorPlace((hidden,), "attention_norm.weight")
    start = 0
    for name, rows in (("q", q_rows), ("k", kv_rows), ("v", kv_rows)):
        yield f"self_attn.{name}_proj.weight", _cut(TensorPlace((rows, hidden), "qkv.weight", start), 0, share)
        if config.qkv_bias:
            yield f"self_attn.{name}_proj.bias", _cut(TensorPlace((rows,), "qkv.bias", start), 0, share)
        start += rows // share.size
    if config.qk_norm:
        yield "self_attn.q_norm.weight", TensorPlace((config.head_dim,), "query_norm.weight")
        yield "self_attn.k_norm.weight", TensorPlace((config.head_dim,), "key_norm.weight")
    yield "self_attn.o_proj.weight", _cut(TensorPlace((hidden, q_rows), "output.weight"), 1, share)
    if config.output_bias:
        yield "self_attn.o_proj.bias", TensorPlace((hidden,), "output.bias", is_elsewhere=share.rank > 0)


def _mlp_places(config: ModelConfig, share: Share) -> Iterator[tuple[str, TensorPlace]]:
    hidden, inner = config.hidden_size, config.intermediate_size
    yield "post_attention_layernorm.weight", TensorPlace((hidden,), "mlp_norm.weight")
    for name, start in (("gate", 0), ("up", inner // share.size)):
        yield f"mlp.{name}_proj.weight", _cut(TensorPlace((inner, hidden), "gate_up.weight", start), 0, share)
        if config.mlp_bias:
            yield f"mlp.{name}_proj.bias", _cut(TensorPlace((inner,), "gate_up.bias", start), 0, share)
    yield "mlp.down_proj.weight", _cut(TensorPlace((hidden, inner), "down.weight"), 1, share)
    if config.mlp_bias:
        yield "mlp.down_proj.bias", TensorPlace((hidden,), "down.bias", is_elsewhere=share.rank > 0)
