"""Tests that need a Hopper GPU: skipped, with the reason, wherever there is none."""

import os
from pathlib import Path

import pytest
import torch

from runtime.kernels.libraries import FolderLibraries


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(scope="session")
def device() -> torch.device:
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("needs a Hopper GPU")
    return torch.device("cuda", torch.cuda.current_device())


@pytest.fixture(scope="session")
def libraries(device: torch.device) -> FolderLibraries:
    """Compiled libraries from the folder that CASEMATE_TEST_KERNELS names."""
    folder = os.environ.get("CASEMATE_TEST_KERNELS")
    if folder is None:
        pytest.skip("CASEMATE_TEST_KERNELS names no folder of compiled libraries")
    return FolderLibraries(Path(folder))
