"""Quotas are exact: never negative, never above a limit, all of it back at the end; proven by a state machine and by examples."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from security.policy.bucket import TokenBucket
from security.policy.quotas import QuotaBook, QuotaDenial, QuotaGrant, QuotaLimits

MINUTE_NS = 60 * 10**9


class ClockNs:
    """Monotonic nanoseconds that move only when told to."""

    def __init__(self):
        self.now = 10**9

    def __call__(self):
        return self.now


def book_of(**limits):
    clock = ClockNs()
    return QuotaBook(QuotaLimits(**limits), clock_ns=clock), clock


@settings(max_examples=300, deadline=None)
@given(
    per_minute=st.integers(1, 10**12),
    steps=st.lists(st.tuples(st.integers(0, 3 * MINUTE_NS), st.integers(0, 10**12), st.booleans()), max_size=20),
)
def test_a_bucket_equals_exact_arithmetic(per_minute, steps):
    """Against a slow model in fractions: no rounding, in any order of waiting, taking and giving back."""
    bucket, level, now = TokenBucket(per_minute, 0), Fraction(per_minute), 0
    for wait_ns, units, gives_back in steps:
        now += wait_ns
        level = min(Fraction(per_minute), level + Fraction(wait_ns * per_minute, MINUTE_NS))
        assert bucket.available(now) == level.__floor__()
        if gives_back:
            bucket.give_back(units, now)
            level = min(Fraction(per_minute), level + units)
        else:
            taken = bucket.take(units, now)
            assert taken == (level >= units)
            level -= units if taken else 0


@settings(max_examples=200, deadline=None)
@given(per_minute=st.integers(1, 10**9), taken=st.integers(0, 10**9), wanted=st.integers(0, 10**9))
def test_the_wait_is_exactly_long_enough(per_minute, taken, wanted):
    """After the wait it is granted, a nanosecond earlier it is not."""
    bucket = TokenBucket(per_minute, 0)
    bucket.take(min(taken, per_minute), 0)
    wait_ns = bucket.wait_ns(wanted, 0)
    if wanted > per_minute:
        assert wait_ns is None
        return
    assert bucket.available(wait_ns) >= wanted
    earlier = TokenBucket(per_minute, 0)
    earlier.take(min(taken, per_minute), 0)
    assert wait_ns == 0 or earlier.available(wait_ns - 1) < wanted


def test_a_clock_that_goes_back_gives_nothing():
    """Monotonic clocks do not, but a bucket must not depend on it."""
    bucket = TokenBucket(60, MINUTE_NS)
    assert bucket.take(60, MINUTE_NS)
    assert bucket.available(0) == 0
    assert bucket.available(MINUTE_NS) == 0
    assert bucket.available(MINUTE_NS + 10**9) == 1


def test_tokens_are_reserved_in_blocks_and_the_rest_comes_back():
    """Prompt and first block, then block by block up to the request's own limit, then settled at what was used."""
    book, _clock = book_of(tokens_per_minute=1000, block_tokens=100)
    grant = book.reserve("c", 1, prompt_tokens=50, max_output_tokens=250)
    assert (grant.output_tokens, book.tokens_reserved) == (100, 150)
    assert book.extend(grant.reservation, 1).output_tokens == 200
    assert book.extend(grant.reservation, 1).output_tokens == 250
    assert book.extend(grant.reservation, 1).output_tokens == 250
    assert book.tokens_reserved == 300
    assert book.settle(grant.reservation, 1, prompt_tokens=50, output_tokens=120)
    assert (book.tokens_reserved, book.num_reservations) == (0, 0)
    assert book.reserve("c", 1, prompt_tokens=830, max_output_tokens=0).output_tokens == 0
    assert isinstance(book.reserve("c", 1, prompt_tokens=1, max_output_tokens=0), QuotaDenial)


