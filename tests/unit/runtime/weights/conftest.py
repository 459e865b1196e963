"""Tiny checkpoints, written byte by byte without the product's code or any library, so that they can be made wrong."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 11,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}
Tensors = dict[str, np.ndarray]


def tiny_tensors() -> Tensors:
    """What CONFIG's model consists of, with different numbers everywhere."""
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (11, 8),
        "model.norm.weight": (8,),
        "lm_head.weight": (11, 8),
    }
    for layer in range(2):
        prefix = f"model.layers.{layer}."
        shapes |= {
            f"{prefix}input_layernorm.weight": (8,),
            f"{prefix}self_attn.q_proj.weight": (8, 8),
            f"{prefix}self_attn.k_proj.weight": (4, 8),
            f"{prefix}self_attn.v_proj.weight": (4, 8),
            f"{prefix}self_attn.o_proj.weight": (8, 8),
            f"{prefix}post_attention_layernorm.weight": (8,),
            f"{prefix}mlp.gate_proj.weight": (12, 8),
            f"{prefix}mlp.up_proj.weight": (12, 8),
            f"{prefix}mlp.down_proj.weight": (8, 12),
        }
    generator = np.random.default_rng(5)
    return {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def header_and_data(tensors: Tensors) -> tuple[dict[str, Any], bytes]:
    """Entries of a sound header, and the bytes they describe."""
    header: dict[str, Any] = {}
    data = b""
    for name, tensor in tensors.items():
        header[name] = {
            "dtype": "F32",
            "shape": list(tensor.shape),
            "data_offsets": [len(data), len(data) + 4 * math.prod(tensor.shape)],
        }
        data += tensor.tobytes()
    return header, data


def file_bytes(header: dict[str, Any] | str, data: bytes) -> bytes:
    """A safetensors file; a header given as text is written as it is."""
    content = (header if isinstance(header, str) else json.dumps(header)).encode()
    return len(content).to_bytes(8, "little") + content + data


@pytest.fixture
def write_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a new model folder: `shards` maps file names to tensors; more than one gets an index."""

    def write(shards: dict[str, Tensors], config: dict[str, Any] | None = None) -> Path:
        folder = tmp_path_factory.mktemp("model")
        (folder / "config.json").write_text(json.dumps(CONFIG | (config or {})))
        for name, tensors in shards.items():
            (folder / name).write_bytes(file_bytes(*header_and_data(tensors)))
        if len(shards) > 1:
            weight_map = {tensor: name for name, tensors in shards.items() for tensor in tensors}
            (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
        return folder

    return write


@pytest.fixture
def single_folder(write_folder: Callable[..., Path]) -> Path:
    """A sound folder with one file."""
    return write_folder({"model.safetensors": tiny_tensors()})


@pytest.fixture
def sharded_folder(write_folder: Callable[..., Path]) -> Path:
    """A sound folder with two shards."""
    names = list(tiny_tensors())
    tensors = tiny_tensors()
    return write_folder(
        {
            "model-00001-of-00002.safetensors": {name: tensors[name] for name in names[:9]},
            "model-00002-of-00002.safetensors": {name: tensors[name] for name in names[9:]},
        }
    )
