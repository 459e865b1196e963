"""Which attention an engine has, by its settings, with drafts and without, and that the log says so."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from runtime.runner import kernel_choice
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


@pytest.mark.parametrize(
    ("head_dim", "backend", "line"),
    [
        (64, "auto", ""),
        (96, "auto", "prompts are computed by Triton kernels, as FlashInfer's cannot be used: attention: FlashInfer has"),
        (96, "triton", ""),
        (64, "flashinfer", "drafts are verified by Triton"),
    ],
)  # fmt: skip
def test_so_it_does_with_frozen_kernels(
    model_folder: Callable[[dict[str, Any]], Path], monkeypatch: pytest.MonkeyPatch, head_dim: int, backend: Any, line: str
) -> None:  # fmt: skip
    """What the bundle is checked against is what was chosen; a head size that FlashInfer lacks is told, once."""
    config = load_model_config(model_folder(LLAMA | {"head_dim": head_dim}))
    asked: list[object] = []
    bundle = SimpleNamespace(
        manifest=SimpleNamespace(arch="sm_90a", digest="d"),
        verify_sources=lambda: None,
        verify_holds=lambda *needs: asked.append(needs),
    )
    monkeypatch.setattr(kernel_choice, "load_frozen_bundle", lambda _settings: bundle)
    monkeypatch.setattr(kernel_choice, "load_frozen_launcher", lambda _bundle, _device: None)
    monkeypatch.setattr(kernel_choice, "BundleLibraries", lambda _bundle: None)
    monkeypatch.setattr(kernel_choice, "_num_multiprocessors", lambda _device: 132)
    monkeypatch.setattr(kernel_choice, "find_needs", lambda *_, **__: SimpleNamespace(variants=[], libraries=[]))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (9, 0))
    drafts = DRAFTS if backend == "flashinfer" else {}
    settings = EngineSettings(model_path="", device="cuda", attention_backend=backend, frozen=True, **drafts)
    told: list[str] = []
    kernels = choose_kernels(settings, told.append)
    kernels.verify_complete(config, torch.bfloat16)
    assert len(asked) == 1
    assert len(told) == bool(line)
    assert all(line in sentence for sentence in told)