def test_a_refused_block_says_when_to_come_back():
    """Mid-stream it is quota_exhausted, at the start rate_limit, and what never fits says so."""
    book, clock = book_of(tokens_per_minute=600, block_tokens=100)
    grant = book.reserve("c", 1, prompt_tokens=500, max_output_tokens=300)
    assert book.extend(grant.reservation, 1) == QuotaDenial(
        "quota_exhausted", "100 tokens are needed, and of 600 per minute 0 are left", 10
    )
    assert book.reserve("c", 1, prompt_tokens=5, max_output_tokens=0).code == "rate_limit"
    assert book.reserve("c", 1, prompt_tokens=601, max_output_tokens=0).code == "quota_exhausted"
    assert book.reserve("c", 1, prompt_tokens=601, max_output_tokens=0).retry_after_s == 0
    clock.now += 10 * 10**9
    assert book.extend(grant.reservation, 1).output_tokens == 200
    assert isinstance(book.reserve("d", 1, prompt_tokens=500, max_output_tokens=100), QuotaGrant)


def test_concurrency_and_request_rate():
    """Each client for itself; a refused request costs nothing."""
    book, clock = book_of(max_concurrent_requests=2, requests_per_minute=3)
    first = book.reserve("c", 1, prompt_tokens=1, max_output_tokens=9)
    assert first.output_tokens == 9
    book.reserve("c", 1, prompt_tokens=1, max_output_tokens=1)
    for _ in range(5):
        assert book.reserve("c", 1, prompt_tokens=1, max_output_tokens=1).code == "too_many_requests"
    assert book.settle(first.reservation, 1, prompt_tokens=1, output_tokens=1)
    third = book.reserve("c", 1, prompt_tokens=1, max_output_tokens=1)
    book.settle(third.reservation, 1, prompt_tokens=1, output_tokens=1)
    denial = book.reserve("c", 1, prompt_tokens=1, max_output_tokens=1)
    assert (denial.code, denial.retry_after_s) == ("rate_limit", 20)
    clock.now += 20 * 10**9
    assert isinstance(book.reserve("c", 1, prompt_tokens=1, max_output_tokens=1), QuotaGrant)


def test_only_the_owner_can_extend_or_settle():
    """A captured gateway cannot touch another's reservations."""
    book, _clock = book_of(tokens_per_minute=1000, block_tokens=10)
    grant = book.reserve("c", "one", prompt_tokens=0, max_output_tokens=100)
    assert book.extend(grant.reservation, "two").code == "quota_exhausted"
    assert not book.settle(grant.reservation, "two", prompt_tokens=0, output_tokens=0)
    assert not book.settle(grant.reservation + 1, "one", prompt_tokens=0, output_tokens=0)
    assert book.num_reservations == 1
    assert book.settle(grant.reservation, "one", prompt_tokens=0, output_tokens=0)
    assert not book.settle(grant.reservation, "one", prompt_tokens=0, output_tokens=0)


def test_a_lost_gateway_frees_its_requests_but_not_its_tokens():
    """Nobody says what was computed for them, so what was reserved counts; the requests are over."""
    book, _clock = book_of(tokens_per_minute=1000, block_tokens=100, max_concurrent_requests=3)
    for _ in range(3):
        book.reserve("c", "one", prompt_tokens=100, max_output_tokens=100)
    assert book.release_owner("two") == 0
    assert book.release_owner("one") == 3
    assert (book.num_reservations, book.tokens_reserved) == (0, 0)
    assert book.reserve("c", "two", prompt_tokens=400, max_output_tokens=0)
    assert isinstance(book.reserve("c", "two", prompt_tokens=1, max_output_tokens=0), QuotaDenial)


def test_settling_for_more_than_was_reserved_counts_as_all_of_it():
    """A gateway cannot push a client below zero."""
    book, _clock = book_of(tokens_per_minute=100, block_tokens=10)
    grant = book.reserve("c", 1, prompt_tokens=10, max_output_tokens=10)
    book.settle(grant.reservation, 1, prompt_tokens=10**9, output_tokens=10**9)
    book.check_integrity()
    assert isinstance(book.reserve("c", 1, prompt_tokens=80, max_output_tokens=0), QuotaGrant)


def test_idle_accounts_are_forgotten_only_when_that_changes_nothing():
    """Neither an open request nor a missing token may be lost."""
    book, clock = book_of(tokens_per_minute=60, block_tokens=1)
    grant = book.reserve("c", 1, prompt_tokens=30, max_output_tokens=0)
    clock.now += MINUTE_NS
    book.forget_idle()
    assert "c" in book._accounts
    book.settle(grant.reservation, 1, prompt_tokens=30, output_tokens=0)
    clock.now += 1
    book.forget_idle()
    assert book._accounts == {}
    book.reserve("d", 1, prompt_tokens=30, max_output_tokens=0)
    book.release_owner(1)
    book.forget_idle()
    assert "d" in book._accounts


