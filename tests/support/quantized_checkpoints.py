"""Small checkpoints in the FP8 formats that people have, written from float32 weights."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

E4M3 = torch.float8_e4m3fn
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 96,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "eos_token_id": 2,
    "torch_dtype": "bfloat16",
}


def compressed(strategy: str, *, dynamic: bool, **more: Any) -> dict[str, Any]:
    """A `quantization_config` of compressed-tensors."""
    numbers = {"num_bits": 8, "type": "float", "symmetric": True}
    inputs = numbers | {"dynamic": dynamic, "strategy": "token" if dynamic else "tensor"}
    group = {
        "targets": ["Linear"],
        "weights": numbers | {"dynamic": False, "strategy": strategy},
        "input_activations": inputs,
    }
    given = {"quant_method": "compressed-tensors", "format": "float-quantized", "ignore": ["lm_head"]}
    return given | {"config_groups": {"group_0": group}, "kv_cache_scheme": None} | more


CACHE_SCHEME: dict[str, Any] = {
    "num_bits": 8, "type": "float", "strategy": "tensor", "dynamic": False, "symmetric": True,
}  # fmt: skip
"""compressed-tensors' way to say that a checkpoint has scales of keys and values."""


def cache_scale_tensors(key_name: str, value_name: str) -> dict[str, Tensor]:
    """Scales of all layers under names below `self_attn`: 0.5 and 1.5 of keys, half as much of values."""
    return {
        f"model.layers.{layer}.self_attn.{name}": torch.tensor([factor * (0.5 + layer)], dtype=torch.bfloat16)
        for layer in range(CONFIG["num_hidden_layers"])
        for name, factor in ((key_name, 1.0), (value_name, 0.5))
    }


@dataclass(frozen=True)
class Format:
    """One way to store a quantized matrix."""

    declared: Mapping[str, Any]
    split: Callable[[Tensor], dict[str, Tensor]]
    """A matrix → tensors by the ends of their names."""


def by_tensor(weight: Tensor) -> dict[str, Tensor]:
    scale = weight.abs().max() / 448
    return {"weight": (weight / scale).to(E4M3), "weight_scale": scale.float().reshape(1)}


def by_channel(weight: Tensor) -> dict[str, Tensor]:
    scale = (weight.abs().amax(1, keepdim=True) / 448).bfloat16().float()
    return {"weight": (weight / scale).clamp(-448, 448).to(E4M3), "weight_scale": scale}


def by_block(weight: Tensor) -> dict[str, Tensor]:
    blocks = weight.unflatten(0, (-1, 128)).unflatten(2, (-1, 128))
    scale = blocks.abs().amax((1, 3)) / 448
    values = (blocks / scale[:, None, :, None]).flatten(2, 3).flatten(0, 1)
    return {"weight": values.to(E4M3), "weight_scale_inv": scale.float()}


def with_input(split: Callable[[Tensor], dict[str, Tensor]]) -> Callable[[Tensor], dict[str, Tensor]]:
    def both(weight: Tensor) -> dict[str, Tensor]:
        return split(weight) | {"input_scale": torch.tensor(0.05) * (1 + weight.shape[0] / 128)}

    return both


FORMATS = {
    "compressed-tensors, tensor, dynamic": Format(compressed("tensor", dynamic=True), by_tensor),
    "compressed-tensors, tensor, static": Format(compressed("tensor", dynamic=False), with_input(by_tensor)),
    "compressed-tensors, channel, dynamic": Format(compressed("channel", dynamic=True), by_channel),
    "fbgemm_fp8": Format({"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0}, by_channel),
    "fp8, block": Format(
        {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]},
        by_block,
    ),
    "fp8, tensor, static": Format(
        {"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": ["lm_head"]}, with_input(by_tensor)
    ),
}


def plain_tensors() -> dict[str, Tensor]:
    """The model before it was quantized; fused matrices differ in size by up to 8."""
    generator = torch.Generator().manual_seed(0)
    hidden, inner, vocab = CONFIG["hidden_size"], CONFIG["intermediate_size"], CONFIG["vocab_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,), "lm_head.weight": (vocab, hidden),
    }  # fmt: skip
    for layer in range(CONFIG["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        shapes |= {f"{prefix}self_attn.{name}_proj.weight": (hidden, hidden) for name in "qkvo"}
        shapes |= {f"{prefix}mlp.{name}_proj.weight": (inner, hidden) for name in ("gate", "up")}
        shapes |= {f"{prefix}mlp.down_proj.weight": (hidden, inner)}
        shapes |= {f"{prefix}{name}.weight": (hidden,) for name in ("input_layernorm", "post_attention_layernorm")}
    sizes = {"q_proj": 1.0, "k_proj": 8.0, "up_proj": 0.25}
    tensors = {}
    for name, shape in shapes.items():
        size = next((size for part, size in sizes.items() if part in name), 1.0)
        values = torch.randn(shape, generator=generator) * (size * shape[-1] ** -0.5 if len(shape) == 2 else 0.1)
        tensors[name] = (values + 1 if len(shape) == 1 else values).bfloat16()
    return tensors


def quantized_tensors(form: Format) -> dict[str, Tensor]:
    """As stored: all projections quantized, embedding, norms and head as they were."""
    stored: dict[str, Tensor] = {}
    for name, tensor in plain_tensors().items():
        if name.endswith("_proj.weight"):
            stored |= {
                name.removesuffix("weight") + end: part.contiguous() for end, part in form.split(tensor.float()).items()
            }
        else:
            stored[name] = tensor
    return stored


def write_checkpoint(folder: Path, tensors: dict[str, Tensor], declared: Mapping[str, Any] | None) -> Path:
    """A model folder."""
    config = CONFIG | ({} if declared is None else {"quantization_config": dict(declared)})
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    return folder


def dequantize_stored(stored: Mapping[str, Tensor], module: str) -> Tensor:
    """A quantized matrix in float32, by definition, from what lies in the file."""
    weight = stored[f"{module}.weight"].float()
    if (scale := stored.get(f"{module}.weight_scale_inv")) is not None:
        return weight * scale.repeat_interleave(128, 0).repeat_interleave(128, 1)
    return weight * stored[f"{module}.weight_scale"].float()
