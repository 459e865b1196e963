"""A small target of six layers and random heads for it, in the formats in which both are published."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

VOCAB_SIZE = 131
HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD_DIM, INNER = 48, 6, 4, 2, 12, 80
DRAFT_VOCAB_SIZE = 40
EOS = 2
CAPTURED = (1, 3, 5)
Tensors = dict[str, np.ndarray]


def _llama_config(vocab_size: int) -> dict[str, Any]:
    return {
        "vocab_size": vocab_size,
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "hidden_act": "silu",
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
    }


def write_target(folder: Path, *, vocab_size: int = VOCAB_SIZE, scale: float = 0.25) -> Path:
    """A Llama with random weights, large enough that its texts are no repetition."""
    random = np.random.default_rng(11)

    def matrix(*shape: int) -> np.ndarray:
        return random.normal(0.0, scale, shape).astype(np.float32)

    weights = {"model.embed_tokens.weight": matrix(vocab_size, HIDDEN), "model.norm.weight": 1 + matrix(HIDDEN)}
    weights["lm_head.weight"] = matrix(vocab_size, HIDDEN)
    shapes = {
        "self_attn.q_proj": (HEADS * HEAD_DIM, HIDDEN),
        "self_attn.k_proj": (KV_HEADS * HEAD_DIM, HIDDEN),
        "self_attn.v_proj": (KV_HEADS * HEAD_DIM, HIDDEN),
        "self_attn.o_proj": (HIDDEN, HEADS * HEAD_DIM),
        "mlp.gate_proj": (INNER, HIDDEN),
        "mlp.up_proj": (INNER, HIDDEN),
        "mlp.down_proj": (HIDDEN, INNER),
    }
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        weights |= {f"{prefix}.{name}.weight": matrix(*shape) for name, shape in shapes.items()}
        norms = ("input_layernorm", "post_attention_layernorm")
        weights |= {f"{prefix}.{name}.weight": 1 + matrix(HIDDEN) for name in norms}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config = _llama_config(vocab_size) | {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_hidden_layers": LAYERS,
        "eos_token_id": EOS,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def head_config(**changes: Any) -> dict[str, Any]:
    """`config.json` of a head of the small target; None takes a key away."""
    config = _llama_config(VOCAB_SIZE) | {
        "architectures": ["LlamaForCausalLMEagle3"],
        "model_type": "llama",
        "num_hidden_layers": 1,
        "draft_vocab_size": DRAFT_VOCAB_SIZE,
        "eagle_config": {"eagle_aux_hidden_state_layer_ids": [after - 1 for after in CAPTURED]},
    }
    config |= changes
    return {key: value for key, value in config.items() if value is not None}


def speculators_config(**changes: Any) -> dict[str, Any]:
    """The same of vLLM's library; `changes` are to its own keys, None takes one away, or to the layer's with `layer_`."""
    layer = _llama_config(VOCAB_SIZE) | {"model_type": "llama", "num_hidden_layers": 1, "attention_bias": False}
    config: dict[str, Any] = {
        "architectures": ["Eagle3DraftModel"],
        "draft_vocab_size": DRAFT_VOCAB_SIZE,
        "eagle_aux_hidden_state_layer_ids": list(CAPTURED),
        "embed_requires_grad": False,
        "norm_before_fc": False,
        "norm_before_residual": True,
        "speculators_config": {
            "algorithm": "eagle3",
            "default_proposal_method": "greedy",
            "proposal_methods": [{"proposal_type": "greedy", "speculative_tokens": 3}],
            "verifier": {"architectures": ["LlamaForCausalLM"], "name_or_path": "target"},
        },
        "speculators_model_type": "eagle3",
        "speculators_version": "0.3.0",
        "target_hidden_size": None,
        "torch_dtype": "float32",
    }
    own = {key: value for key, value in changes.items() if not key.startswith("layer_")}
    layer |= {key.removeprefix("layer_"): value for key, value in changes.items() if key not in own}
    config |= {"transformer_layer_config": layer} | own
    return {key: value for key, value in config.items() if value is not None}


def head_tensors(*, vocab_size: int = VOCAB_SIZE, draft_vocab_size: int = DRAFT_VOCAB_SIZE, seed: int = 3) -> Tensors:
    """Random tensors of a head, by the names that SGLang and SpecForge publish."""
    random = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {
        "fc.weight": (HIDDEN, 3 * HIDDEN),
        "midlayer.input_layernorm.weight": (HIDDEN,),
        "midlayer.hidden_norm.weight": (HIDDEN,),
        "midlayer.post_attention_layernorm.weight": (HIDDEN,),
        "midlayer.self_attn.q_proj.weight": (HEADS * HEAD_DIM, 2 * HIDDEN),
        "midlayer.self_attn.k_proj.weight": (KV_HEADS * HEAD_DIM, 2 * HIDDEN),
        "midlayer.self_attn.v_proj.weight": (KV_HEADS * HEAD_DIM, 2 * HIDDEN),
        "midlayer.self_attn.o_proj.weight": (HIDDEN, HEADS * HEAD_DIM),
        "midlayer.mlp.gate_proj.weight": (INNER, HIDDEN),
        "midlayer.mlp.up_proj.weight": (INNER, HIDDEN),
        "midlayer.mlp.down_proj.weight": (HIDDEN, INNER),
        "norm.weight": (HIDDEN,),
        "lm_head.weight": (draft_vocab_size, HIDDEN),
    }
    tensors = {
        name: (random.normal(0.0, 0.2, shape) + (len(shape) == 1)).astype(np.float32) for name, shape in shapes.items()
    }
    target_ids = np.sort(random.choice(vocab_size, draft_vocab_size, replace=False))
    drafted = np.zeros(vocab_size, np.bool_)
    drafted[target_ids] = True
    return tensors | {"d2t": (target_ids - np.arange(draft_vocab_size)).astype(np.int64), "t2d": drafted}


def write_head(folder: Path, tensors: Tensors | None = None, **changes: Any) -> Path:
    """The folder of a head; `changes` are to its configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(head_tensors() if tensors is None else tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(head_config(**changes)))
    return folder