class QuotaMachine(RuleBasedStateMachine):
    """Gateways that start, extend, settle, die, and clients that wait, in any order."""

    reservations = Bundle("reservations")
    clients = st.sampled_from(["a", "b"])
    owners = st.sampled_from([1, 2])

    def __init__(self):
        super().__init__()
        self.book, self.clock = book_of(
            max_concurrent_requests=4, requests_per_minute=30, tokens_per_minute=1000, block_tokens=64
        )
        self.open = {}
        self.used = {"a": 0, "b": 0}

    @rule(target=reservations, client=clients, owner=owners, prompt=st.integers(0, 600), output=st.integers(0, 400))
    def reserve(self, client, owner, prompt, output):
        answer = self.book.reserve(client, owner, prompt_tokens=prompt, max_output_tokens=output)
        if isinstance(answer, QuotaDenial):
            return None
        self.open[answer.reservation] = [client, owner, prompt, answer.output_tokens]
        return answer.reservation

    @rule(number=reservations)
    def extend(self, number):
        if number in self.open:
            answer = self.book.extend(number, self.open[number][1])
            if isinstance(answer, QuotaGrant):
                assert answer.output_tokens >= self.open[number][3]
                self.open[number][3] = answer.output_tokens

    @rule(number=consumes(reservations), prompt=st.integers(0, 600), output=st.integers(0, 500))
    def settle(self, number, prompt, output):
        if number in self.open:
            client, owner, held_prompt, held_output = self.open.pop(number)
            assert self.book.settle(number, owner, prompt_tokens=prompt, output_tokens=output)
            self.used[client] += min(prompt, held_prompt) + min(output, held_output)

    @rule(owner=owners)
    def lose_gateway(self, owner):
        lost = [number for number, held in self.open.items() if held[1] == owner]
        assert self.book.release_owner(owner) == len(lost)
        for number in lost:
            client, _owner, prompt, output = self.open.pop(number)
            self.used[client] += prompt + output

    @rule(wait_ns=st.integers(0, 20 * 10**9))
    def wait(self, wait_ns):
        self.clock.now += wait_ns

    @rule()
    def clean(self):
        self.book.forget_idle()

    @invariant()
    def conserves(self):
        self.book.check_integrity()
        assert self.book.num_reservations == len(self.open)
        assert self.book.tokens_reserved == sum(held[2] + held[3] for held in self.open.values())

    @invariant()
    def never_grants_more_than_the_limit(self):
        allowed = 1000 + Fraction((self.clock.now - 10**9) * 1000, MINUTE_NS)
        for client in self.used:
            held = sum(one[2] + one[3] for one in self.open.values() if one[0] == client)
            assert self.used[client] + held <= allowed

    def teardown(self):
        for number, (_client, owner, _prompt, _output) in self.open.items():
            assert self.book.settle(number, owner, prompt_tokens=0, output_tokens=0)
        self.clock.now += MINUTE_NS
        self.book.forget_idle()
        assert (self.book.num_reservations, self.book.tokens_reserved, self.book._accounts) == (0, 0, {})


QuotaMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestQuotaMachine = QuotaMachine.TestCase


def test_without_limits_everything_is_covered_at_once():
    """No blocks, no waiting."""
    book, _clock = book_of()
    for _ in range(1000):
        assert book.reserve("c", 1, prompt_tokens=10**6, max_output_tokens=10**6).output_tokens == 10**6
    book.check_integrity()


@pytest.mark.parametrize("limit", ["max_concurrent_requests", "requests_per_minute"])
def test_zero_is_no_limit_for_each_limit_alone(limit):
    """One limit does not switch on another."""
    book, _clock = book_of(**{limit: 5})
    codes = [book.reserve("c", 1, prompt_tokens=1, max_output_tokens=1) for _ in range(6)]
    assert [isinstance(code, QuotaGrant) for code in codes] == [True] * 5 + [False]
