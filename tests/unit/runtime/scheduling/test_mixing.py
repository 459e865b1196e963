"""How many prompt tokens go beside decoding rows."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.identifiers import PAGE_SIZE
from runtime.scheduling.mixing import Demand, MixedBudget

LARGEST = 1024
FEW = Demand(num_open=64, prompt_tokens=64 * 1024, output_tokens=64 * 256, waiting_tokens=2000)


@pytest.mark.parametrize(
    ("num_decodes", "demand", "budget"),
    [
        (64, FEW, 256),  # 1024 prompt tokens in 256 steps, for each of 64
        (61, FEW, 256),  # the same in whole tiles, and whole pages of them
        (64, replace(FEW, prompt_tokens=6400), 192),  # shorter prompts: the least step, whose rows are free
        (64, replace(FEW, prompt_tokens=64 * 1200), 320),  # longer ones: more, in whole tiles
        (64, replace(FEW, output_tokens=64 * 64), 960),  # shorter answers: the largest step, decodes included
        (64, replace(FEW, waiting_tokens=60_000), 576),  # a long line: through in 128 steps
        (250, replace(FEW, num_open=300), 768),  # decoding is work enough by itself: as fast as allowed
        (1000, replace(FEW, num_open=1000), 128),  # prompts have their part in any case
        (1, Demand(1, 10, 0, 0), 240),  # nothing is in line and no answer expected
    ],
)
def test_prompts_keep_pace_with_answers(num_decodes: int, demand: Demand, budget: int) -> None:
    """With at most 1,024 rows a step."""
    assert MixedBudget(LARGEST).tokens(num_decodes, demand) == budget


def test_what_the_cache_has_needs_no_pace() -> None:
    """When prompts were seen to be mostly cached, the same demand takes less of each step."""
    budget, demand = MixedBudget(LARGEST), replace(FEW, prompt_tokens=64 * 2304)
    assert budget.tokens(64, demand) == 576
    for _ in range(100):
        budget.observe(2304, 2048)
    assert budget.tokens(64, demand) == 192


@given(
    st.integers(1, 600),
    st.builds(Demand, st.integers(0, 300), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6)),
    st.integers(1, 9000),
)
def test_a_step_goes_on_with_prompts_and_keeps_its_bounds(num_decodes: int, demand: Demand, largest: int) -> None:
    """At least one token; no more rows than allowed, the prompts' part aside; whole pages, if any."""
    budget = MixedBudget(largest).tokens(num_decodes, demand)
    assert budget >= 1
    assert budget + num_decodes <= largest or budget <= max(1, -(-largest // 8))
    assert budget < PAGE_SIZE or budget % PAGE_SIZE == 0
