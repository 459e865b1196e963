"""FP8 checkpoints of every format on a Hopper GPU: what a runner there serves is what the emulation on a CPU serves."""

from pathlib import Path

import pytest
import torch

from runtime.runner.building import build_runner
from runtime.runner.device_building import build_device_runner
from runtime.runner.kernel_choice import choose_kernels
from runtime.settings import EngineSettings
from tests.support.next_distributions import COUNTS, assert_alike, next_distributions
from tests.support.quantized_checkpoints import FORMATS, plain_tensors, quantized_tensors, write_checkpoint

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("count", COUNTS, ids=["one", "few", "many"])
@pytest.mark.parametrize("name", [*FORMATS, "at load"])
def test_a_format_serves_what_its_emulation_serves(name: str, count: int, tmp_path: Path, device: torch.device) -> None:
    """Prefill by cuBLAS or tiles and decodes by every class of kernel, in a graph."""
    form = FORMATS.get(name)
    tensors = plain_tensors() if form is None else quantized_tensors(form)
    folder = write_checkpoint(tmp_path, tensors, None if form is None else form.declared)
    quantization = "fp8" if form is None else "auto"
    emulated = next_distributions(build_runner(folder, num_pages=20, quantization=quantization), count)
    settings = EngineSettings(
        model_path=str(folder), device="cuda", attention_backend="triton", quantization=quantization,
        max_running_requests=16, cuda_graph_max_bs=16, max_total_tokens=2048, context_length=256, chunked_prefill_size=512,
    )  # fmt: skip
    built = build_device_runner(folder, settings, choose_kernels(settings, print), advance=lambda: None)
    assert_alike(next_distributions(built.runner, count), emulated)
