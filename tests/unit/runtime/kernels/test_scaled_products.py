"""What can be said of cuBLASLt's calls without a GPU; `tests/gpu/test_quantized_kernels.py` has the products."""

import ctypes

import pytest
import torch

from runtime.errors import EngineMisconfigured
from runtime.kernels import scaled_products
from runtime.kernels.scaled_products import ScaledProducts


def test_a_proposal_is_as_long_as_in_the_header() -> None:
    """64 bytes of algorithm, 8 of size, 4 of state, 4 of waves, 16 reserved: cuBLASLt writes all of them."""
    assert ctypes.sizeof(scaled_products._Proposal) == 96
    assert ctypes.sizeof(scaled_products._Description) == 256


@pytest.mark.skipif(torch.version.cuda is not None, reason="this build of torch brings cuBLASLt")
def test_without_the_library_the_engine_does_not_start() -> None:
    """And says what is missing."""
    with pytest.raises(EngineMisconfigured, match="cuBLASLt"):
        ScaledProducts(torch.device("cpu"))
