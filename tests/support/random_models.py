"""Small models with random weights for a GPU, in the Hugging Face layout."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

VOCAB_SIZE = 2000


def write_random_model(folder: Path, *, head_dim: int = 64, qwen3: bool = False, seed: int = 0, **config: Any) -> Path:
    """A Llama, or a Qwen3, of a given head size; `config` overrides keys of config.json."""
    heads, kv_heads, layers, hidden, inner = 8, 2, 3, 512, 1024
    random = np.random.default_rng(seed)

    def matrix(*shape: int, scale: float = 0.06) -> np.ndarray:
        return random.normal(0.0, scale, shape).astype(np.float32)

    weights = {"model.embed_tokens.weight": matrix(VOCAB_SIZE, hidden, scale=1.0)}
    weights["model.norm.weight"] = 1 + matrix(hidden)
    weights["lm_head.weight"] = matrix(VOCAB_SIZE, hidden, scale=0.25)
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        shapes = {
            "self_attn.q_proj": (heads * head_dim, hidden),
            "self_attn.k_proj": (kv_heads * head_dim, hidden),
            "self_attn.v_proj": (kv_heads * head_dim, hidden),
            "self_attn.o_proj": (hidden, heads * head_dim),
            "mlp.gate_proj": (inner, hidden),
            "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner),
        }
        weights |= {f"{prefix}{name}.weight": matrix(*shape) for name, shape in shapes.items()}
        norms = ["input_layernorm", "post_attention_layernorm"]
        weights |= {f"{prefix}{name}.weight": 1 + matrix(hidden) for name in norms}
        if qwen3:
            weights |= {f"{prefix}self_attn.{name}_norm.weight": 1 + matrix(head_dim) for name in "qk"}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    document = {
        "architectures": ["Qwen3ForCausalLM" if qwen3 else "LlamaForCausalLM"],
        "model_type": "qwen3" if qwen3 else "llama",
        "vocab_size": VOCAB_SIZE,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": False,
        "eos_token_id": 2,
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(document | config))
    return folder
