"""Scales by what prompts leave in the cache: the largest magnitude, or a percentile, of each layer's keys and values."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import EngineMisconfigured
from runtime.runner.building import build_runner
from runtime.runner.calibration import Magnitudes, calibrate, prompt_step
from runtime.runner.torch_runner import TorchRunner
from runtime.weights.cache_scales_file import LayerScales
from tests.support.device_runners import build_plain_device
from tests.unit.runtime.runner.conftest import LLAMA, SLIDING_QWEN

PROMPTS = [np.random.default_rng(seed).integers(0, 331, length).tolist() for seed, length in enumerate((50, 7, 33))]


@pytest.fixture(params=[LLAMA, SLIDING_QWEN], ids=["llama", "sliding-qwen"])
def folder(request: pytest.FixtureRequest, model_folder: Callable[[dict[str, Any]], Path]) -> Path:
    return model_folder(request.param)


def build(folder: Path, **given: Any) -> TorchRunner:
    return build_runner(folder, num_pages=8, load_format="dummy", **given)


def written(folder: Path) -> torch.Tensor:
    """Keys and values of all prompts' tokens, each prompt by itself: [num_layers, 2, num_tokens, ...]."""
    found = []
    for prompt in PROMPTS:
        runner = build(folder)
        runner.launch(prompt_step(prompt, 0)).result()
        found.append(runner.pages[:, 1:].transpose(1, 2).flatten(2, 3)[:, :, : len(prompt)])
    return torch.cat(found, dim=2)


@pytest.mark.parametrize("chunk", [16, 20, 512])
def test_scales_are_the_largest_magnitudes(folder: Path, chunk: int) -> None:
    """Over 448, by layer; chunks, and what pages held before, change nothing."""
    runner = build(folder)
    with torch.inference_mode():
        runner.pages.fill_(torch.nan)
    told: list[tuple[int, int]] = []
    found = calibrate(runner, PROMPTS, chunk=chunk, on_progress=lambda done, total: told.append((done, total)))
    peaks = written(folder).abs().flatten(2).amax(2).double() / 448
    assert found.layers == tuple(LayerScales(*pair) for pair in peaks.tolist())
    assert found.num_tokens == 90
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_the_runner_of_a_gpu_gives_the_same(folder: Path) -> None:
    """Up to the order of float32 sums."""
    device = build_plain_device(folder, num_pages=8, dummy=True).runner
    expected = calibrate(build(folder), PROMPTS, chunk=512)
    for mine, theirs in zip(calibrate(device, PROMPTS, chunk=512).layers, expected.layers, strict=True):
        assert (mine.key, mine.value) == pytest.approx((theirs.key, theirs.value), rel=1e-4)


def test_percentiles_cut_the_rest_off(folder: Path) -> None:
    """So many of the magnitudes are at most the scale's largest number, to bfloat16's precision."""
    found = calibrate(build(folder), PROMPTS, chunk=512, percentile=90.0)
    sizes = written(folder).abs().flatten(2)
    for layer, scales in enumerate(found.layers):
        for part, scale in enumerate((scales.key, scales.value)):
            share = float((sizes[layer, part] <= scale * 448 * (1 + 2**-8)).float().mean())
            assert 0.8999 <= share < 0.93


@given(st.lists(st.floats(2.0**-60, 2.0**60, width=32), min_size=1, max_size=50), st.floats(1, 100))
def test_a_percentile_is_the_smallest_size_that_holds_so_many(sizes: list[float], percentile: float) -> None:
    """Whatever the magnitudes; 100 is the largest, exactly."""
    magnitudes = Magnitudes(1)
    for part in (0, 1):
        magnitudes.add(0, part, torch.tensor(sizes) * (-1) ** part)
    (scales,) = magnitudes.scales(percentile)
    assert scales.key == scales.value
    rounded = sorted(torch.tensor(sizes).bfloat16().float().tolist())
    wanted = max(sizes) if percentile == 100 else rounded[int(np.ceil(percentile / 100 * len(sizes) - 1e-9)) - 1]
    assert scales.key * 448 == pytest.approx(wanted, rel=1e-6)


def test_what_cannot_be_scaled_is_named(folder: Path) -> None:
    """Zeros, NaN and infinities, by layer; a cache that is e4m3 already."""
    magnitudes = Magnitudes(2)
    magnitudes.add(0, 0, torch.ones(3))
    with pytest.raises(EngineMisconfigured, match="values of layer 0 are zero up to the 100th percentile"):
        magnitudes.scales(100.0)
    for bad in (torch.nan, torch.inf, -torch.inf):
        magnitudes = Magnitudes(1)
        for part in (0, 1):
            magnitudes.add(0, part, torch.tensor([1.0, bad] if part else [1.0]))
        with pytest.raises(EngineMisconfigured, match="values of layer 0 are not all finite"):
            magnitudes.scales(99.0)
    with pytest.raises(EngineMisconfigured, match="e4m3 already"):
        calibrate(build(folder, kv_cache_dtype="fp8_e4m3"), PROMPTS, chunk=512)
