"""What is counted of a speculating engine's answers, on a clock that is told how long steps take."""

from collections.abc import Callable

import pytest

from runtime.batch import LaunchedStep, StepBatch
from runtime.bench.speculation import AnswerPlan, DecodeSpeed, measure_decoding
from runtime.engine.loop import Engine
from runtime.engine.stats import EngineStats
from tests.unit.runtime.engine.engine_driver import EngineDriver
from tests.unit.runtime.engine.test_engine_loop import PROMPT

PROMPTS = [PROMPT[:5], PROMPT[5:14], PROMPT[2:20]]


def by_the_step(engine: Engine, step_s: Callable[[EngineStats], float]) -> Callable[[], float]:
    """A clock on which every step takes what `step_s` says of it."""
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += step_s(engine.stats())
        return now

    return clock


def measured(num_drafts: int, wrong: float, plan: AnswerPlan, *, pinned: int | None = None) -> DecodeSpeed:
    engine = EngineDriver(num_drafts=num_drafts, wrong_drafts=wrong, overlap_schedule=False).engine
    if pinned is not None:
        engine.pin_drafts(pinned)
    # Steps with a prompt are a thousand times as long: none of them may be in the figures.
    clock = by_the_step(engine, lambda stats: 0.01 if stats.num_decodes else 10.0)
    return measure_decoding(engine, plan, overlaps=False, clock=clock)


def test_a_plain_step_gives_one_token_each() -> None:
    """Three answers at a time, 10 ms a step: 300 tokens a second, whatever prompts take."""
    speed = measured(3, 0.0, AnswerPlan(PROMPTS, 6, 3, 20), pinned=0)
    assert speed.tokens_per_s == pytest.approx(300)
    assert speed.round_s == pytest.approx(0.01)
    assert (speed.acceptance_length, speed.num_passes) == (1.0, 0)


def test_perfect_drafts_multiply_tokens() -> None:
    """Three drafts that are always right: four tokens a pass; an answer of 13 is one and three times four."""
    speed = measured(3, 0.0, AnswerPlan(PROMPTS[:1], 2, 1, 13))
    assert speed.acceptance_length == pytest.approx(4.0)
    assert speed.tokens_per_s == pytest.approx(400)


def test_drafts_that_are_never_right_give_what_plain_decoding_gives() -> None:
    """One token a pass."""
    speed = measured(4, 1.0, AnswerPlan(PROMPTS[:1], 2, 1, 30))
    assert speed.acceptance_length == 1.0
    assert speed.tokens_per_s == pytest.approx(100)


def test_only_steps_of_the_whole_batch_count() -> None:
    """Two answers of one length beside a third that is asked for when both have ended: its steps are of one row."""
    plan = AnswerPlan(PROMPTS[:1], 3, 2, 12)
    together = measured(1, 0.0, AnswerPlan(PROMPTS[:1], 2, 2, 12), pinned=0)
    assert measured(1, 0.0, plan, pinned=0) == together
    assert together.num_rounds == 11


def test_an_overlapped_step_counts_where_the_next_one_decodes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """To launch a step with prompts costs a thousand times as much, and is paid while a step of decodes is read."""
    driver = EngineDriver(num_drafts=1, wrong_drafts=0.0, overlap_schedule=True)
    driver.engine.pin_drafts(0)
    launch, seconds = driver.runner.launch, 0.0

    def launch_slowly(batch: StepBatch) -> LaunchedStep:
        nonlocal seconds
        assert batch.speculation is not None
        seconds += 10.0 if len(batch.query_starts) - 1 > batch.speculation.num_decodes else 0.01
        return launch(batch)

    monkeypatch.setattr(driver.runner, "launch", launch_slowly)
    plan = AnswerPlan(PROMPTS, 9, 3, 20)
    speed = measure_decoding(driver.engine, plan, overlaps=True, clock=lambda: seconds)
    assert speed.num_rounds > 20
    assert speed.round_s == pytest.approx(0.01)
    assert speed.tokens_per_s == pytest.approx(300)


def test_prompts_come_again_and_have_seeds_of_their_own() -> None:
    """The fourth request has the first prompt."""
    plan = AnswerPlan(PROMPTS, 5, 2, 8, temperature=0.7)
    assert list(plan.request(3).prompt) == list(PROMPTS[0])
    assert plan.request(3).sampling.seed != plan.request(0).sampling.seed
    assert plan.request(1).sampling.temperature == 0.7
