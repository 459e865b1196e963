"""How many prompt tokens go beside decoding rows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.identifiers import PAGE_SIZE
from runtime.scheduling.mixing import LEAST_ROWS, TILE_ROWS, mixed_budget


@pytest.mark.parametrize(
    ("num_decodes", "num_waiting", "budget"),
    [
        (64, 100, 192),  # few wait: the least step, as its rows are free
        (64, 1024, 256),  # a fourth of what waits
        (64, 1030, 320),  # the same, in whole tiles
        (64, 100_000, 960),  # the largest step, decodes included
        (61, 100_000, 960),  # whole pages only
        (300, 10, 128),  # more rows decode than the least step has
        (1000, 100_000, 128),  # prompts have their part in any case
    ],
)
def test_prompts_are_spread_over_steps(num_decodes: int, num_waiting: int, budget: int) -> None:
    """With at most 1,024 rows a step."""
    assert mixed_budget(num_decodes, num_waiting, 1024) == budget


@given(st.integers(1, 600), st.integers(0, 100_000), st.integers(1, 9000))
def test_a_step_goes_on_with_prompts_and_keeps_its_bounds(num_decodes: int, num_waiting: int, largest: int) -> None:
    """At least one token; no more rows than allowed, the prompts' part aside; never past the tile that holds what is wanted."""
    budget = mixed_budget(num_decodes, num_waiting, largest)
    assert budget >= 1
    assert budget + num_decodes <= largest or budget <= max(1, -(-largest // 8))
    wanted = max(LEAST_ROWS, num_decodes + -(-num_waiting // 4))
    assert budget + num_decodes < wanted + TILE_ROWS or budget <= max(1, -(-largest // 8))
    assert budget < PAGE_SIZE or budget % PAGE_SIZE == 0
