"""A head's folder as SGLang, vLLM and our own engine load it: `config.json` and `model.safetensors`.

Weights are bfloat16; `d2t` is int64 and `t2d` bool. The embedding is not in it: whoever serves takes the target's. Both keys
that name the captured layers are written, as each engine reads another one (see `runtime.training.draft.target`).
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from runtime.training.draft.head import DraftHead, HeadShape
from runtime.training.draft.vocabulary import DraftVocabulary
from runtime.training.storing import store_tensors, store_text
from runtime.weights.config import ModelConfig
from runtime.weights.rope import RopeConfig

ARCHITECTURE = "LlamaForCausalLMEagle3"
WEIGHTS_FILE, CONFIG_FILE = "model.safetensors", "config.json"


def save_head(head: DraftHead, vocabulary: DraftVocabulary, target: ModelConfig, folder: Path) -> int:
    """Write both files and return the size of the weights in bytes.

    Raises: TrainingStopped if the disk does not take them.
    """
    tensors = {name: parameter.detach().to("cpu", torch.bfloat16) for name, parameter in head.named_parameters()}
    tensors["d2t"], tensors["t2d"] = vocabulary.offsets.cpu(), vocabulary.is_drafted.cpu()
    store_tensors(tensors, folder / WEIGHTS_FILE, {"format": "pt"})
    store_text(json.dumps(_describe(head.shape, target), indent=2) + "\n", folder / CONFIG_FILE)
    return (folder / WEIGHTS_FILE).stat().st_size


def load_head_tensors(head: DraftHead, folder: Path) -> DraftVocabulary:
    """Read a folder that `save_head` wrote into a head of its shape, and return its vocabulary."""
    tensors = load_file(folder / WEIGHTS_FILE)
    offsets, drafted = tensors.pop("d2t"), tensors.pop("t2d")
    head.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, strict=True)
    return DraftVocabulary(offsets + torch.arange(len(offsets)), len(drafted))


def _describe(shape: HeadShape, target: ModelConfig) -> dict[str, Any]:
    """`config.json`."""
    ends = list(target.eos_token_ids)
    return {
        "architectures": [ARCHITECTURE],
        "model_type": "llama",
        "vocab_size": shape.vocab_size,
        "draft_vocab_size": shape.draft_vocab_size,
        "hidden_size": shape.hidden_size,
        "target_hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": 1,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "head_dim": shape.head_dim,
        "max_position_embeddings": shape.max_position,
        "rms_norm_eps": shape.rms_norm_eps,
        "rope_theta": shape.rope.theta,
        "rope_scaling": _describe_rope(shape.rope),
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "bos_token_id": target.bos_token_id,
        "eos_token_id": ends[0] if len(ends) == 1 else ends,
        "eagle_config": {
            "use_aux_hidden_state": True,
            "eagle_aux_hidden_state_layer_ids": [after - 1 for after in shape.captured_layers],
        },
        "eagle_aux_hidden_state_layer_ids": list(shape.captured_layers),
    }


def _describe_rope(rope: RopeConfig) -> dict[str, Any] | None:
    """`rope_scaling`, or None for the plain kind."""
    if rope.kind == "default":
        return None
    described: dict[str, Any] = {"rope_type": rope.kind, "factor": rope.factor}
    if rope.kind == "llama3":
        described |= {
            "low_freq_factor": rope.low_freq_factor,
            "high_freq_factor": rope.high_freq_factor,
            "original_max_position_embeddings": rope.original_max_position,
        }
    if rope.kind == "yarn":
        described |= {
            "original_max_position_embeddings": rope.original_max_position,
            "beta_fast": rope.beta_fast,
            "beta_slow": rope.beta_slow,
            "truncate": rope.truncates,
            "attention_factor": rope.attention_factor,
        }
    return described
