"""A model folder in the Hugging Face layout: `config.json`, `generation_config.json`, `model.safetensors`.

Weights are stored in bfloat16, which is what serving loads; whoever evaluates should load them back first, so that the
figures are those of the stored model.
"""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file

from runtime.training.llama import Llama, LlamaShape
from runtime.training.storing import store_tensors


def save_llama(model: Llama, folder: Path, *, bos: int, ends: list[int], pad: int) -> int:
    """Write the three files and return the size of the weights in bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **asdict(model.shape),
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "initializer_range": 0.02,
        "rope_scaling": None,
        "tie_word_embeddings": True,
        "use_cache": True,
        "bos_token_id": bos,
        "eos_token_id": ends,
        "pad_token_id": pad,
        "torch_dtype": "bfloat16",
    }
    generation = {"bos_token_id": bos, "eos_token_id": ends, "pad_token_id": pad, "do_sample": False}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    weights = {
        name: parameter.detach().to("cpu", torch.bfloat16).contiguous() for name, parameter in model.named_parameters()
    }
    path = folder / "model.safetensors"
    store_tensors(weights, path, {"format": "pt"})
    return path.stat().st_size


def load_llama(folder: Path, *, device: str = "cpu") -> Llama:
    """Read a folder that `save_llama` wrote, in float32."""
    config = json.loads((folder / "config.json").read_text())
    shape = LlamaShape(**{name: config[name] for name in LlamaShape.__dataclass_fields__})
    model = Llama(shape, seed=0)
    weights = load_file(folder / "model.safetensors")
    model.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, strict=True)
    return model.to(device)
