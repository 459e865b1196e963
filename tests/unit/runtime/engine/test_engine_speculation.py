"""What clients of a speculating engine see: the same as of any other, sooner. Over a model whose pages hold its text."""

from typing import Any

import pytest

from runtime.engine.loop import Engine
from runtime.errors import EngineMisconfigured
from runtime.settings import EngineSettings
from tests.unit.runtime.engine.engine_driver import EngineDriver
from tests.unit.runtime.engine.paged_text import EOS, PagedTextRunner
from tests.unit.runtime.engine.test_engine_loop import LONG, PROMPT, crowd


def all_told(driver: EngineDriver) -> dict[tuple[int, int], Any]:
    return {key: (told.tokens, told.finish, told.logprobs) for key, told in driver.told.items()}


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize(("num_drafts", "wrong"), [(1, 0.3), (3, 0.0), (5, 0.4), (7, 1.0)])
def test_texts_are_the_same_with_and_without_drafts(num_drafts: int, wrong: float, *, overlap: bool) -> None:
    """A crowd of all kinds, with penalties, grammars, logprobs and min_tokens: perfect drafts, useless ones, and between."""
    plain = EngineDriver()
    crowd(plain)
    plain.drain()
    driver = EngineDriver(num_drafts=num_drafts, wrong_drafts=wrong, overlap_schedule=overlap)
    crowd(driver)
    driver.drain()
    driver.verify_against_oracle()
    assert all_told(driver) == all_told(plain)
    assert wrong == 1.0 or driver.engine.stats().num_accepted > 20


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize(("steps", "tree", "wrong"), [(1, (4, 5), 0.3), (5, (3, 17), 0.4), (4, (4, 20), 1.0)])
def test_texts_are_the_same_with_and_without_trees(
    steps: int, tree: tuple[int, int], wrong: float, *, overlap: bool
) -> None:
    """The same crowd; behind each node stands the penalty, the grammar and the noise of its own path."""
    plain = EngineDriver()
    crowd(plain)
    plain.drain()
    driver = EngineDriver(num_drafts=steps, tree=tree, wrong_drafts=wrong, overlap_schedule=overlap)
    crowd(driver)
    driver.drain()
    driver.verify_against_oracle()
    assert all_told(driver) == all_told(plain)
    assert wrong == 1.0 or driver.engine.stats().num_accepted > 20


@pytest.mark.parametrize("num_pages", [3, 6, 8])
def test_a_request_that_fills_the_memory_is_served_with_trees(num_pages: int) -> None:
    """Side branches get what is left of the pages, and may take places that the text never fills."""
    driver = EngineDriver(num_pages=num_pages, num_drafts=4, tree=(3, 12), wrong_drafts=0.0)
    driver.submit(PROMPT[:20], max_tokens=(num_pages - 1) * 16 + 1 - 20, ignore_eos=True)
    driver.drain()
    driver.verify_against_oracle()
    assert driver.engine.stats().num_accepted > 0


@pytest.mark.parametrize("overlap", [True, False])
def test_perfect_drafts_divide_the_steps(overlap: bool) -> None:
    """41 tokens: one from the prompt's pass, and four from each pass that verifies three drafts."""
    driver = EngineDriver(num_drafts=3, wrong_drafts=0.0, overlap_schedule=overlap)
    request = driver.submit(PROMPT[:5], max_tokens=41, ignore_eos=True)
    driver.drain()
    driver.verify_against_oracle()
    summary = driver.summaries[request]
    assert (summary.num_verified, summary.num_proposed, summary.num_accepted) == (10, 30, 30)
    # With overlap one more step is under way when the end is seen.
    assert len(driver.runner.batches) == 11 + overlap


def test_useless_drafts_cost_no_token() -> None:
    """Every pass gives one token, as plain decoding does, and nothing is accepted."""
    driver = EngineDriver(num_drafts=4, wrong_drafts=1.0)
    request = driver.submit(PROMPT[:5], **LONG)
    driver.drain()
    driver.verify_against_oracle()
    summary = driver.summaries[request]
    assert (summary.num_accepted, len(driver.runner.batches)) == (0, 30)
    assert summary.num_verified == 28, "the last token needs no drafts, the first had none"


def test_speculation_overlaps() -> None:
    """A step is launched before the one before it is read, although nobody knows how many tokens that gives."""
    driver = EngineDriver(num_drafts=3, wrong_drafts=0.0)
    driver.submit(PROMPT[:5], **LONG)
    for _ in range(4):
        driver.step()
        assert len(driver.runner.pending) == 1
    driver.drain()
    driver.verify_against_oracle()


