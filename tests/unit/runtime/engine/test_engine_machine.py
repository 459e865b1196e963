"""Pool, prefix tree, scheduler and loop together, under whatever sequence of events Hypothesis thinks of.

The pages hold the text itself (`paged_text`), so after each run the texts are compared with an oracle that knows neither
pages nor batches; `check_integrity()` runs after every step and every rule.
"""

from typing import Any

import pytest
from hypothesis import HealthCheck, settings, target
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from runtime.errors import EngineUnavailable, RequestRejected
from tests.unit.runtime.engine.engine_driver import EngineDriver
from tests.unit.runtime.engine.paged_text import POISON

tokens = st.integers(2, POISON - 1)
# A few beginnings, of less than a page, of a page, and of several, that many requests share.
BEGINNINGS = [[], [7] * 9, [3, 5] * 8, [2, 9, 4, 4, 8] * 7, [3, 5] * 8 + [6, 11, 13] * 12]


class EngineMachine(RuleBasedStateMachine):
    """Requests come and go in an engine with little memory."""

    requests = Bundle("requests")

    @initialize(
        num_pages=st.integers(9, 24),
        chunked_prefill_size=st.sampled_from([1, 5, 16, 33, 200]),
        max_running_requests=st.integers(1, 6),
        max_queued_requests=st.integers(2, 9),
        schedule_policy=st.sampled_from(["fcfs", "lpm"]),
        overlap_schedule=st.sampled_from([True, True, False]),
        disable_radix_cache=st.sampled_from([False, False, False, True]),
    )
    def start(self, **settings: Any) -> None:
        self.driver = EngineDriver(**settings)

    @rule(
        target=requests,
        beginning=st.sampled_from(BEGINNINGS),
        rest=st.lists(tokens, min_size=1, max_size=20),
        n=st.sampled_from([1, 1, 1, 2, 3, 5]),
        max_tokens=st.integers(1, 60),
        sampling=st.fixed_dictionaries(
            {"temperature": st.sampled_from([0.0, 0.8]), "seed": st.integers(0, 3)},
            optional={
                "ignore_eos": st.just(True),
                "min_tokens": st.integers(0, 8),
                "stop_token_ids": st.sampled_from([(4,), (4, 9, 12)]),
                "frequency_penalty": st.sampled_from([0.5, -0.5]),
                "presence_penalty": st.just(0.7),
                "repetition_penalty": st.just(1.4),
                "logit_bias": st.dictionaries(tokens, st.sampled_from([-2.0, 1.5]), max_size=3),
                "logprobs": st.integers(0, 3),
                "prompt_logprobs": st.integers(0, 3),
                "top_k": st.integers(0, 5),
            },
        ),
        others=st.fixed_dictionaries(
            {"namespace": st.sampled_from([b"a", b"b", b"c"])},
            optional={
                "priority": st.integers(-1, 1),
                "timeout": st.floats(0.0, 20.0),
                "caches_output": st.booleans(),
            },
        ),
        is_poisoned=st.sampled_from([False] * 7 + [True]),
    )
    def submit(
        self,
        beginning: list[int],
        rest: list[int],
        n: int,
        max_tokens: int,
        sampling: dict[str, Any],
        others: dict[str, Any],
        is_poisoned: bool,
    ) -> Any:
        prompt = beginning + rest + [POISON] * is_poisoned
        fields = dict(others)
        if "timeout" in fields:
            fields["deadline"] = self.driver.now + fields.pop("timeout")
        try:
            return self.driver.submit(prompt, n=n, max_tokens=max_tokens, **sampling, **fields)
        except (RequestRejected, EngineUnavailable):
            return multiple()

    @rule(request=requests, choice=st.sampled_from([None, 0, 1, 2]), keep_tokens=st.sampled_from([None, 0, 2, 17, 40]))
    def cancel(self, request: int, choice: int | None, keep_tokens: int | None) -> None:
        self.driver.cancel(request, choice, keep_tokens)

    @rule(count=st.integers(1, 12))
    def run(self, count: int) -> None:
        for _ in range(count):
            self.driver.step()

    @rule(seconds=st.floats(0.1, 8.0))
    def pass_time(self, seconds: float) -> None:
        self.driver.now += seconds

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
        target(stats.num_retractions, label="retractions")
        target(stats.num_evicted_pages, label="evicted pages")


def _settings(max_examples: int, stateful_step_count: int) -> settings:
    return settings(
        max_examples=max_examples,
        stateful_step_count=stateful_step_count,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


class TestEngineMachine(EngineMachine.TestCase):
    """No sequence of events changes a text, loses a page, or leaves a client without an end."""

    settings = _settings(60, 30)


@pytest.mark.long
class TestEngineMachineForLong(EngineMachine.TestCase):
    """The same, with many more and longer runs."""

    settings = _settings(1500, 60)
