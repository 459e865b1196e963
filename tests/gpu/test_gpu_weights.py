"""Checkpoints on their way to a GPU."""

from pathlib import Path

import pytest
import torch

from runtime.weights.config import load_model_config
from runtime.weights.loading import load_weights
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