def test_an_end_among_accepted_tokens_ends_there() -> None:
    """Tokens behind a stop id, or beyond max_tokens, were accepted and are not delivered."""
    whole = EngineDriver(num_drafts=5, wrong_drafts=0.0)
    request = whole.submit(PROMPT[:9], max_tokens=30, ignore_eos=True)
    whole.drain()
    text = whole.text(request)
    for length in range(1, 12):
        driver = EngineDriver(num_drafts=5, wrong_drafts=0.0)
        by_length = driver.submit(PROMPT[:9], max_tokens=length, ignore_eos=True)
        by_id = driver.submit(PROMPT[:9], max_tokens=30, ignore_eos=True, stop_token_ids=(text[length - 1],))
        driver.drain()
        driver.verify_against_oracle()
        assert driver.text(by_length) == text[:length]
        assert driver.text(by_id) == text[: text.index(text[length - 1]) + 1]


@pytest.mark.parametrize("num_pages", [3, 6, 8])
def test_a_request_that_fills_the_memory_is_served(num_pages: int) -> None:
    """Drafts get what is left of the pages; the last tokens come without any."""
    driver = EngineDriver(num_pages=num_pages, num_drafts=7, wrong_drafts=0.0)
    driver.submit(PROMPT[:20], max_tokens=(num_pages - 1) * 16 + 1 - 20, ignore_eos=True)
    driver.drain()
    driver.verify_against_oracle()
    assert driver.engine.stats().num_accepted > 0


def test_speculation_beside_a_long_prompt() -> None:
    """Chunks of a prompt and verified drafts share steps."""
    driver = EngineDriver(num_drafts=3, wrong_drafts=0.2, chunked_prefill_size=8)
    quick = driver.submit([3, 4], **LONG)
    for _ in range(3):
        driver.step()
    driver.submit(PROMPT, max_tokens=9)
    driver.drain()
    driver.verify_against_oracle()
    assert driver.summaries[quick].num_accepted > 0


def test_cached_prefixes_draft_as_well() -> None:
    """The entries of the head lie in the target's pages: who shares those shares these, and drafts are as good."""
    driver = EngineDriver(num_drafts=3, wrong_drafts=0.0)
    first = driver.submit(PROMPT, max_tokens=41, ignore_eos=True)
    driver.drain()
    second = driver.submit(PROMPT, max_tokens=41, ignore_eos=True)
    driver.drain()
    driver.verify_against_oracle()
    assert driver.summaries[second].cached_tokens == 64
    assert driver.summaries[second].num_accepted == driver.summaries[first].num_accepted == 30


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"speculative_num_steps": 3}, "speculative_algorithm is not"),
        ({"speculative_eagle_topk": 1}, "speculative_eagle_topk: is set, but speculative_algorithm is not"),
        ({"speculative_num_draft_tokens": 4}, "speculative_num_draft_tokens: is set, but speculative_algorithm is not"),
        ({"speculative_draft_model_path": "head"}, "speculative_algorithm is not"),
        ({"speculative_adaptive": False}, "speculative_adaptive: is set, but speculative_algorithm is not"),
        ({"speculative_algorithm": "EAGLE3"}, "needs a draft head"),
        ({"speculative_num_steps": 3, "speculative_eagle_topk": 1}, "speculative_num_draft_tokens: of"),
        (
            {"speculative_num_steps": 3, "speculative_eagle_topk": 1, "speculative_num_draft_tokens": 5},
            "verifies 4 tokens, found 5",
        ),
        (
            {"speculative_num_steps": 3, "speculative_eagle_topk": 2, "speculative_num_draft_tokens": 3},
            r"verify 4 \(one path\) to 11 tokens \(every node\), found 3",
        ),
        (
            {"speculative_num_steps": 3, "speculative_eagle_topk": 2, "speculative_num_draft_tokens": 12},
            r"verify 4 \(one path\) to 11 tokens \(every node\), found 12",
        ),
        ({"speculative_eagle_topk": 4}, "speculative_num_steps: of"),
    ],
)
def test_options_that_contradict_each_other_are_errors(settings: dict[str, Any], named: str) -> None:
    """Each is named; nothing is corrected silently."""
    if "speculative_algorithm" not in settings and "is not" not in named:
        settings |= {"speculative_algorithm": "EAGLE3", "speculative_draft_model_path": "head"}
    with pytest.raises(EngineMisconfigured, match=named):
        Engine(PagedTextRunner(9), EngineSettings(model_path="none", **settings), [EOS], 128, lambda: 0.0)
