"""FP8 checkpoints of every format on a Hopper GPU: what a runner there serves is what the emulation on a CPU serves."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from runtime.runner.building import build_runner
from runtime.runner.device_building import build_device_runner
from runtime.runner.device_runner import DeviceRunner
from runtime.runner.kernel_choice import choose_kernels
from runtime.runner.torch_runner import TorchRunner
from runtime.settings import EngineSettings
from tests.support.quantized_checkpoints import CONFIG, FORMATS, plain_tensors, quantized_tensors, write_checkpoint
from tests.support.step_batches import Chunk, sampling_batch, step_batch

pytestmark = pytest.mark.gpu

PROMPTS = np.random.default_rng(0).integers(0, CONFIG["vocab_size"], (12, 14)).tolist()
TOLERANCE = 0.4
"""Of log-probabilities, the mean over the likeliest tokens. On a CPU float32 and bf16 differ by up to 0.28 here, as where they
differ in a last bit another e4m3 value may be the nearest."""
NUM_SHARED = 12
"""Of the 20 likeliest tokens, at least. On a CPU float32 and bf16 share 13 to 18; unrelated models share 4."""


def distributions(runner: TorchRunner | DeviceRunner, count: int) -> list[dict[int, float]]:
    """Of the next token after a prefill of `count` prompts and one more token each, decoded."""
    pages = [[1 + row] for row in range(count)]
    runner.launch(step_batch([Chunk(PROMPTS[row][:-1], 0, pages[row]) for row in range(count)])).result()
    last = step_batch([Chunk(PROMPTS[row][-1:], 13, pages[row]) for row in range(count)])
    last = replace(last, sampling=sampling_batch(count, num_logprobs=20))
    given = runner.launch(last).result().logprobs
    assert given is not None
    return [
        dict(zip(ids.tolist(), values.tolist(), strict=True))
        for ids, values in zip(given.top_ids, given.top_values, strict=True)
    ]


@pytest.mark.parametrize("count", [1, 3, 12], ids=["one", "few", "many"])
@pytest.mark.parametrize("name", [*FORMATS, "at load"])
def test_a_format_serves_what_its_emulation_serves(name: str, count: int, tmp_path: Path, device: torch.device) -> None:
    """Prefill by cuBLAS or tiles and decodes by every class of kernel, in a graph."""
    form = FORMATS.get(name)
    tensors = plain_tensors() if form is None else quantized_tensors(form)
    folder = write_checkpoint(tmp_path, tensors, None if form is None else form.declared)
    quantization = "fp8" if form is None else "auto"
    emulated = distributions(build_runner(folder, num_pages=20, quantization=quantization), count)
    settings = EngineSettings(
        model_path=str(folder), device="cuda", attention_backend="triton", quantization=quantization,
        max_running_requests=16, cuda_graph_max_bs=16, max_total_tokens=2048, context_length=256, chunked_prefill_size=512,
    )  # fmt: skip
    built = build_device_runner(folder, settings, choose_kernels(settings, print), advance=lambda: None)
    for served, expected in zip(distributions(built.runner, count), emulated, strict=True):
        both = served.keys() & expected.keys()
        assert len(both) >= NUM_SHARED
        assert np.mean([abs(served[token] - expected[token]) for token in both]) < TOLERANCE
