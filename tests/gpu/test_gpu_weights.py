"""Checkpoints on their way to a GPU."""

from pathlib import Path

import pytest
import torch

from runtime.runner.building import apply_quantization
from runtime.weights.config import load_model_config
from runtime.weights.loading import load_weights
from tests.support.quantized_checkpoints import (
    FORMATS,
    cache_scale_tensors,
    plain_tensors,
    quantized_tensors,
    write_checkpoint,
)
from tests.support.random_models import write_random_model

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_and_digest_are_those_of_the_cpu(tmp_path: Path, device: torch.device, dtype: torch.dtype) -> None:
    """In pinned chunks on a stream of their own, converted on the way."""
    config = load_model_config(write_random_model(tmp_path))
    expected = load_weights(tmp_path, config, device=torch.device("cpu"), dtype=dtype)
    given = load_weights(tmp_path, config, device=device, dtype=dtype)
    assert given.digest == expected.digest
    assert all(torch.equal(given.parameters[name].cpu(), expected.parameters[name]) for name in expected.parameters)


@pytest.mark.parametrize("name", [*FORMATS, "at load"])
def test_quantized_values_are_those_of_the_cpu(tmp_path: Path, device: torch.device, name: str) -> None:
    """Every byte of every matrix and scale, of every format, and a KV cache's scales; ten times, as threads and streams race."""
    form = FORMATS.get(name)
    tensors = (plain_tensors() if form is None else quantized_tensors(form)) | cache_scale_tensors("k_scale", "v_scale")
    folder = write_checkpoint(tmp_path, tensors, None if form is None else form.declared)
    config = apply_quantization(load_model_config(folder), "fp8")
    expected = load_weights(folder, config, device=torch.device("cpu"), dtype=torch.bfloat16)
    for _ in range(10):
        given = load_weights(folder, config, device=device, dtype=torch.bfloat16)
        for key, wanted in expected.parameters.items():
            assert torch.equal(bytes_of(given.parameters[key]), bytes_of(wanted)), key
        assert given.cache_scales is not None
        assert expected.cache_scales is not None
        assert given.cache_scales.tolist() == expected.cache_scales.tolist()


def bytes_of(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.cpu().contiguous().view(torch.uint8)
