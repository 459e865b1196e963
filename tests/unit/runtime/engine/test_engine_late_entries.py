"""Speculation that pauses and returns: the head's entries are put off, made later, or lost; texts are the same.

The model under it (`paged_text`) wipes the entry of every token whose entry is put off, and fails where a draft is made from an
entry that is missing, beyond the pages that the step says the head does not look at.
"""

from collections.abc import Iterator
from itertools import cycle
from typing import Any

import pytest

from runtime.scheduling import backlog
from tests.unit.runtime.engine.engine_driver import EngineDriver
from tests.unit.runtime.engine.test_engine_loop import PROMPT, crowd
from tests.unit.runtime.engine.test_engine_speculation import all_told

SHAPES = pytest.mark.parametrize(
    "shape", [{"num_drafts": 4}, {"num_drafts": 3, "tree": (3, 12)}], ids=["chains", "trees"]
)
SIZES = pytest.mark.parametrize("num_places", [8192, 40, 9], ids=["ample", "scarce", "tiny"])


def drain_with(driver: EngineDriver, levels: Iterator[int]) -> None:
    """So many drafts in each step, in turn."""
    while driver.engine.has_work:
        driver.engine.pin_drafts(next(levels))
        driver.step()


@SHAPES
@SIZES
@pytest.mark.parametrize("overlap", [True, False])
def test_texts_are_the_same_whenever_drafts_pause(
    monkeypatch: pytest.MonkeyPatch, shape: dict[str, Any], num_places: int, *, overlap: bool
) -> None:
    """A crowd of all kinds, pauses of one step to more than a page's tokens, a backlog that holds all and one that holds little."""
    monkeypatch.setattr(backlog, "BACKLOG_SIZE", num_places)
    plain = EngineDriver()
    crowd(plain)
    plain.drain()
    driver = EngineDriver(wrong_drafts=0.2, overlap_schedule=overlap, **shape)
    crowd(driver)
    most = shape["num_drafts"]
    drain_with(driver, cycle([0] * 6 + [most] * 2 + [0] + [most] * 2 + [0] * 19 + [most] * 7))
    driver.verify_against_oracle()
    assert all_told(driver) == all_told(plain)
    stats = driver.engine.stats()
    assert stats.num_late_entries > (50 if num_places > 9 else 20)
    assert stats.num_accepted > (10 if num_places > 9 else 0)
    assert (stats.num_lost_entries > 0) == (num_places < 8192)
    assert driver.runner.num_blind > 0, "ended answers left pages without entries"


@SHAPES
def test_with_little_memory_too(shape: dict[str, Any]) -> None:
    """Retracted sequences owe nothing; what they left in the prefix tree lacks entries, and whoever shares it knows."""
    driver = EngineDriver(num_pages=10, wrong_drafts=0.0, **shape)
    driver.engine._scheduler._estimate.fraction = 0.05
    for place in range(4):
        driver.submit(PROMPT[: 20 + 3 * place], max_tokens=50, ignore_eos=True)
    drain_with(driver, cycle([0] * 12 + [shape["num_drafts"]] * 3))
    driver.verify_against_oracle()
    assert driver.engine.stats().num_retractions > 0


def test_a_paused_prompt_is_entered_when_drafts_return() -> None:
    """In chunks of 16: 60 tokens of the prompt and 3 of the answer, at once, and then every draft is right."""
    driver = EngineDriver(num_drafts=3, wrong_drafts=0.0, overlap_schedule=False)
    driver.engine.pin_drafts(0)
    driver.submit(PROMPT[:60], max_tokens=40, ignore_eos=True)
    for _ in range(4 + 3):
        driver.step()
    assert driver.engine.stats().num_late_entries == 0
    assert driver.engine.stats().num_draft_prefill_tokens == 0
    driver.engine.pin_drafts(3)
    driver.drain()
    driver.verify_against_oracle()
    stats = driver.engine.stats()
    assert (stats.num_late_entries, stats.num_lost_entries, driver.runner.num_blind) == (63, 0, 0)
    assert stats.num_accepted == stats.num_proposed


def test_without_a_pause_prompts_are_read_at_once() -> None:
    """All tokens of the prompt are counted, and none is late."""
    driver = EngineDriver(num_drafts=3, wrong_drafts=0.0)
    driver.submit(PROMPT[:60], max_tokens=20, ignore_eos=True)
    driver.drain()
    stats = driver.engine.stats()
    assert (stats.num_draft_prefill_tokens, stats.num_late_entries, stats.num_lost_entries) == (60, 0, 0)


def test_shared_pages_that_lack_entries_are_not_looked_at() -> None:
    """A prompt was computed in a pause and its answer has ended; the next one shares its pages, and drafts with what is its own."""
    driver = EngineDriver(num_drafts=3, wrong_drafts=0.0)
    driver.engine.pin_drafts(0)
    driver.submit(PROMPT[:60], max_tokens=2, ignore_eos=True)
    driver.drain()
    driver.engine.pin_drafts(3)
    second = driver.submit(PROMPT[:60], max_tokens=40, ignore_eos=True)
    driver.drain()
    driver.verify_against_oracle()
    assert driver.summaries[second].cached_tokens == 48
    assert driver.runner.num_blind > 0
    assert driver.engine.stats().num_accepted == driver.engine.stats().num_proposed > 0


def test_shared_pages_are_looked_at_once_their_owner_has_caught_up() -> None:
    """Both sequences run: what the first enters late the second sees as well."""
    driver = EngineDriver(num_drafts=3, wrong_drafts=0.0)
    driver.engine.pin_drafts(0)
    driver.submit(PROMPT[:60], max_tokens=60, ignore_eos=True)
    for _ in range(5):
        driver.step()
    driver.submit(PROMPT[:60], max_tokens=40, ignore_eos=True)
    for _ in range(5):
        driver.step()
    driver.engine.pin_drafts(3)
    driver.drain()
    driver.verify_against_oracle()
    assert driver.runner.num_blind == 0


def test_pages_that_somebody_new_gets_lack_nothing() -> None:
    """They were written in a pause, evicted, and written anew."""
    driver = EngineDriver(num_pages=8, num_drafts=3, wrong_drafts=0.0)
    driver.engine.pin_drafts(0)
    driver.submit(PROMPT[:60], max_tokens=40, ignore_eos=True)
    driver.drain()
    driver.engine.pin_drafts(3)
    driver.submit([token + 1 for token in PROMPT[:60]], max_tokens=40, ignore_eos=True)
    driver.drain()
    driver.verify_against_oracle()
    assert driver.engine.stats().num_evicted_pages > 0
    assert driver.runner.num_blind == 0


@pytest.mark.parametrize("num_pauses", [3, 20])
def test_choices_of_a_paused_prompt_share_what_is_owed(num_pauses: int) -> None:
    """Three answers over one prompt that was computed in a pause: each has whole entries afterwards."""
    driver = EngineDriver(num_drafts=3, wrong_drafts=0.0)
    driver.engine.pin_drafts(0)
    driver.submit(PROMPT[:55], n=3, temperature=0.8, max_tokens=50, ignore_eos=True)
    for _ in range(4 + num_pauses):
        driver.step()
    driver.engine.pin_drafts(3)
    driver.drain()
    driver.verify_against_oracle()
    assert driver.runner.num_blind == 0
    assert driver.engine.stats().num_lost_entries == 0
