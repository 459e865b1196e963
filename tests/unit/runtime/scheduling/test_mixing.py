"""How many prompt tokens go beside decoding rows."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.identifiers import PAGE_SIZE
from runtime.scheduling.mixing import Demand, MixedBudget
from runtime.step_sizes import E4M3_MIXED_SIZES, MIXED_SIZES, MixedSizes

LARGEST = 1024
FEW = Demand(num_open=64, prompt_tokens=64 * 1024, output_tokens=64 * 256, waiting_tokens=2000)


def budgets(budget: MixedBudget, num_decodes: int, demand: Demand, count: int = 300) -> list[int]:
    """Of so many steps that follow each other, in which nothing changes."""
    return [budget.tokens(num_decodes, demand) for _ in range(count)]


@pytest.mark.parametrize(
    ("num_decodes", "demand", "pace", "sizes"),
    [
        (64, FEW, 256, {256, 384}),  # 1024 prompt tokens in 256 steps, for each of 64
        (61, FEW, 256, {256, 384}),
        (64, replace(FEW, prompt_tokens=6400), 192, {256}),  # shorter prompts: the least step, whose rows are free
        (64, replace(FEW, prompt_tokens=64 * 1200), 300, {256, 384}),  # longer ones: larger steps more often
        (64, replace(FEW, prompt_tokens=64 * 1280), 320, {384}),  # just such a step
        (64, replace(FEW, output_tokens=64 * 64), 960, {1024}),  # shorter answers: the largest step, decodes included
        (64, replace(FEW, waiting_tokens=60_000), 468, {512, 768}),  # a long line: through in 128 steps
        (250, replace(FEW, num_open=300), 768, {1018}),  # decoding is work enough by itself: as fast as allowed
        (1, Demand(1, 10, 0, 0), 240, {241}),  # nothing is in line and no answer expected
    ],
)
def test_prompts_keep_pace_with_answers_on_average(
    num_decodes: int, demand: Demand, pace: int, sizes: set[int]
) -> None:
    """By steps of sizes that cost little for each row; with at most 1,024 rows a step."""
    found = budgets(MixedBudget(LARGEST, MIXED_SIZES), num_decodes, demand)
    assert sum(found) / len(found) == pytest.approx(pace, rel=0.02, abs=PAGE_SIZE)
    assert {-(-(num_decodes + tokens) // PAGE_SIZE) * PAGE_SIZE for tokens in found} == {
        -(-size // PAGE_SIZE) * PAGE_SIZE for size in sizes
    }


@pytest.mark.parametrize(
    ("num_decodes", "demand", "pace", "tokens"),
    [
        (64, FEW, 256, {0, 448}),  # steps of 512 rows, and decodes alone between them
        (64, replace(FEW, prompt_tokens=64 * 2048), 512, {448, 960}),  # the pace is more than such a step holds
        (64, replace(FEW, prompt_tokens=64 * 400), 192, {192}),  # they would wait for a larger step: the least, at once
        (1, Demand(1, 10, 0, 0), 240, {240}),
    ],
)
def test_in_turn_prompts_keep_pace_as_well(num_decodes: int, demand: Demand, pace: int, tokens: set[int]) -> None:
    """Where steps of the second size and steps without prompts are cheaper than steps of the least size."""
    found = budgets(MixedBudget(LARGEST, E4M3_MIXED_SIZES), num_decodes, demand)
    assert sum(found) / len(found) == pytest.approx(pace, rel=0.02, abs=PAGE_SIZE)
    assert set(found) == tokens


def test_where_decodes_fill_the_largest_step_prompts_have_their_part() -> None:
    """An eighth of it."""
    assert MixedBudget(LARGEST, MIXED_SIZES).tokens(1000, replace(FEW, num_open=1000)) == 128


def test_what_did_not_come_is_not_owed() -> None:
    """After steps in which fewer tokens waited than the pace would have taken, no larger steps make up for more than that."""
    budget = MixedBudget(LARGEST, MIXED_SIZES)
    budgets(budget, 64, replace(FEW, waiting_tokens=10))
    found = budgets(budget, 64, replace(FEW, waiting_tokens=2000), 20)
    assert sum(found) <= 20 * 256 + LARGEST


def test_what_the_cache_has_needs_no_pace() -> None:
    """When prompts were seen to be mostly cached, the same demand takes less of each step."""
    budget, demand = MixedBudget(LARGEST, MIXED_SIZES), replace(FEW, prompt_tokens=64 * 2304)
    assert sum(budgets(budget, 64, demand)) / 300 == pytest.approx(576, rel=0.02)
    for _ in range(100):
        budget.observe(2304, 2048)
    assert set(budgets(budget, 64, demand)[20:]) == {192}


@given(
    st.integers(1, 600),
    st.builds(Demand, st.integers(0, 300), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6)),
    st.integers(1, 9000),
    st.sampled_from([MIXED_SIZES, E4M3_MIXED_SIZES]),
)
def test_prompts_go_on_and_steps_keep_their_bounds(
    num_decodes: int, demand: Demand, largest: int, sizes: MixedSizes
) -> None:
    """At least one token in one of four steps; no more rows than allowed, the prompts' part aside; whole pages, if any."""
    budget = MixedBudget(largest, sizes)
    found = budgets(budget, num_decodes, demand, 4)
    assert max(found) >= 1
    assert sizes.in_turn or min(found) >= 1
    for tokens in found:
        assert tokens + num_decodes <= largest or tokens <= max(1, -(-largest // 8))
        assert tokens < PAGE_SIZE or tokens % PAGE_SIZE == 0
