"""What the folder of a draft head says about it, and whether it fits the model that it is to draft for. Imports no torch.

Format: `config.json` with the architecture `LlamaForCausalLMEagle3` (or vLLM's name for it) and the sizes of one
Llama layer; or that of vLLM's library `speculators`, which has those sizes under `transformer_layer_config`.
`draft_vocab_size` is the head's own vocabulary; absent, it is the target's. Which hidden states the head reads is
said by how many layers they have passed: after 2, n // 2 and n - 3 of n layers, unless the folder names them.
SGLang's `eagle_config.eagle_aux_hidden_state_layer_ids` counts the layer whose output it is, vLLM's key of that name
at the top level the layers passed, which is one more.

Whatever the head would compute differently from how it was trained is refused by name: a head that is run wrong still
drafts, and only its acceptance would tell.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

from runtime.errors import CheckpointRejected
from runtime.weights.config import CONFIG_FILE, ModelConfig
from runtime.weights.fields import Fields
from runtime.weights.json_file import MAX_JSON_BYTES, parse_json_object, read_regular_file
from runtime.weights.rope import RopeConfig, parse_rope

ARCHITECTURES = ("LlamaForCausalLMEagle3", "Eagle3LlamaForCausalLM")
_SPECULATORS = ("Eagle3Speculator", "Eagle3DraftModel")
_SPECULATORS_TYPE, _LAYER = "speculators_model_type", "transformer_layer_config"
NUM_CAPTURED = 3
_LAYER_IDS = "eagle_aux_hidden_state_layer_ids"


@dataclass(frozen=True, slots=True)
class HeadConfig:
    """Shape and arithmetic of one head."""

    vocab_size: int
    draft_vocab_size: int
    hidden_size: int
    target_hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_eps: float
    rope: RopeConfig
    norm_before_residual: bool
    """Whether the residual around attention is the normalized hidden state (vLLM's name)."""
    may_differ_in_embedding: bool
    """Whether an embedding in the folder counts where it is not the target's: so vLLM has it, and SGLang has not."""
    captured_layers: tuple[int, ...]
    """How many layers of the target each of the hidden states has passed, ascending."""
    files: tuple[tuple[str, bytes], ...] = field(default=(), repr=False)
    """Name and content of the file this was parsed from."""

    @property
    def needs_own_embedding(self) -> bool:
        """Whether its target's embedding has another size than its own."""
        return self.hidden_size != self.target_hidden_size

    @property
    def kv_elements_per_token(self) -> int:
        """Numbers that its cache keeps for one token."""
        return 2 * self.num_kv_heads * self.head_dim


def load_head_config(folder: Path, target: ModelConfig) -> HeadConfig:
    """Read a head's `config.json`.

    Raises: CheckpointRejected, naming the key, for what is not supported or does not fit the target.
    """
    content = read_regular_file(folder / CONFIG_FILE, max_bytes=MAX_JSON_BYTES)
    where = f"{folder.name}/{CONFIG_FILE}"
    config = _parse(Fields(parse_json_object(content, where=where), where), target)
    return replace(config, files=((CONFIG_FILE, content),))


def _parse(fields: Fields, target: ModelConfig) -> HeadConfig:
    is_speculators = fields.has(_SPECULATORS_TYPE)
    layer = fields.nested(_LAYER) if is_speculators else fields
    if is_speculators:
        _verify_speculators(fields, layer)
    elif not set(_one_architecture(fields)) <= set(ARCHITECTURES):
        raise fields.rejected("architectures", f"one of {', '.join(ARCHITECTURES)} (a head of EAGLE-3)")
    _refuse_unsupported(fields, layer)
    vocab_size = layer.integer("vocab_size", 1, 1 << 22)
    if vocab_size != target.vocab_size:
        raise layer.rejected("vocab_size", f"the target's {target.vocab_size}")
    hidden_size = layer.integer("hidden_size", 1, 1 << 17)
    target_hidden_size = fields.integer("target_hidden_size", 1, 1 << 17, default=hidden_size)
    if target_hidden_size != target.hidden_size:
        has_both = fields.has("target_hidden_size")
        where, key = (fields, "target_hidden_size") if has_both else (layer, "hidden_size")
        raise where.rejected(key, f"the target's {target.hidden_size}")
    num_heads = layer.integer("num_attention_heads", 1, 1 << 10)
    num_kv_heads = layer.integer("num_key_value_heads", 1, num_heads, default=num_heads)
    if num_heads % num_kv_heads:
        raise layer.rejected("num_key_value_heads", f"a divisor of num_attention_heads ({num_heads})")
    head_dim = layer.integer("head_dim", 2, 1 << 12, default=max(2, hidden_size // num_heads))
    if head_dim % 2:
        raise layer.rejected("head_dim", "an even number")
    return HeadConfig(
        vocab_size=vocab_size,
        draft_vocab_size=fields.integer("draft_vocab_size", 1, vocab_size, default=vocab_size),
        hidden_size=hidden_size,
        target_hidden_size=target_hidden_size,
        intermediate_size=layer.integer("intermediate_size", 1, 1 << 20),
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        rms_norm_eps=layer.number("rms_norm_eps", 0.0, 1.0, default=1e-6),
        rope=parse_rope(layer),
        norm_before_residual=fields.boolean("norm_before_residual", default=False),
        may_differ_in_embedding=is_speculators or fields.texts("architectures") == ["Eagle3LlamaForCausalLM"],
        captured_layers=_parse_layers(fields, target.num_layers),
    )


def _verify_speculators(fields: Fields, layer: Fields) -> None:
    if fields.text(_SPECULATORS_TYPE) != "eagle3":
        raise fields.rejected(_SPECULATORS_TYPE, "'eagle3'")
    if not set(_one_architecture(fields)) <= set(_SPECULATORS):
        raise fields.rejected("architectures", f"one of {', '.join(_SPECULATORS)} (a head of EAGLE-3)")
    if layer.text("model_type", default="llama") != "llama":
        raise layer.rejected("model_type", "'llama' (the layer of a head)")
    if not fields.has("norm_before_residual"):
        # Its publisher takes false for it, and vLLM true.
        raise fields.rejected("norm_before_residual", "true or false")


def _one_architecture(fields: Fields) -> list[str]:
    names = fields.texts("architectures")
    if len(names) != 1:
        raise fields.rejected("architectures", "one name")
    return names


def _refuse_unsupported(fields: Fields, layer: Fields) -> None:
    layer.integer("num_hidden_layers", 1, 1, default=1)
    if layer.text("hidden_act", default="silu") != "silu":
        raise layer.rejected("hidden_act", "'silu'")
    for key in ("attention_bias", "mlp_bias", "bias"):
        if layer.boolean(key, default=False):
            raise layer.rejected(key, "false (heads have no biases)")
    for key in ("norm_before_fc", "fc_norm", "norm_output"):
        if fields.boolean(key, default=False):
            raise fields.rejected(key, "false (heads have no norm there)")
    for each in (fields, layer):
        if each.has("quantization_config"):
            raise each.rejected("quantization_config", "nothing (heads are not quantized)")


def _parse_layers(fields: Fields, num_layers: int) -> tuple[int, ...]:
    named, passed = fields, 0
    if fields.has("eagle_config"):
        nested = fields.nested("eagle_config")
        if not nested.boolean("use_aux_hidden_state", default=True):
            raise nested.rejected("use_aux_hidden_state", "true (a head without it is none of EAGLE-3)")
        if nested.raw(_LAYER_IDS):
            named, passed = nested, 1
    layers: tuple[int, ...] = (2, num_layers // 2, num_layers - 3)
    expected = f"{NUM_CAPTURED} different layers of the target's {num_layers}, ascending"
    if named.raw(_LAYER_IDS):
        layers = tuple(index + passed for index in named.ids(_LAYER_IDS, num_layers + 1 - passed))
    elif not 0 < layers[0] < layers[1] < layers[2]:
        raise CheckpointRejected(
            f"{fields.where}: {_LAYER_IDS}: expected {expected}, as the usual ones are {list(layers)}; found nothing"
        )
    if len(layers) != NUM_CAPTURED or list(layers) != sorted(set(layers)) or layers[0] < 1:
        raise named.rejected(_LAYER_IDS, expected)
    return layers
