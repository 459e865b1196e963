"""Which tensors a checkpoint of a model must hold, and where each goes in the fused parameters that the layers use.

Queries, keys and values share one matrix, gate and up projection another: one product instead of three or two. The
checkpoint's tensors are row ranges of these. Names on the left are transformers', on the right ours.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from runtime.weights.config import ModelConfig


@dataclass(frozen=True, slots=True)
class ParameterShape:
    """One of the model's own tensors."""

    shape: tuple[int, ...]
    is_matrix: bool
    """It multiplies activations (and is not merely looked up in, added or scaled by)."""


@dataclass(frozen=True, slots=True)
class TensorPlace:
    """Where a stored tensor goes: rows [start, start + shape[0]) of a parameter."""

    shape: tuple[int, ...]
    parameter: str
    start: int = 0


def parameter_shapes(config: ModelConfig) -> dict[str, ParameterShape]:
    """Shapes of all parameters of the model, by our names."""
    shapes: dict[str, tuple[int, ...]] = {}
    for place in tensor_places(config).values():
        known = shapes.get(place.parameter, (0,))
        shapes[place.parameter] = (max(known[0], place.start + place.shape[0]), *place.shape[1:])
    return {
        name: ParameterShape(shape, is_matrix=len(shape) == 2 and name != "embedding.weight")
        for name, shape in shapes.items()
    }


def tensor_places(config: ModelConfig) -> dict[str, TensorPlace]:
    """Every tensor that a checkpoint must hold, by its name there."""
    places = {
        "model.embed_tokens.weight": TensorPlace((config.vocab_size, config.hidden_size), "embedding.weight"),
        "model.norm.weight": TensorPlace((config.hidden_size,), "norm.weight"),
    }
    if not config.tie_word_embeddings:
        places["lm_head.weight"] = TensorPlace((config.vocab_size, config.hidden_size), "head.weight")
    for layer in range(config.num_layers):
        for name, place in (*_attention_places(config), *_mlp_places(config)):
            places[f"model.layers.{layer}.{name}"] = TensorPlace(
                place.shape, f"layers.{layer}.{place.parameter}", place.start
            )
    return places


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
