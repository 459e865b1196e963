"""Pool, prefix tree, scheduler and loop together, under whatever sequence of events Hypothesis thinks of.

The pages hold the text itself (`paged_text`), so after each run the texts are compared with an oracle that knows neither
pages nor batches; `check_integrity()` runs after every step and every rule. What is submitted is derived from a number, so
that a run has many requests for little drawing; the driver's `asked` shows them when a run fails.
"""

from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from runtime.errors import EngineUnavailable, RequestRejected
from tests.unit.runtime.engine.engine_driver import EngineDriver
from tests.unit.runtime.engine.paged_text import POISON

# A few beginnings, of less than a page, of a page, and of several, that many requests share.
BEGINNINGS = [[7] * 9, [3, 5] * 8, [3, 5] * 8 + [6, 11, 13] * 6, [3, 5] * 8 + [6, 11, 13] * 11]
SETTINGS: dict[str, list[Any]] = {
    "num_pages": [8, 9, 9, 10, 12, 20],
    "chunked_prefill_size": [1, 5, 16, 33, 200],
    "mixed_prefill_size": [0, 3, 20],
    "max_running_requests": [1, 3, 5, 6],
    "max_queued_requests": [3, 20],
    "schedule_policy": ["fcfs", "lpm"],
    "overlap_schedule": [True, True, False],
    "disable_radix_cache": [False, False, False, True],
    "num_drafts": [0, 1, 3, 7],
    "wrong_drafts": [0.0, 0.3, 1.0],
    "speculative_adaptive": [True, False],
}
OPTIONS: dict[str, list[Any]] = {
    "min_tokens": [3, 8],
    "stop_token_ids": [(4,), (4, 9, 12)],
    "frequency_penalty": [0.5, -0.5],
    "presence_penalty": [0.7],
    "repetition_penalty": [1.4],
    "logit_bias": [{3: 2.0}, {5: -1.0, 9: 1.5}],
    "logprobs": [0, 1, 3],
    "prompt_logprobs": [0, 2],
    "top_k": [2],
    "priority": [-1, 1],
    "caches_output": [False],
}
seeds = st.integers(0, (1 << 32) - 1)


def draw_request(random: Random, now: float) -> dict[str, Any]:
    """A request of any kind, many of them long, some of them broken."""
    prompt = random.choice(BEGINNINGS) + [random.randrange(2, POISON) for _ in range(random.randrange(1, 20))]
    request: dict[str, Any] = {
        "prompt": prompt + [POISON] * (random.random() < 0.1),
        "n": random.choice([1, 1, 1, 2, 3]),
        "max_tokens": random.choice([1, 5, 20, 40, 60]),
        "ignore_eos": random.random() < 0.6,
        "temperature": random.choice([0.0, 0.8]),
        "seed": random.randrange(4),
        "namespace": random.choice([b"a", b"a", b"a", b"b"]),
    }
    for name in random.sample(sorted(OPTIONS), random.choice([0, 1, 1, 3])):
        request[name] = random.choice(OPTIONS[name])
    if random.random() < 0.1:
        request["deadline"] = now + random.random() * 10
    return request


class EngineMachine(RuleBasedStateMachine):
    """Requests come and go in an engine with little memory."""

    @initialize(seed=seeds)
    def start(self, seed: int) -> None:
        random = Random(seed)
        chosen = {name: random.choice(values) for name, values in SETTINGS.items()}
        if not chosen["num_drafts"]:
            del chosen["speculative_adaptive"]
        self.driver = EngineDriver(**chosen)
        # A low estimate admits more than fits, so that retraction is common.
        self.driver.engine._scheduler._estimate.fraction = random.choice([0.05, 0.05, 0.5])
        # Hypothesis leaves out some rules in each run, `submit` too.
        self.submit_some(random, 5)

    @rule(seed=seeds, count=st.integers(1, 5))
    def submit(self, seed: int, count: int) -> None:
        self.submit_some(Random(seed), count)

    def submit_some(self, random: Random, count: int) -> None:
        for _ in range(count):
            try:
                self.driver.submit(**draw_request(random, self.driver.now))
            except (RequestRejected, EngineUnavailable):
                continue
            for _ in range(random.choice([0, 0, 1, 6])):
                self.driver.step()

    @rule(
        place=st.integers(0, 20),
        choice=st.sampled_from([None, 0, 1, 2]),
        keep_tokens=st.sampled_from([None, 0, 2, 17, 40]),
    )
    def cancel(self, place: int, choice: int | None, keep_tokens: int | None) -> None:
        is_open = sorted(self.driver.asked.keys() - self.driver.summaries.keys())
        if is_open:
            self.driver.cancel(is_open[place % len(is_open)], choice, keep_tokens)

    @rule(count=st.integers(1, 30))
    def run(self, count: int) -> None:
        for _ in range(count):
            self.driver.step()

    @rule(seconds=st.integers(1, 6))
    def pass_time(self, seconds: int) -> None:
        self.driver.now += seconds

    @rule(is_paused=st.booleans())
    def pause_drafts(self, is_paused: bool) -> None:
        """The head's entries are put off, and made later, lost, or shared without."""
        policy = self.driver.engine._policy
        self.driver.engine.pin_drafts(0 if is_paused else policy.shape.num_steps)

    @rule()
    def flush(self) -> None:
        self.driver.engine.flush_cache()

    @rule()
    def probe(self) -> None:
        self.driver.engine.probe()

    @invariant()
    def holds_together(self) -> None:
        if hasattr(self, "driver"):
            self.driver.engine.check_integrity()

    def teardown(self) -> None:
        if not hasattr(self, "driver"):
            return
        self.driver.drain()
        self.driver.verify_against_oracle()
        stats = self.driver.engine.stats()
        event(f"retracted: {stats.num_retractions > 0}")
        event(f"evicted: {stats.num_evicted_pages > 0}")
        event(f"cached: {stats.cached_tokens > 0}")
        event(f"accepted: {stats.num_accepted > 0}")
        event(f"caught up: {stats.num_late_entries > 0}")


def _settings(max_examples: int, stateful_step_count: int) -> settings:
    return settings(
        max_examples=max_examples,
        stateful_step_count=stateful_step_count,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


class TestEngineMachine(EngineMachine.TestCase):
    """No sequence of events changes a text, loses a page, or leaves a client without an end."""

    settings = _settings(30, 10)


@pytest.mark.long
@pytest.mark.timeout(3600)
class TestEngineMachineForLong(EngineMachine.TestCase):
    """The same, with many more and longer runs."""

    settings = _settings(600, 40)
