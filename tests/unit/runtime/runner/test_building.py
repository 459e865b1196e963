"""Settings that cannot work are refused, each by its name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from runtime.errors import CheckpointRejected, EngineMisconfigured
from runtime.runner.building import build_runner
from tests.unit.runtime.runner.conftest import LLAMA


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"num_pages": 1}, "num_pages"),
        ({"load_format": "pickle"}, "load_format"),
        ({"num_threads": 0}, "num_threads"),
        ({"device": "abacus"}, "device"),
        ({"dtype": "int8"}, "dtype"),
    ],
)
def test_settings_that_cannot_work_are_named(
    model_folder: Callable[[dict[str, Any]], Path], settings: dict[str, Any], named: str
) -> None:
    """EngineMisconfigured, with the setting's name."""
    with pytest.raises(EngineMisconfigured, match=named):
        build_runner(model_folder(LLAMA), **({"num_pages": 4, "load_format": "dummy"} | settings))


def test_a_folder_without_weights_is_refused(model_folder: Callable[[dict[str, Any]], Path]) -> None:
    """Only the dummy format does without a checkpoint."""
    with pytest.raises(CheckpointRejected, match=r"model\.safetensors"):
        build_runner(model_folder(LLAMA), num_pages=4)


def test_dtype_is_chosen_by_device_or_by_hand(model_folder: Callable[[dict[str, Any]], Path]) -> None:
    """A CPU computes in float32 unless told otherwise, whatever the checkpoint stores."""
    folder = model_folder(LLAMA | {"torch_dtype": "bfloat16"})
    assert build_runner(folder, num_pages=4, load_format="dummy").pages.dtype == torch.float32
    assert build_runner(folder, num_pages=4, load_format="dummy", dtype="bfloat16").pages.dtype == torch.bfloat16
