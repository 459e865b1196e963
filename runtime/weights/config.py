"""What a model folder says about its model, as frozen values. Imports no torch: the gateway reads limits by this.

Sources: the `config.json` and `generation_config.json` that transformers 4 and 5 write. Where a key is absent, the
default is the one that transformers' class for the architecture has, so that the same folder means the same model.
Unknown architectures, activations, rotary kinds and quantizations are refused by name.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from runtime.errors import CheckpointRejected
from runtime.request import MIN_REPETITION_PENALTY
from runtime.weights.fields import Fields
from runtime.weights.file_check import digests_of
from runtime.weights.json_file import MAX_JSON_BYTES, parse_json_object, read_regular_file
from runtime.weights.quantization import Quantization, parse_quantization
from runtime.weights.rope import RopeConfig, parse_rope

CONFIG_FILE = "config.json"
GENERATION_FILE = "generation_config.json"
MODEL_TYPES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}
DTYPES = ("bfloat16", "float16", "float32")

_MAX_POSITION = 1 << 24
_MISTRAL_WINDOW = 4096
_QWEN_MAX_WINDOW_LAYERS = 28
_QWEN3_HEAD_DIM = 128


@dataclass(frozen=True, slots=True)
class GenerationDefaults:
    """Sampling defaults the model's makers chose; None where `generation_config.json` says nothing.

    `do_sample` is not among them: serving samples unless a request sets temperature 0.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Shape, arithmetic and special tokens of one decoder."""

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_position: int
    """Longest sequence in tokens, prompt and output together."""
    rms_norm_eps: float
    rope: RopeConfig
    tie_word_embeddings: bool
    qkv_bias: bool
    output_bias: bool
    """Bias of the attention's output projection."""
    mlp_bias: bool
    qk_norm: bool
    """RMSNorm over each head of queries and keys before the rotary embedding (Qwen3)."""
    layer_windows: tuple[int | None, ...]
    """Per layer: a token attends to this many latest positions, itself included; None: to all."""
    dtype: str | None
    """Of the stored weights, one of DTYPES; None where the configuration does not say."""
    bos_token_id: int | None
    eos_token_ids: tuple[int, ...]
    """Of both files, without repetition; a model ends its answer with any of them."""
    generation: GenerationDefaults
    quantization: Quantization | None = None
    """Of the stored matrices."""
    files: tuple[tuple[str, bytes], ...] = field(default=(), repr=False)
    """Name and content of the files this was parsed from."""

    @property
    def file_digests(self) -> tuple[tuple[str, str], ...]:
        """Name and SHA-256 (hexadecimal) of those files."""
        return tuple(digests_of(self.files).items())

    @property
    def kv_elements_per_token(self) -> int:
        """Numbers the cache keeps for one token in all layers, keys and values together."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim


def load_model_config(folder: Path) -> ModelConfig:
    """Read `config.json` and, if it is there, `generation_config.json`.

    Raises: CheckpointRejected.
    """
    names = [CONFIG_FILE] + [GENERATION_FILE] * (folder / GENERATION_FILE).exists()
    contents = {name: read_regular_file(folder / name, max_bytes=MAX_JSON_BYTES) for name in names}
    objects = {name: parse_json_object(content, where=name) for name, content in contents.items()}
    config = parse_model_config(objects[CONFIG_FILE], objects.get(GENERATION_FILE, {}))
    return replace(config, files=tuple(contents.items()))


def parse_model_config(config: dict[str, Any], generation: dict[str, Any]) -> ModelConfig:
    """Turn the two untrusted JSON objects into a ModelConfig.

    Raises: CheckpointRejected, naming the key.
    """
    fields = Fields(config, CONFIG_FILE)
    chosen = Fields(generation, GENERATION_FILE)
    architecture = _parse_architecture(fields)
    _refuse_unsupported(fields)
    hidden_size = fields.integer("hidden_size", 1, 1 << 17)
    num_heads = fields.integer("num_attention_heads", 1, 1 << 10)
    num_layers = fields.integer("num_hidden_layers", 1, 1 << 10)
    vocab_size = fields.integer("vocab_size", 1, 1 << 22)
    rope = parse_rope(fields)
    attention_bias = fields.boolean("attention_bias", default=False)
    ends = (*fields.ids("eos_token_id", vocab_size), *chosen.ids("eos_token_id", vocab_size))
    starts = fields.ids("bos_token_id", vocab_size)
    return ModelConfig(
        architecture=architecture,
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=fields.integer("intermediate_size", 1, 1 << 20),
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=_parse_kv_heads(fields, architecture, num_heads),
        head_dim=_parse_head_dim(fields, architecture, hidden_size, num_heads),
        max_position=_parse_max_position(fields, rope),
        rms_norm_eps=fields.number("rms_norm_eps", 0.0, 1.0, default=1e-6),
        rope=rope,
        tie_word_embeddings=fields.boolean("tie_word_embeddings", default=False),
        qkv_bias=architecture == "Qwen2ForCausalLM" or (architecture != "MistralForCausalLM" and attention_bias),
        output_bias=architecture in ("LlamaForCausalLM", "Qwen3ForCausalLM") and attention_bias,
        mlp_bias=architecture == "LlamaForCausalLM" and fields.boolean("mlp_bias", default=False),
        qk_norm=architecture == "Qwen3ForCausalLM",
        layer_windows=_parse_windows(fields, architecture, num_layers),
        dtype=_parse_dtype(fields),
        bos_token_id=starts[0] if starts else None,
        eos_token_ids=tuple(dict.fromkeys(ends)),
        generation=_parse_generation(chosen),
        quantization=parse_quantization(fields),
    )


def _parse_architecture(fields: Fields) -> str:
    names = fields.texts("architectures")
    if len(names) != 1 or names[0] not in MODEL_TYPES:
        raise fields.rejected("architectures", f"one of {', '.join(MODEL_TYPES)}")
    expected = MODEL_TYPES[names[0]]
    if fields.text("model_type", default=expected) != expected:
        raise fields.rejected("model_type", f"{expected!r} for {names[0]}")
    return names[0]


def _refuse_unsupported(fields: Fields) -> None:
    if fields.has("auto_map"):
        raise fields.rejected("auto_map", "nothing (code from a model folder is never run)")
    if fields.text("hidden_act", default="silu") != "silu":
        raise fields.rejected("hidden_act", "'silu'")


def _parse_kv_heads(fields: Fields, architecture: str, num_heads: int) -> int:
    default = num_heads if architecture == "LlamaForCausalLM" else None
    num_kv_heads = fields.integer("num_key_value_heads", 1, num_heads, default=default)
    if num_heads % num_kv_heads:
        raise fields.rejected("num_key_value_heads", f"a divisor of num_attention_heads ({num_heads})")
    return num_kv_heads


def _parse_head_dim(fields: Fields, architecture: str, hidden_size: int, num_heads: int) -> int:
    default = _QWEN3_HEAD_DIM if architecture == "Qwen3ForCausalLM" else hidden_size // num_heads
    if not fields.has("head_dim") and default * num_heads != hidden_size and architecture != "Qwen3ForCausalLM":
        raise fields.rejected("hidden_size", f"a multiple of num_attention_heads ({num_heads})")
    head_dim = fields.integer("head_dim", 2, 1 << 12, default=default)
    if head_dim % 2:
        raise CheckpointRejected(f"{fields.where}: head_dim: expected an even number, found {head_dim}")
    return head_dim


def _parse_max_position(fields: Fields, rope: RopeConfig) -> int:
    """Makers who let `yarn` be switched on leave max_position_embeddings as it is without."""
    given = fields.integer("max_position_embeddings", 1, _MAX_POSITION)
    if rope.kind != "yarn":
        return given
    stretched = int(rope.original_max_position * rope.factor)
    if stretched > _MAX_POSITION:
        raise CheckpointRejected(
            f"{fields.where}: yarn: expected a context of at most {_MAX_POSITION}, found {stretched}"
        )
    return max(given, stretched)


def _parse_windows(fields: Fields, architecture: str, num_layers: int) -> tuple[int | None, ...]:
    has_none = fields.names("sliding_window") and not fields.has("sliding_window")
    is_off = architecture != "MistralForCausalLM" and not fields.boolean("use_sliding_window", default=False)
    if architecture == "LlamaForCausalLM" or has_none or is_off:
        return (None,) * num_layers
    if architecture == "MistralForCausalLM":
        return (fields.integer("sliding_window", 1, 1 << 24, default=_MISTRAL_WINDOW),) * num_layers
    window = fields.integer("sliding_window", 1, 1 << 24, default=_MISTRAL_WINDOW)
    first = fields.integer("max_window_layers", 0, 1 << 16, default=_QWEN_MAX_WINDOW_LAYERS)
    kinds = ["sliding_attention" if layer >= first else "full_attention" for layer in range(num_layers)]
    if fields.has("layer_types"):
        kinds = fields.texts("layer_types")
    if len(kinds) != num_layers or not set(kinds) <= {"sliding_attention", "full_attention"}:
        raise fields.rejected("layer_types", f"{num_layers} of full_attention or sliding_attention")
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)


def _parse_dtype(fields: Fields) -> str | None:
    key = "dtype" if fields.has("dtype") else "torch_dtype"
    if not fields.has(key):
        return None
    dtype = fields.text(key).removeprefix("torch.")
    if dtype not in DTYPES:
        raise fields.rejected(key, f"one of {', '.join(DTYPES)}")
    return dtype


def _parse_generation(fields: Fields) -> GenerationDefaults:
    """The bounds are those of `SamplingParams`; a value that transformers writes to mean "off" is taken as such."""

    def number(key: str, low: float, high: float) -> float | None:
        return fields.number(key, low, high) if fields.has(key) else None

    return GenerationDefaults(
        temperature=number("temperature", 0.0, 100.0),
        top_p=number("top_p", 1e-6, 1.0),
        top_k=max(0, fields.integer("top_k", -1, (1 << 31) - 1)) if fields.has("top_k") else None,
        min_p=number("min_p", 0.0, 1.0),
        repetition_penalty=number("repetition_penalty", MIN_REPETITION_PENALTY, 10.0),
    )
