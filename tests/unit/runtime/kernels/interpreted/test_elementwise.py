"""Norm, activation, embedding, rotation and cache write, interpreted."""

import pytest
import torch

from tests.support.kernel_checks import TOLERANCES, Inputs, check_activation, check_embedding, check_norm, check_rotary

DTYPE = torch.float16


@pytest.mark.parametrize("delta", [False, True])
def test_norm_adds_in_place_and_normalizes(delta: bool) -> None:
    """The sum is the reference's to the bit, the norm within the tolerance; a dimension that is no power of 2."""
    assert check_norm(Inputs("cpu", DTYPE, 0), 3, 72, delta=delta) < TOLERANCES[DTYPE]


def test_activation_is_silu_times_up() -> None:
    """An inner size that is no power of 2."""
    assert check_activation(Inputs("cpu", DTYPE, 0), 2, 88) < TOLERANCES[DTYPE]


def test_embedding_takes_ids_from_the_step_before() -> None:
    """Rows with and without a previous row, to the bit."""
    check_embedding(Inputs("cpu", DTYPE, 0), 9, 50, 72)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(4, 2, 16), (6, 1, 24)])
def test_queries_are_turned_and_keys_and_values_stored(norm: bool, heads: int, kv_heads: int, head_dim: int) -> None:
    """Every slot of the step is written, and no other byte of the cache."""
    error = check_rotary(Inputs("cpu", DTYPE, 1), 5, heads, kv_heads, head_dim, norm=norm)
    assert error < TOLERANCES[DTYPE]


def test_a_cache_of_e4m3_holds_scaled_values() -> None:
    """Divided by the scale, then cut to 3 bits of mantissa: the interpreter truncates where the hardware rounds."""
    error = check_rotary(Inputs("cpu", DTYPE, 1), 5, 4, 2, 16, cache_dtype=torch.float8_e4m3fn)
    assert error < 0.1
