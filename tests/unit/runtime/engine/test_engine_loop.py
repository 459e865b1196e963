"""What clients of the engine see, one behaviour at a time, over a model whose pages hold its text."""

from typing import Any

import numpy as np
import pytest

from runtime.batch import Int32, StepBatch
from runtime.engine.loop import Engine
from runtime.errors import QueueFull, RequestRejected
from runtime.kv import prefixes
from runtime.kv.prefixes import page_keys
from runtime.request import GenerationRequest, SamplingParams
from runtime.settings import EngineSettings
from tests.unit.runtime.engine.engine_driver import EngineDriver
from tests.unit.runtime.engine.paged_text import EOS, POISON, PagedTextRunner, allowed_by, expected_text

PROMPT = [2 + (7 * place) % 19 for place in range(70)]
LONG = {"max_tokens": 30, "ignore_eos": True}


def num_cached(driver: EngineDriver, tokens: list[int], namespace: bytes = b"") -> int:
    """Pages of a text that the prefix tree has."""
    cache = driver.engine._scheduler.cache
    return len(cache.find(cache.root(namespace), np.array(tokens, np.int32), len(tokens) // 16))


def crowd(driver: EngineDriver) -> None:
    """A dozen requests of all kinds."""
    for place in range(12):
        options: dict[str, Any] = {"temperature": 0.8, "seed": place, "max_tokens": 5 + 3 * place, "n": 1 + place % 3}
        if place % 2:
            options |= {"frequency_penalty": 0.6, "repetition_penalty": 1.3}
        if place % 4 == 0:
            options |= {"logprobs": 2, "prompt_logprobs": 1, "min_tokens": 4}
        if place % 3 == 1 and place % 4:
            options["grammar"] = bytes([3, 8, 17, place])
        driver.submit(PROMPT[: 10 + 5 * place], **options)


@pytest.mark.parametrize("chunk", [1, 7, 16, 512])
def test_texts_are_the_same_with_and_without_overlap(chunk: int) -> None:
    """Overlap changes when tokens are read, never which; and chunks change nothing either."""
    texts = []
    for overlap in (True, False):
        driver = EngineDriver(overlap_schedule=overlap, chunked_prefill_size=chunk)
        crowd(driver)
        driver.drain()
        driver.verify_against_oracle()
        texts.append({key: (told.tokens, told.finish) for key, told in driver.told.items()})
    assert texts[0] == texts[1]


def test_output_follows_its_grammar_beside_others() -> None:
    """Each choice by itself, from its first token on; who has none is not touched (the oracle says what all get)."""
    driver = EngineDriver()
    free = driver.submit(PROMPT[:20], max_tokens=12, ignore_eos=True, temperature=0.9, seed=1)
    bound = driver.submit(PROMPT[:20], max_tokens=12, temperature=0.9, seed=1, n=3, grammar=bytes([3, 8, 17]))
    driver.drain()
    driver.verify_against_oracle()
    for choice in range(3):
        tokens = driver.told[bound, choice].tokens
        assert all(token in allowed_by(bytes([3, 8, 17]), place) for place, token in enumerate(tokens))
    assert len(driver.text(free)) == 12


def test_a_grammar_that_gives_up_ends_its_own_choice() -> None:
    """With its own word; the tokens before it were delivered, and the neighbour gets all of his."""
    driver = EngineDriver()
    neighbour = driver.submit(PROMPT[:20], max_tokens=12, ignore_eos=True)
    hostile = driver.submit(PROMPT[:20], max_tokens=12, grammar=bytes([3, POISON]))
    driver.drain()
    told = driver.told[hostile, 0]
    assert told.finish is not None
    assert (told.finish.reason, told.finish.detail, len(told.tokens)) == ("error", "grammar_too_slow", 2)
    assert len(driver.text(neighbour)) == 12


@pytest.mark.parametrize("conflict", [{"ignore_eos": True}, {"min_tokens": 2}])
def test_what_cannot_go_with_a_grammar_is_refused(conflict: dict[str, Any]) -> None:
    """A grammar says itself when an answer may end."""
    with pytest.raises(RequestRejected) as refused:
        EngineDriver().submit(PROMPT[:5], max_tokens=9, grammar=b"\x03", **conflict)
    assert refused.value.code == "grammar_conflict"


def test_overlapping_loop_launches_before_it_reads() -> None:
    """After the first step one step is always in flight, and the first token comes with the second step."""
    driver = EngineDriver()
    request = driver.submit(PROMPT[:5], **LONG)
    driver.step()
    assert (len(driver.runner.pending), driver.text(request)) == (1, [])
    for count in range(1, 6):
        driver.step()
        assert (len(driver.runner.pending), len(driver.text(request))) == (1, count)


def test_synchronous_loop_reads_what_it_launches() -> None:
    """Without overlap the first step gives the first token."""
    driver = EngineDriver(overlap_schedule=False)
    request = driver.submit(PROMPT[:5], **LONG)
    driver.step()
    assert (len(driver.runner.pending), len(driver.text(request))) == (0, 1)


def test_length_is_known_in_advance_and_wastes_no_step() -> None:
    """A request for 8 tokens takes 8 steps, with overlap too."""
    driver = EngineDriver()
    driver.submit(PROMPT[:5], max_tokens=8, ignore_eos=True)
    driver.drain()
    assert len(driver.runner.batches) == 8


def test_decoding_goes_on_beside_a_long_prompt() -> None:
    """While 70 tokens are computed in chunks of 8, the other request gets a token every step."""
    driver = EngineDriver(chunked_prefill_size=8)
    quick = driver.submit([3, 4], **LONG)
    driver.step()
    driver.step()
    slow = driver.submit(PROMPT, max_tokens=2)
    before, steps = len(driver.text(quick)), 0
    while not driver.text(slow):
        driver.step()
        steps += 1
    assert steps > 8
    assert len(driver.text(quick)) == before + steps
    assert all(tokens <= 8 + 1 for _, tokens in driver.runner.batches)


def test_prompts_take_smaller_bites_beside_decoding() -> None:
    """Alone a prompt of 70 tokens is through in one step; while another decodes, no step has more than 33 tokens."""
    driver = EngineDriver(chunked_prefill_size=512, mixed_prefill_size=33)
    driver.submit(PROMPT, **LONG)
    driver.step()
    driver.submit([*PROMPT[1:], 3], max_tokens=1)
    for _ in range(4):
        driver.step()
    assert driver.runner.batches == [(0, 70), (1, 33), (1, 33), (1, 1 + 6)]
    driver.drain()
    driver.verify_against_oracle()


def test_prompts_are_spread_over_the_steps_of_those_who_decode() -> None:
    """Of 1,920 tokens in line each step takes what fills it up to 256 rows, and not the 1,024 that it may have."""
    driver = EngineDriver(
        num_pages=400,
        chunked_prefill_size=4096,
        mixed_prefill_size=1024,
        max_running_requests=32,
        overlap_schedule=False,
    )
    driver.submit([3, 4], **LONG)
    driver.step()
    random = np.random.default_rng(0)
    for _ in range(20):
        driver.submit(random.integers(3, 24, 96).tolist(), max_tokens=1)
    for _ in range(8):
        driver.step()
    assert [tokens for _, tokens in driver.runner.batches[1:]] == [1 + 240] * 8
    driver.drain()
    driver.verify_against_oracle()


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [
        ({"device": "cuda"}, (8192, 2048)),
        ({"device": "cpu"}, (512, 512)),
        ({"device": "cuda", "chunked_prefill_size": 256}, (256, 256)),
        ({"device": "cpu", "chunked_prefill_size": 2048, "mixed_prefill_size": 96}, (2048, 96)),
    ],
)
def test_sizes_of_prefill_follow_the_device_unless_set(settings: dict[str, Any], sizes: tuple[int, int]) -> None:
    """And beside decoding never more than alone."""
    assert EngineSettings(model_path="none", **settings).prefill_sizes == sizes


def test_requests_that_come_together_share_one_prefill() -> None:
    """Three equal prompts of 70 tokens: the first computes 64 of them, the others find them while it does."""
    driver = EngineDriver(chunked_prefill_size=512)
    for _ in range(3):
        driver.submit(PROMPT, max_tokens=1)
    driver.drain()
    driver.verify_against_oracle()
    assert [tokens for _, tokens in driver.runner.batches] == [70 + 6 + 6]
    assert [driver.summaries[request].cached_tokens for request in (1, 2, 3)] == [0, 64, 64]


def test_pages_of_a_prompt_that_comes_alone_enter_the_tree_behind_the_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device does not wait for it; who comes before the next step finds them."""
    driver = EngineDriver(chunked_prefill_size=512)
    launch, at_launch = driver.runner.launch, []

    def noting(batch: StepBatch) -> Any:
        at_launch.append(num_cached(driver, PROMPT))
        return launch(batch)

    monkeypatch.setattr(driver.runner, "launch", noting)
    driver.submit(PROMPT, max_tokens=1)
    driver.step()
    assert at_launch == [0]
    assert num_cached(driver, PROMPT) == 4
    driver.drain()
    driver.verify_against_oracle()


def test_values_that_break_behind_a_fork_take_the_prompt_along() -> None:
    """The second choice knows which path it is on, though the first had it published and has ended."""
    driver = EngineDriver(chunked_prefill_size=512)
    poisoned = [*PROMPT[:32], POISON]
    request = driver.submit(poisoned, n=2, temperature=1.0, max_tokens=8, ignore_eos=True)
    driver.step()
    driver.cancel(request, 0)
    assert num_cached(driver, poisoned) == 2
    driver.drain()
    assert driver.finish(request, 1) == "error"
    assert num_cached(driver, poisoned) == 0


def test_next_turn_finds_prompt_and_answer_in_the_cache() -> None:
    """The answer's full pages are kept with the prompt's."""
    driver = EngineDriver()
    first = driver.submit(PROMPT[:20], **LONG)
    driver.drain()
    second = driver.submit([*PROMPT[:20], *driver.text(first), 5, 6], max_tokens=1)
    driver.drain()
    assert driver.summaries[second].cached_tokens == 48
    driver.verify_against_oracle()


def test_choices_share_the_prompt_and_copy_its_last_page() -> None:
    """Four choices over 40 tokens: two shared pages, and one of their own each."""
    driver = EngineDriver(chunked_prefill_size=512)
    driver.submit(PROMPT[:40], n=4, temperature=1.0, max_tokens=6, ignore_eos=True)
    driver.step()
    driver.step()
    stats = driver.engine.stats()
    assert stats.num_pages - stats.num_free_pages == 2 + 4
    driver.drain()
    driver.verify_against_oracle()
    assert len({tuple(driver.text(1, choice)) for choice in range(4)}) > 1


def test_first_choice_is_what_a_single_answer_would_be() -> None:
    """n adds answers and does not change the first."""
    driver = EngineDriver()
    driver.submit(PROMPT[:40], n=3, temperature=1.0, seed=5, **LONG)
    driver.submit(PROMPT[:40], n=1, temperature=1.0, seed=5, **LONG)
    driver.drain()
    assert driver.text(1, 0) == driver.text(2, 0)


def test_last_page_of_a_fully_cached_prompt_is_computed_again() -> None:
    """64 tokens, all four pages cached: the last is computed for its logits, and not kept twice."""
    driver = EngineDriver()
    for _ in range(2):
        driver.submit(PROMPT[:64], max_tokens=4, ignore_eos=True)
        driver.drain()
    assert driver.summaries[2].cached_tokens == 48
    assert driver.engine.stats().num_evictable_pages == 4
    driver.verify_against_oracle()


@pytest.mark.parametrize("num_output", range(10, 14))
def test_cached_pages_are_the_same_with_and_without_overlap(num_output: int) -> None:
    """20 tokens of prompt and 12 of output fill two pages, but the last token is computed in a wasted step only."""
    for overlap in (True, False):
        driver = EngineDriver(overlap_schedule=overlap)
        request = driver.submit(PROMPT[:20], max_tokens=60, ignore_eos=True)
        while len(driver.text(request)) < num_output:
            driver.step()
        driver.cancel(request)
        driver.drain()
        assert num_cached(driver, PROMPT[:20] + driver.text(request)) == (2 if num_output > 12 else 1)


@pytest.mark.parametrize("overlap", [True, False])
def test_retraction_and_eviction_leave_texts_as_they_are(overlap: bool) -> None:
    """With 9 pages for 6 long answers some are retracted and prefixes evicted; penalties, seeds and logprobs hold."""
    driver = EngineDriver(num_pages=10, overlap_schedule=overlap, chunked_prefill_size=32)
    for place in range(6):
        driver.submit(
            PROMPT[place : place + 25],
            max_tokens=60,
            ignore_eos=True,
            temperature=0.9,
            seed=place,
            repetition_penalty=1.3,
            frequency_penalty=0.4,
            logprobs=1,
            prompt_logprobs=place % 2 - 1,
        )
    driver.drain()
    driver.verify_against_oracle()
    stats = driver.engine.stats()
    assert stats.num_retractions >= 2
    assert stats.num_evicted_pages > 0
    assert sum(summary.num_retractions for summary in driver.summaries.values()) == stats.num_retractions


def test_youngest_of_lowest_priority_is_retracted() -> None:
    """Who came last goes back, unless somebody matters less."""
    driver = EngineDriver(num_pages=11, chunked_prefill_size=512)
    driver.engine._scheduler._estimate.fraction = 0.05
    unimportant = driver.submit(PROMPT[1:21], max_tokens=60, ignore_eos=True, priority=-1)
    driver.step()
    first = driver.submit(PROMPT[:20], max_tokens=60, ignore_eos=True)
    last = driver.submit(PROMPT[2:22], max_tokens=60, ignore_eos=True)
    driver.drain()
    driver.verify_against_oracle()
    retracted = {request: driver.summaries[request].num_retractions for request in (first, unimportant, last)}
    assert retracted == {first: 0, last: 0, unimportant: 1}


def test_request_that_takes_all_memory_runs_to_its_end() -> None:
    """What `submit` accepts can be computed, whatever runs beside it."""
    driver = EngineDriver(num_pages=9)
    driver.submit(PROMPT[:30], n=4, max_tokens=98, ignore_eos=True, temperature=1.0)
    driver.submit(PROMPT[:60], max_tokens=68, ignore_eos=True)
    driver.drain()
    driver.verify_against_oracle()
    with pytest.raises(RequestRejected, match="context"):
        driver.submit(PROMPT[:30], max_tokens=99)


def test_broken_values_end_one_request_and_leave_nothing_in_the_cache() -> None:
    """A row without finite logits ends with a stable word; its pages leave the tree, others go on."""
    driver = EngineDriver(chunked_prefill_size=512)
    poisoned = [*PROMPT[:32], POISON, 4]
    good = driver.submit(PROMPT[:40], **LONG)
    driver.step()
    bad = driver.submit(poisoned, n=2, max_tokens=20, ignore_eos=True)
    while driver.told[bad, 0].finish is None:
        driver.step()
    assert num_cached(driver, poisoned) == 0
    driver.drain()
    driver.verify_against_oracle()
    for choice in (0, 1):
        finish = driver.told[bad, choice].finish
        assert finish is not None
        assert (finish.reason, finish.detail) == ("error", "non_finite_logits")
        assert len(driver.text(bad, choice)) == 1
    assert driver.finish(good) == "length"
    assert num_cached(driver, poisoned) == 0


def test_broken_values_are_not_cached_where_the_prompt_was_computed_in_full() -> None:
    """With prompt logprobs the pages are not in the tree before the end; they do not get there at such an end."""
    driver = EngineDriver()
    poisoned = [*PROMPT[:33], POISON]
    request = driver.submit(poisoned, max_tokens=20, ignore_eos=True, prompt_logprobs=0)
    driver.drain()
    assert driver.finish(request) == "error"
    assert num_cached(driver, poisoned) == 0


def test_tokens_behind_the_cut_are_neither_counted_nor_cached() -> None:
    """With `keep_tokens` 15 after 20 tokens of prompt the tree gets two pages, not three."""
    driver = EngineDriver()
    request = driver.submit(PROMPT[:20], max_tokens=60, ignore_eos=True)
    while len(driver.text(request)) < 40:
        driver.step()
    driver.cancel(request, 0, 15)
    driver.drain()
    assert driver.finish(request) == "cancelled"
    assert driver.summaries[request].output_tokens == 15
    assert num_cached(driver, PROMPT[:20] + driver.text(request)) == 2
    driver.verify_against_oracle()


@pytest.mark.parametrize(("keep_tokens", "pages"), [(None, 1), (15, 2)])
def test_output_that_may_still_be_cut_is_cached_only_as_far_as_confirmed(keep_tokens: int | None, pages: int) -> None:
    """With `caches_output` off only a cancel with `keep_tokens` lets output pages in."""
    driver = EngineDriver()
    request = driver.submit(PROMPT[:20], max_tokens=60, ignore_eos=True, caches_output=False)
    while len(driver.text(request)) < 40:
        driver.step()
    driver.cancel(request, None, keep_tokens)
    driver.drain()
    assert num_cached(driver, PROMPT[:20] + driver.text(request)) == pages


def test_output_that_may_still_be_cut_is_not_cached_at_a_natural_end() -> None:
    """The stop string may be in the tokens that were just delivered."""
    driver = EngineDriver()
    request = driver.submit(PROMPT[:20], caches_output=False, **LONG)
    driver.drain()
    assert num_cached(driver, PROMPT[:20] + driver.text(request)) == 1


def test_output_enters_the_cache_only_when_its_choice_has_ended() -> None:
    """While it runs, the gateway may still cut it."""
    driver = EngineDriver()
    request = driver.submit(PROMPT[:20], max_tokens=60, ignore_eos=True)
    while len(driver.text(request)) < 50:
        driver.step()
    assert num_cached(driver, PROMPT[:20] + driver.text(request)) == 1
    driver.drain()
    assert num_cached(driver, PROMPT[:20] + driver.text(request)) == 4


def test_output_of_a_resumed_request_stays_out_of_the_cache_too() -> None:
    """After retraction the output is computed like a prompt, but the gateway may still cut it."""
    driver = EngineDriver(num_pages=9, chunked_prefill_size=512)
    driver.engine._scheduler._estimate.fraction = 0.05
    driver.submit(PROMPT[:20], max_tokens=60, ignore_eos=True)
    request = driver.submit(PROMPT[1:21], max_tokens=100, ignore_eos=True)
    while driver.engine.stats().num_retractions == 0:
        driver.step()
    while driver.engine.stats().num_running == 0 or len(driver.summaries) == 0:
        driver.step()
    num_before = len(driver.text(request))
    for _ in range(5):
        driver.step()
    assert len(driver.text(request)) > num_before > 30
    assert num_cached(driver, PROMPT[1:21] + driver.text(request)) == 1
    driver.drain()
    driver.verify_against_oracle()


def test_one_choice_may_be_cancelled_while_the_others_go_on() -> None:
    """Before the fork, even the one that carries the prompt; after it, any."""
    driver = EngineDriver(chunked_prefill_size=16)
    request = driver.submit(PROMPT, n=4, temperature=1.0, **LONG)
    driver.cancel(request, 3)
    driver.step()
    driver.cancel(request, 0)
    while not driver.text(request, 1):
        driver.step()
    driver.cancel(request, 2, 0)
    driver.drain()
    driver.verify_against_oracle()
    assert [driver.finish(request, choice) for choice in range(4)] == ["cancelled", "length", "cancelled", "cancelled"]
    assert driver.summaries[request].output_tokens == 30


def test_cancel_of_what_has_ended_or_never_was_is_no_error() -> None:
    """It may have crossed the end on its way."""
    driver = EngineDriver()
    request = driver.submit(PROMPT[:5], max_tokens=1)
    driver.drain()
    driver.cancel(request)
    driver.cancel(12345, 3, 1)
    assert not driver.engine.has_work


def test_deadline_ends_waiting_and_running_requests() -> None:
    """Each keeps what it has; the waiting one never ran."""
    driver = EngineDriver(max_running_requests=1)
    running = driver.submit(PROMPT[:5], max_tokens=60, ignore_eos=True, deadline=110.0)
    waiting = driver.submit(PROMPT[:6], deadline=105.0)
    other = driver.submit(PROMPT[:7], max_tokens=2)
    for _ in range(5):
        driver.step()
    driver.now = 106.0
    driver.step()
    assert driver.finish(waiting) == "deadline"
    assert driver.told[running, 0].finish is None
    driver.now = 110.0
    driver.drain()
    assert driver.finish(running) == "deadline"
    assert len(driver.text(running)) >= 4
    assert driver.finish(other) in ("length", "stop")
    driver.verify_against_oracle()


def test_higher_priority_is_admitted_first() -> None:
    """With one row, the important request passes those that wait."""
    driver = EngineDriver(max_running_requests=1)
    order: list[int] = []
    requests = [driver.submit(PROMPT[: 5 + n], max_tokens=2, priority=n % 2) for n in range(4)]
    while driver.engine.has_work:
        known = set(driver.summaries)
        driver.step()
        order += [request for request in driver.summaries if request not in known]
    assert order == [requests[1], requests[3], requests[0], requests[2]]


def test_longest_prefix_policy_admits_cached_prompts_first() -> None:
    """Under `lpm` the request whose prefix is cached passes an earlier one."""
    driver = EngineDriver(max_running_requests=1, schedule_policy="lpm")
    driver.submit(PROMPT[:40], max_tokens=1)
    driver.drain()
    blocker = driver.submit([9] * 5, max_tokens=4, ignore_eos=True)
    driver.step()
    cold = driver.submit([5] * 40, max_tokens=1)
    warm = driver.submit([*PROMPT[:40], 3], max_tokens=1)
    driver.drain()
    assert list(driver.summaries)[1:] == [blocker, warm, cold]


def test_longest_prefix_search_does_not_walk_the_tree_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty wait with four cached pages each: at first each is walked down, from then on each look ends where it begins."""
    driver = EngineDriver(max_running_requests=1, schedule_policy="lpm", max_queued_requests=64)
    driver.submit(PROMPT, max_tokens=1)
    driver.drain()
    for place in range(50):
        driver.submit([*PROMPT, 2 + place % 20, 3 + place // 20], max_tokens=1)
    looks = 0

    def counted(tokens: Int32, start: int, end: int) -> list[bytes]:
        nonlocal looks
        looks += end - start
        return page_keys(tokens, start, end)

    monkeypatch.setattr(prefixes, "page_keys", counted)
    driver.step()
    first, looks = looks, 0
    while len(driver.summaries) < 3:
        driver.step()
    assert first >= 50 * 4
    assert looks < 60
    driver.drain()
    driver.verify_against_oracle()


def test_tenants_take_turns_by_tokens() -> None:
    """One tenant's flood of twelve requests was there first; another's three do not wait for all of them, only for their turn."""
    driver = EngineDriver(max_running_requests=1, max_queued_requests=20)
    flood = [driver.submit(PROMPT[:20], max_tokens=8, ignore_eos=True, namespace=b"flood") for _ in range(12)]
    few = [driver.submit(PROMPT[:20], max_tokens=8, ignore_eos=True, namespace=b"few") for _ in range(3)]
    driver.drain()
    order = list(driver.summaries)
    assert [order.index(request) for request in few] == [1, 3, 5]
    assert [request for request in order if request in flood] == flood


def test_queue_has_a_bound() -> None:
    """Beyond `max_queued_requests` the caller is told to come back, and nothing of the request remains."""
    driver = EngineDriver(max_queued_requests=2)
    driver.submit([5], max_tokens=1)
    driver.submit([6], max_tokens=1)
    with pytest.raises(QueueFull, match="2 requests are waiting"):
        driver.submit([7], max_tokens=1)
    driver.drain()
    driver.submit([7], max_tokens=1)
    driver.drain()


def test_request_id_in_use_is_refused() -> None:
    """The open request is not disturbed; after its end the id is free."""
    driver = EngineDriver()
    driver.submit(PROMPT[:5], max_tokens=2)
    with pytest.raises(RequestRejected, match="request 1 is open") as caught:
        driver.engine.submit(driver.asked[1])
    assert caught.value.code == "duplicate_request"
    driver.drain()
    driver.verify_against_oracle()


def test_prompt_logprobs_are_computed_in_full_though_the_prompt_is_cached() -> None:
    """Cached pages have no logits; so nothing is matched, and the prompt's page is not kept twice."""
    driver = EngineDriver()
    driver.submit(PROMPT, max_tokens=1)
    driver.drain()
    request = driver.submit(PROMPT, n=2, max_tokens=3, prompt_logprobs=2)
    driver.drain()
    assert driver.summaries[request].cached_tokens == 0
    driver.verify_against_oracle()


def test_steps_are_counted_by_whether_they_ran_in_a_graph() -> None:
    """A prompt of several tokens did not, the seven steps of decoding after it did; and the device's time adds up."""
    driver = EngineDriver()
    driver.submit(PROMPT[:5], max_tokens=8, ignore_eos=True)
    driver.drain()
    stats = driver.engine.stats()
    assert (stats.num_steps, stats.num_graph_steps, stats.captured_size, stats.busy_s) == (8, 7, 1, 2.0)


def test_probe_brings_a_token_and_leaves_no_trace() -> None:
    """The time of the last token moves; no pages, no counts, no deliveries."""
    driver = EngineDriver()
    driver.now = 150.0
    before = driver.engine.stats()
    assert driver.engine.probe()
    after = driver.engine.stats()
    assert (before.last_token_at, after.last_token_at) == (100.0, 150.0)
    assert (after.num_free_pages, after.num_evictable_pages) == (after.num_pages, 0)
    assert (after.prompt_tokens, after.generated_tokens) == (0, 0)
    assert not driver.engine.has_work


def test_probe_does_nothing_while_there_is_work() -> None:
    """Requests prove the same, and are not to be disturbed."""
    driver = EngineDriver()
    driver.submit(PROMPT[:5], max_tokens=3)
    driver.engine.probe()
    assert driver.runner.batches == []
    driver.drain()
    driver.verify_against_oracle()


def test_flushed_cache_is_empty_and_what_runs_goes_on() -> None:
    """All pages of ended requests are free; the running one keeps its own, and its text."""
    driver = EngineDriver()
    driver.submit(PROMPT[:40], max_tokens=1)
    driver.drain()
    running = driver.submit([*PROMPT[:40], 3], **LONG)
    driver.step()
    assert driver.engine.flush_cache() >= 2
    assert num_cached(driver, PROMPT[:40]) == 0
    driver.drain()
    driver.verify_against_oracle()
    assert driver.finish(running) == "length"


def test_disabled_prefix_cache_shares_and_keeps_nothing() -> None:
    """Every request computes its whole prompt, and all pages are free at the end."""
    driver = EngineDriver(disable_radix_cache=True)
    crowd(driver)
    crowd(driver)
    driver.drain()
    driver.verify_against_oracle()
    stats = driver.engine.stats()
    assert stats.cached_tokens == 0
    assert stats.num_free_pages == stats.num_pages


def test_namespaces_do_not_share_prompts() -> None:
    """The second tenant computes what the first has cached."""
    driver = EngineDriver()
    driver.submit(PROMPT, max_tokens=1, namespace=b"one")
    driver.drain()
    other = driver.submit(PROMPT, max_tokens=1, namespace=b"two")
    same = driver.submit(PROMPT, max_tokens=1, namespace=b"one")
    driver.drain()
    assert [driver.summaries[request].cached_tokens for request in (other, same)] == [0, 64]


def test_ends_are_what_was_asked_for() -> None:
    """Stop ids, the model's own end, its being ignored, and the least number of tokens before any end."""
    driver = EngineDriver()
    for start in range(8):
        for options in (
            {"stop_token_ids": (4, 5, 6)},
            {},
            {"ignore_eos": True},
            {"min_tokens": 12},
            {"min_tokens": 12, "stop_token_ids": (4, 5, 6, 7, 8)},
        ):
            driver.submit(PROMPT[start : start + 9], temperature=1.5, max_tokens=40, seed=start, **options)
    driver.drain()
    driver.verify_against_oracle()
    assert {driver.finish(request) for request in driver.asked} == {"stop", "length"}
    for request, asked in driver.asked.items():
        assert len(driver.text(request)) >= asked.sampling.min_tokens
        if asked.sampling.ignore_eos:
            assert driver.finish(request) == "length"
    assert any(EOS in driver.text(request)[:-1] for request, a in driver.asked.items() if a.sampling.ignore_eos)


def test_fault_of_the_runner_is_a_fault_of_the_engine() -> None:
    """It is not mistaken for one request's; whoever drives the engine ends the process."""

    class BrokenRunner(PagedTextRunner):
        def launch(self, batch: StepBatch) -> Any:
            raise MemoryError("no device memory")

    settings = EngineSettings(model_path="none")
    engine = Engine(BrokenRunner(16), settings, [EOS], 64, lambda: 0.0)
    engine.submit(GenerationRequest(request_id=1, prompt=[3], sampling=SamplingParams()))
    with pytest.raises(MemoryError):
        engine.step()


def test_oracle_depends_on_every_sampling_parameter() -> None:
    """Otherwise agreement with it would prove little."""
    plain: dict[str, Any] = {"temperature": 1.0, "max_tokens": 40, "ignore_eos": True}
    variants: list[dict[str, Any]] = [
        {"temperature": 0.0},
        {"seed": 1},
        {"top_k": 3},
        {"top_p": 0.5},
        {"min_p": 0.5},
        {"frequency_penalty": 1.0},
        {"presence_penalty": 1.0},
        {"repetition_penalty": 2.0},
        {"logit_bias": {3: 5.0}},
        {"stop_token_ids": (2, 3, 4, 5, 6)},
        {"stop_token_ids": (2, 3), "min_tokens": 40},
    ]

    def text(options: dict[str, Any]) -> list[int]:
        sampling = SamplingParams(**{**plain, **options})
        return expected_text(GenerationRequest(request_id=1, prompt=PROMPT, sampling=sampling), 0)[0]

    for options in variants:
        assert text(options) != text({}), options
