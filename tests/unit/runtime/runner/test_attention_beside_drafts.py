"""Which attention a speculating engine has, by its settings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from runtime.runner.attention_choice import choose_attention
from runtime.runner.kernel_choice import choose_kernels
from runtime.settings import EngineSettings
from runtime.weights.config import ModelConfig, load_model_config
from tests.unit.runtime.runner.conftest import LLAMA

DRAFTS: dict[str, Any] = {"speculative_algorithm": "EAGLE3", "speculative_draft_model_path": "head"}


@pytest.fixture
def config(model_folder: Callable[[dict[str, Any]], Path]) -> ModelConfig:
    return load_model_config(model_folder(LLAMA | {"head_dim": 64}))


def test_flashinfer_computes_prompts_beside_drafts(config: ModelConfig) -> None:
    """Without drafts it decodes as well; with them that is Triton's, and fewer libraries are needed."""
    alone = EngineSettings(model_path="", device="cuda", attention_backend="flashinfer")
    beside = EngineSettings(model_path="", device="cuda", attention_backend="flashinfer", **DRAFTS)
    plain, speculating = (choose_attention(given, config, torch.bfloat16) for given in (alone, beside))
    assert (plain.decodes, plain.chunks) == ("flashinfer", "flashinfer")
    assert (speculating.decodes, speculating.chunks) == ("triton", "flashinfer")
    assert set(speculating.libraries) < set(plain.libraries)


@pytest.mark.parametrize("drafts", [{}, DRAFTS], ids=["plain", "drafts"])
def test_the_log_says_who_verifies(drafts: dict[str, Any], tmp_path: Path) -> None:
    """One line at the start, and none where nothing is changed."""
    told: list[str] = []
    settings = EngineSettings(
        model_path="", device="cuda", attention_backend="flashinfer", kernels_path=str(tmp_path), **drafts
    )
    choose_kernels(settings, told.append)
    assert ["verified by Triton" in line for line in told] == [True] * bool(drafts)