def write_speculators_head(folder: Path, tensors: Tensors | None = None, **changes: Any) -> Path:
    """The same head as vLLM's library writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    named = (head_tensors() if tensors is None else tensors).items()
    save_file({name.replace("midlayer.", "layers.0."): tensor for name, tensor in named}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(speculators_config(**changes)))
    return folder


def write_random_head(folder: Path, *, seed: int = 4) -> Path:
    """A head for the models of `random_models`, with a vocabulary of half of theirs."""
    hidden, heads, kv_heads, head_dim, inner, vocab_size, draft_vocab_size = 512, 8, 2, 64, 1024, 2000, 1000
    random = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {
        "fc.weight": (hidden, 3 * hidden),
        "midlayer.input_layernorm.weight": (hidden,),
        "midlayer.hidden_norm.weight": (hidden,),
        "midlayer.post_attention_layernorm.weight": (hidden,),
        "midlayer.self_attn.q_proj.weight": (heads * head_dim, 2 * hidden),
        "midlayer.self_attn.k_proj.weight": (kv_heads * head_dim, 2 * hidden),
        "midlayer.self_attn.v_proj.weight": (kv_heads * head_dim, 2 * hidden),
        "midlayer.self_attn.o_proj.weight": (hidden, heads * head_dim),
        "midlayer.mlp.gate_proj.weight": (inner, hidden),
        "midlayer.mlp.up_proj.weight": (inner, hidden),
        "midlayer.mlp.down_proj.weight": (hidden, inner),
        "norm.weight": (hidden,),
        "lm_head.weight": (draft_vocab_size, hidden),
    }
    tensors = {
        name: (random.normal(0.0, 0.06, shape) + (len(shape) == 1)).astype(np.float32) for name, shape in shapes.items()
    }
    tensors["d2t"] = np.arange(draft_vocab_size, dtype=np.int64)  # every other token
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = head_config(
        vocab_size=vocab_size, draft_vocab_size=draft_vocab_size, hidden_size=hidden, intermediate_size=inner,
        num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=head_dim, max_position_embeddings=2048,
        eagle_config={"eagle_aux_hidden_state_layer_ids": [0, 1, 2]},
    )  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder
