"""How much is speculated: what pays, by what was measured, and never at the price of plain decoding."""

from collections.abc import Callable

import numpy as np
import pytest

from runtime.draft_shape import DraftShape, draft_chain
from runtime.speculative.adapting import (
    NUM_TRIALS,
    TRIAL_INTERVAL,
    AcceptanceEstimate,
    SpeculationPolicy,
    speculation_levels,
)


def drive(
    policy: SpeculationPolicy, num_decodes: int, num_steps: int, seconds: Callable[[int], float], chance: float = 0.8
) -> tuple[list[int], float]:
    """Steps of a device with such times, whose drafts are right with such a chance; levels, and seconds in all."""
    random = np.random.default_rng(0)
    levels, total = [], 0.0
    for _ in range(num_steps):
        level = policy.choose(num_decodes)
        levels.append(level)
        total += seconds(level)
        right = random.random((num_decodes, max(1, level))) < chance
        accepted = np.minimum(right.cumprod(axis=1).sum(axis=1), level)
        policy.acceptance.observe(np.full(num_decodes, level), accepted)
        policy.observe_step(num_decodes, level, seconds(level))
    return levels, total


@pytest.mark.parametrize(("num_steps", "levels"), [(0, (0,)), (1, (0, 1)), (5, (0, 2, 5)), (7, (0, 3, 7))])
def test_levels_are_none_half_and_all(num_steps: int, levels: tuple[int, ...]) -> None:
    """Each once; without a chain there is one level."""
    assert speculation_levels(num_steps) == levels


def test_good_drafts_are_all_made() -> None:
    """A pass over drafts that takes half as long again and gives four tokens."""
    levels, _ = drive(SpeculationPolicy(draft_chain(7), is_adaptive=True), 2, 300, lambda level: 1 + level / 14)
    assert levels[-100:] == [7] * 100


def test_where_drafts_lose_there_are_none() -> None:
    """Rows that cost what tokens cost: plain decoding, and trials lose less than half a hundredth of the time."""
    policy = SpeculationPolicy(draft_chain(7), is_adaptive=True)
    drive(policy, 64, 100, lambda level: 1.0 + level)
    levels, seconds = drive(policy, 64, 4000, lambda level: 1.0 + 0.2 * level, chance=0.05)
    assert np.mean(np.array(levels) == 0) > 0.98
    assert seconds < 1.005 * 4000


def test_half_a_chain_where_its_end_is_not_worth_it() -> None:
    """Drafts that are right half of the time, rows that are not free."""
    levels, _ = drive(
        SpeculationPolicy(draft_chain(6), is_adaptive=True), 8, 350, lambda level: 1 + 0.12 * level, chance=0.55
    )
    assert levels[-50:] == [3] * 50


def test_it_comes_back_when_texts_change() -> None:
    """From drafts that are always wrong to drafts that are always right: the next trials notice."""
    policy = SpeculationPolicy(draft_chain(5), is_adaptive=True)
    levels, _ = drive(policy, 1, 900, lambda level: 1 + 0.1 * level, chance=0.0)
    assert levels[-300:].count(0) > 290
    levels, _ = drive(policy, 1, 20 * TRIAL_INTERVAL, lambda level: 1 + 0.1 * level, chance=1.0)
    assert levels[-TRIAL_INTERVAL:].count(5) > 0.9 * TRIAL_INTERVAL


def test_sizes_are_judged_apart() -> None:
    """Alone drafts pay, in a crowd they do not; few begin with all drafts, a crowd with none."""
    policy = SpeculationPolicy(draft_chain(4), is_adaptive=True)
    alone, _ = drive(policy, 1, 50, lambda _level: 1.0)
    crowded, _ = drive(policy, 200, 400, lambda level: 1.0 + 3 * level)
    assert (alone[-1], crowded[-1]) == (4, 0)
    assert alone[: 2 * NUM_TRIALS] == [4] * NUM_TRIALS + [0] * NUM_TRIALS
    assert crowded[:NUM_TRIALS] == [0] * NUM_TRIALS


def test_a_batch_that_decodes_nothing_yet_is_taken_for_one_of_its_size() -> None:
    """Prompts of a crowd are not read by the head, those of few are; what is measured counts for the next sizes as well."""
    policy = SpeculationPolicy(draft_chain(4), is_adaptive=True)
    assert [policy.level_at(size) for size in (1, 4, 5, 500)] == [4, 4, 0, 0]
    drive(policy, 16, 50, lambda _level: 1.0)
    drive(policy, 200, 50, lambda level: 1.0 + 3 * level)
    drive(policy, 1, 50, lambda level: 1.0 + 3 * level)
    assert [policy.level_at(size) for size in (200, 129, 1, 2, 3, 16, 8, 20, 60)] == [0, 0, 0, 0, 4, 4, 4, 4, 0]
    policy.pin(2)
    assert policy.level_at(200) == 2
    assert SpeculationPolicy(draft_chain(4), is_adaptive=False).level_at(200) == 4


def test_steps_with_prompts_try_nothing() -> None:
    """They take what is known, and say nothing of what a step of answers takes."""
    policy = SpeculationPolicy(draft_chain(4), is_adaptive=True)
    assert {policy.choose(64, has_prompts=True) for _ in range(3 * TRIAL_INTERVAL)} == {0}
    drive(policy, 64, 300, lambda _level: 1.0)
    assert policy.choose(64) == 4
    assert {policy.choose(64, has_prompts=True) for _ in range(3 * TRIAL_INTERVAL)} == {4}


def test_catching_up_is_a_part_of_what_a_trial_costs() -> None:
    """Drafts that lose a little are tried again soon; less often where their first step takes a hundred times as long."""
    trials = []
    for extra in (0.0, 100.0):
        policy = SpeculationPolicy(draft_chain(2), is_adaptive=True)
        drive(policy, 8, 200, lambda level: 1.0 + level, chance=0.3)
        levels: list[int] = []
        for _ in range(8000):
            level = policy.choose(8)
            levels.append(level)
            is_first = level and len(levels) > 1 and not levels[-2]
            observe = policy.observe_catching_up if is_first else policy.observe_step
            observe(8, level, 1.0 + level + (extra if is_first else 0.0))
        trials.append(sum(level > 0 for level in levels))
    assert trials[0] > 2 * trials[1] > 0


def test_without_adaptation_all_are_made() -> None:
    """However long they take."""
    levels, _ = drive(SpeculationPolicy(draft_chain(3), is_adaptive=False), 8, 50, lambda level: 1.0 + 10 * level)
    assert levels == [3] * 50


def test_chances_are_those_of_the_drafts() -> None:
    """Each place's, given the ones before: 0.9, 0.5, 0.2, within 0.12 after 2,000 chains (the average follows the last fifty)."""
    estimate, random = AcceptanceEstimate(3), np.random.default_rng(1)
    for _ in range(200):
        right = random.random((10, 3)) < np.array([0.9, 0.5, 0.2])
        estimate.observe(np.full(10, 3), right.cumprod(axis=1).sum(axis=1))
    assert estimate.chances == pytest.approx([0.9, 0.5, 0.2], abs=0.12)
    assert estimate.num_tokens(3) == pytest.approx(1 + 0.9 + 0.45 + 0.09, abs=0.3)


NUM_MEASURING = 3 * NUM_TRIALS
"""Steps in which each of three levels is first tried."""


def slowdown(
    cost_of_draft: float, chance: float, sizes: list[int], *, noise: float = 0.0, num_steps: int = 3000
) -> float:
    """Time for a token of an adaptive engine over that of a plain one, all trials included, once all sizes are measured.

    A plain step takes 1, and so much more for each draft; a step verifies the drafts that the one before it made.

    Args:
        sizes: of the batch, in turn.
        noise: mean excess of a step's time is 0.8 of it.
    """
    policy, random = SpeculationPolicy(draft_chain(7), is_adaptive=True), np.random.default_rng(0)
    seconds = plain_seconds = 0.0
    made = 0
    for step in range(num_steps):
        size = sizes[step * len(sizes) // num_steps] if step >= NUM_MEASURING * len(sizes) else sizes[step % len(sizes)]
        level = policy.choose(size)
        num_verified, made = min(made, level), level
        right = random.random((size, max(1, num_verified))) < chance
        accepted = np.minimum(right.cumprod(axis=1).sum(axis=1), num_verified)
        taken = (1 + cost_of_draft * level) * (1 + noise * abs(random.standard_normal()))
        policy.acceptance.observe(np.full(size, num_verified), accepted)
        policy.observe_step(size, level, taken)
        if step >= NUM_MEASURING * len(sizes):
            seconds += taken
            plain_seconds += (1 + accepted.mean()) * (1 + noise * np.sqrt(2 / np.pi))
    return float(seconds / plain_seconds)


@pytest.mark.parametrize("cost_of_draft", [0.02, 0.1, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("chance", [0.05, 0.5, 0.8])
@pytest.mark.parametrize("size", [1, 64])
def test_tokens_are_never_slower_than_plain_ones_by_more_than_3_percent(
    cost_of_draft: float, chance: float, size: int
) -> None:
    """From drafts that are free to such that cost what a step does, whose trial takes eight times as long as a plain step."""
    assert slowdown(cost_of_draft, chance, [size]) < 1.02


@pytest.mark.parametrize("cost_of_draft", [0.1, 0.5, 1.0])
def test_nor_are_they_where_times_are_uncertain(cost_of_draft: float) -> None:
    """A step takes a quarter longer than the fastest, give or take."""
    assert slowdown(cost_of_draft, 0.4, [16], noise=0.3) < 1.03


def test_nor_where_the_batch_grows_and_shrinks() -> None:
    """Each range of sizes has its trials, and all of them together stay in bounds."""
    assert slowdown(1.0, 0.3, [1, 40, 200, 40, 8, 3, 90], num_steps=6000) < 1.03


def test_a_hiccup_in_its_first_steps_does_not_condemn_a_level() -> None:
    """Good drafts, and two of the first three steps that took a thousand times as long: compilation, a page fault."""
    slow = iter([1000.0, 1000.0])
    policy = SpeculationPolicy(draft_chain(4), is_adaptive=True)
    levels, _ = drive(policy, 2, 300, lambda level: next(slow, 1.1) if level == 4 else 1.0)
    assert levels[-100:].count(4) > 95


MEASURED_MS = {
    1: (5.25, 7.68), 2: (5.62, 7.98), 4: (5.71, 8.06), 8: (5.78, 8.40), 16: (5.94, 9.09), 32: (6.39, 11.1), 64: (7.26, 16.7),
    128: (8.82, 29.9), 256: (12.4, 57.9), 512: (20.6, 115.0),
}  # fmt: skip
"""A step without drafts and a round of 7 by the batch's size, Llama-3.1-8B's shape on an H100, 400 tokens of context each."""


@pytest.mark.parametrize("chance", [0.0, 0.4, 0.8])
@pytest.mark.parametrize("sizes", [[1], [8], [64], [512], [2, 16, 128, 512], [512, 256, 64, 8, 1]])
def test_an_engine_that_has_just_started_is_no_slower_either(sizes: list[int], chance: float) -> None:
    """For as long as 600 steps of each size take, with all that it learns in them, beside plain steps; and drafts that are right
    pay nearly as soon as they would if all were known."""
    policy, random = SpeculationPolicy(draft_chain(7), is_adaptive=True), np.random.default_rng(0)
    seconds = plain_seconds = 0.0
    made = 0
    for size in [size for size in sizes for _ in range(600)]:
        level = policy.choose(size)
        num_verified, made = min(made, level), level
        right = random.random((size, max(1, num_verified))) < chance
        accepted = np.minimum(right.cumprod(axis=1).sum(axis=1), num_verified)
        plain_ms, round_ms = MEASURED_MS[size]
        taken = (plain_ms + (round_ms - plain_ms) * level / 7) / 1e3
        policy.acceptance.observe(np.full(size, num_verified), accepted)
        policy.observe_step(size, level, taken)
        seconds += taken
        plain_seconds += (1 + accepted.mean()) * plain_ms / 1e3
    assert seconds < 1.03 * plain_seconds
    if chance == 0.8 and max(sizes) <= 8:
        assert seconds < 0.42 * plain_seconds


@pytest.mark.parametrize(("shape", "is_tried"), [(draft_chain(4), True), (DraftShape(4, 4, 24), False)])
def test_a_tree_may_take_as_long_as_its_rows(shape: DraftShape, is_tried: bool) -> None:
    """In a crowd whose plain steps take 10 ms a chain is tried at once; a tree of six times as many rows is not yet."""
    levels, _ = drive(SpeculationPolicy(shape, is_adaptive=True), 64, 100, lambda level: 0.01 * (1 + level))
    assert (max(levels) > 0) == is_tried
