"""Tiny models with random weights, one for each feature that changes how a step is computed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runtime.runner.building import build_runner
from runtime.runner.torch_runner import TorchRunner

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 331,
    "hidden_size": 48,
    "intermediate_size": 90,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
}
SLIDING_QWEN: dict[str, Any] = LLAMA | {
    "architectures": ["Qwen3ForCausalLM"],
    "head_dim": 16,
    "tie_word_embeddings": False,
    "use_sliding_window": True,
    "sliding_window": 19,
    "max_window_layers": 1,
}


@pytest.fixture
def model_folder(tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    """Writes a folder that has shapes but no weights."""

    def write(config: dict[str, Any]) -> Path:
        (tmp_path / "config.json").write_text(json.dumps(config))
        return tmp_path

    return write


@pytest.fixture
def runner(model_folder: Callable[[dict[str, Any]], Path]) -> TorchRunner:
    return build_runner(model_folder(LLAMA), num_pages=32, load_format="dummy")
