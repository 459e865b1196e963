"""Quotas are exact: never negative, never above a limit, all of it back at the end; proven by a state machine and by examples."""

import asyncio
import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from security.policy.allowances import Allowance, Allowances
from security.policy.bucket import TokenBucket
from security.policy.denials import QuotaDenial
from security.policy.limits import LimitRule, Limits, LimitTable
from security.policy.quotas import QuotaBook, QuotaGrant
from tests.support.controls import control

MINUTE_NS = 60 * 10**9


class ClockNs:
    """Monotonic nanoseconds that move only when told to."""

    def __init__(self):
        self.now = 10**9

    def __call__(self):
        return self.now


class PlainBook(QuotaBook):
    """A book in which requests have a client and nothing else, named by a word."""

    def reserve(self, client, owner, **tokens):
        return super().reserve((("client", client),), owner, **tokens)


MIDNIGHT_S = 20_000 * 86_400


def book_of(*, block_tokens=256, rules=(), kind=PlainBook, **limits):
    clock = ClockNs()
    table = LimitTable(tuple(rules), {"client": Limits(**limits)})
    book = kind(table, block_tokens=block_tokens, clock_ns=clock, utc_s=lambda: MIDNIGHT_S + 3600 + clock.now / 1e9)
    return book, clock


@settings(max_examples=300)
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


@settings(max_examples=200)
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


def test_a_long_list_runs_alone():
    """One of more prompts than may be open starts where nothing is, and while it runs nothing else does."""
    book, _clock = book_of(concurrent_requests=3)
    other = book.reserve("c", 1, prompt_tokens=1, max_output_tokens=1)
    for num_further in (2, 3, 99):
        refused = book.reserve("c", 1, prompt_tokens=1, max_output_tokens=1, num_further=num_further)
        assert (refused.code, refused.retry_after_s) == ("too_many_requests", 1)
    pair = [book.reserve("c", 1, prompt_tokens=1, max_output_tokens=1, num_further=1)]
    pair.append(book.reserve("c", 1, prompt_tokens=1, max_output_tokens=1, is_further=True))
    assert book.reserve("c", 1, prompt_tokens=1, max_output_tokens=1).code == "too_many_requests"
    for grant in (other, *pair):
        assert book.settle(grant.reservation, 1, prompt_tokens=1, output_tokens=1)
    first = book.reserve("c", 1, prompt_tokens=1, max_output_tokens=1, num_further=4)
    rest = [book.reserve("c", 1, prompt_tokens=1, max_output_tokens=1, is_further=True) for _ in range(4)]
    book.check_integrity()
    assert book.reserve("c", 1, prompt_tokens=1, max_output_tokens=1).code == "too_many_requests"
    for grant in (first, *rest):
        assert book.settle(grant.reservation, 1, prompt_tokens=1, output_tokens=1)
    book.check_integrity()
    assert book.num_reservations == 0


def test_a_list_that_does_not_fit_takes_nothing_and_says_when_it_would():
    """Never, if it has more prompts than a minute has requests."""
    book, clock = book_of(requests_per_minute=10)
    assert isinstance(book.reserve("c", 1, prompt_tokens=1, max_output_tokens=1), QuotaGrant)
    denial = book.reserve("c", 1, prompt_tokens=1, max_output_tokens=1, num_further=9)
    assert (denial.code, denial.retry_after_s) == ("rate_limit", 6)
    never = book.reserve("c", 1, prompt_tokens=1, max_output_tokens=1, num_further=10)
    assert (never.code, never.retry_after_s) == ("quota_exhausted", 0)
    assert book.allowances((("client", "c"),)).requests.remaining == 9
    clock.now += 6 * 10**9
    assert isinstance(book.reserve("c", 1, prompt_tokens=1, max_output_tokens=1, num_further=9), QuotaGrant)


def test_what_was_never_begun_was_no_request():
    """A list of which a later prompt is refused gives back what the earlier ones took; what a log tells of was begun."""
    book, _clock = book_of(requests_per_minute=10, tokens_per_minute=100, block_tokens=10)
    grant = book.reserve("c", 1, prompt_tokens=60, max_output_tokens=1, num_further=1)
    assert isinstance(book.reserve("c", 1, prompt_tokens=60, max_output_tokens=1, is_further=True), QuotaDenial)
    assert book.settle(grant.reservation, 1, prompt_tokens=0, output_tokens=0, is_begun=False)
    left = book.allowances((("client", "c"),))
    assert (left.requests.remaining, left.tokens.remaining) == (10, 100)
    book.charge((("client", "c"),), requests=1, tokens=0, at_s=book._utc_s())
    resumed = book.resume((("client", "c"),), 1, prompt_tokens=1, output_tokens=1, max_output_tokens=1)
    assert book.settle(resumed.reservation, 1, prompt_tokens=0, output_tokens=0, is_begun=False)
    assert book.allowances((("client", "c"),)).requests.remaining == 9


def test_a_refused_block_says_when_to_come_back():
    """Mid-stream it is quota_exhausted, at the start rate_limit, and what never fits says so."""
    book, clock = book_of(tokens_per_minute=600, block_tokens=100)
    grant = book.reserve("c", 1, prompt_tokens=500, max_output_tokens=300)
    assert book.extend(grant.reservation, 1) == QuotaDenial(
        "quota_exhausted", "client c: 100 tokens are needed, and of 600 per minute 0 are left", 10
    )
    assert book.reserve("c", 1, prompt_tokens=5, max_output_tokens=0).code == "rate_limit"
    assert book.reserve("c", 1, prompt_tokens=601, max_output_tokens=0).code == "quota_exhausted"
    assert book.reserve("c", 1, prompt_tokens=601, max_output_tokens=0).retry_after_s == 0
    clock.now += 10 * 10**9
    assert book.extend(grant.reservation, 1).output_tokens == 200
    assert isinstance(book.reserve("d", 1, prompt_tokens=500, max_output_tokens=100), QuotaGrant)


@control("AC-2(11)", "AC-10")
def test_concurrency_and_request_rate():
    """Each client for itself; a refused request costs nothing."""
    book, clock = book_of(concurrent_requests=2, requests_per_minute=3)
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
    book, _clock = book_of(tokens_per_minute=1000, block_tokens=100, concurrent_requests=3)
    for _ in range(3):
        book.reserve("c", "one", prompt_tokens=100, max_output_tokens=100)
    assert book.release_owner("two") == 0
    assert book.release_owner("one") == 3
    assert (book.num_reservations, book.tokens_reserved) == (0, 0)
    assert book.reserve("c", "two", prompt_tokens=400, max_output_tokens=0)
    assert isinstance(book.reserve("c", "two", prompt_tokens=1, max_output_tokens=0), QuotaDenial)


@pytest.mark.parametrize("is_early", [False, True])
@pytest.mark.parametrize(("told", "used"), [(0, 0), (130, 130), (200, 200), (10**9, 200)])
def test_a_lost_gateways_requests_count_what_the_engine_counted(is_early, told, used):
    """As soon as the auditor tells, whether before or after its link is seen to end; once, and never more than was reserved."""
    book, _clock = book_of(tokens_per_minute=1000, tokens_per_day=1000, block_tokens=100)
    subjects = (("client", "c"),)
    lost = book.reserve("c", "one", prompt_tokens=100, max_output_tokens=100).reservation
    kept = book.reserve("c", "two", prompt_tokens=50, max_output_tokens=50).reservation
    if not is_early:
        book.release_owner("one")
    book.correct(lost, (("client", "other"),), 0)
    book.correct(lost, subjects, told)
    if is_early:
        assert book.release_owner("one") == 1
    for _ in range(2):
        book.correct(lost, subjects, 0)
        book.correct(lost + 7, subjects, 0)
    book.check_integrity()
    left = book.allowances(subjects)
    assert (left.day_tokens.remaining, left.tokens.remaining) == (900 - used, 900 - used)
    book.correct(kept, subjects, 0)
    assert isinstance(book.extend(kept, "two"), QuotaGrant)
    book.settle(kept, "two", prompt_tokens=50, output_tokens=50)
    assert book.allowances(subjects).day_tokens.remaining == 900 - used


@pytest.mark.parametrize("is_early", [False, True])
@pytest.mark.parametrize(("told", "used"), [(0, 0), (100, 100), (140, 140), (150, 150), (10**9, 200)])
def test_what_the_log_could_not_take_counts_what_the_engine_counted(is_early, told, used):
    """More than its gateway said, or less; at once what the gateway said, and never more than was reserved."""
    book, _clock = book_of(tokens_per_minute=1000, tokens_per_day=1000, block_tokens=100)
    subjects = (("client", "c"),)
    cut = book.reserve("c", "one", prompt_tokens=100, max_output_tokens=100).reservation
    if is_early:
        book.correct(cut, subjects, told)
    assert book.settle(cut, "one", prompt_tokens=100, output_tokens=40, is_final=False)
    assert (book.num_reservations, book.tokens_reserved) == (0, 0)
    if not is_early:
        assert book.allowances(subjects).day_tokens.remaining == 860
        book.correct(cut, (("client", "other"),), 0)
        book.correct(cut, subjects, told)
    book.correct(cut, subjects, 0)
    book.check_integrity()
    left = book.allowances(subjects)
    assert (left.day_tokens.remaining, left.tokens.remaining) == (1000 - used, 1000 - used)
    recorded = book.reserve("c", "one", prompt_tokens=10, max_output_tokens=0).reservation
    book.settle(recorded, "one", prompt_tokens=10, output_tokens=0)
    book.correct(recorded, subjects, 0)
    assert book.allowances(subjects).day_tokens.remaining == 990 - used


def test_what_the_log_took_after_all_counts_as_its_owner_tells_then():
    """Of an intent that was durable when it had been given up; the auditor may have another word yet, and nobody else has one."""
    book, clock = book_of(tokens_per_minute=1000, tokens_per_day=1000, block_tokens=100)
    subjects = (("client", "c"),)
    number = book.reserve("c", "one", prompt_tokens=100, max_output_tokens=100).reservation
    book.settle(number, "one", prompt_tokens=0, output_tokens=0, is_final=False)
    assert not book.settle(number, "two", prompt_tokens=100, output_tokens=0)
    for prompt, is_final, left in ((100, False, 900), (60, False, 940), (10**9, True, 900), (0, True, 900)):
        book.settle(number, "one", prompt_tokens=prompt, output_tokens=0, is_final=is_final)
        book.check_integrity()
        now = book.allowances(subjects)
        assert (now.day_tokens.remaining, now.tokens.remaining) == (left, left)
    book.correct(number, subjects, 0)
    assert book.allowances(subjects).day_tokens.remaining == 900
    number = book.reserve("c", "one", prompt_tokens=100, max_output_tokens=0).reservation
    book.settle(number, "one", prompt_tokens=0, output_tokens=0, is_final=False)
    book.settle(number, "one", prompt_tokens=100, output_tokens=0, is_final=False)
    book.correct(number, subjects, 30)
    assert book.allowances(subjects).day_tokens.remaining == 870
    clock.now += 86_400 * 10**9
    assert book.allowances(subjects).day_tokens.remaining == 1000


def test_an_account_that_was_forgotten_is_charged_what_the_engine_counted_more():
    """The last of its requests was the one that the log could not take."""
    book, clock = book_of(tokens_per_minute=1000, block_tokens=100)
    cut = book.reserve("c", "one", prompt_tokens=100, max_output_tokens=100).reservation
    book.settle(cut, "one", prompt_tokens=0, output_tokens=0, is_final=False)
    clock.now += MINUTE_NS
    book.forget_idle()
    book.correct(cut, (("client", "c"),), 150)
    assert book.allowances((("client", "c"),)).tokens.remaining == 850


def test_what_a_lost_gateways_request_gives_back_is_that_days():
    """Nothing of the day before comes back to this one."""
    book, clock = book_of(tokens_per_day=1000, block_tokens=100)
    lost = book.reserve("c", "one", prompt_tokens=100, max_output_tokens=100).reservation
    book.release_owner("one")
    clock.now += 86_400 * 10**9
    book.reserve("c", "two", prompt_tokens=300, max_output_tokens=0)
    book.correct(lost, (("client", "c"),), 0)
    assert book.allowances((("client", "c"),)).day_tokens.remaining == 700


def test_a_request_of_an_earlier_life_keeps_its_number():
    """Which the log has of it; but nobody's who has it now, and none that no life can have given."""
    clock = ClockNs()
    book = PlainBook(LimitTable((), {}), block_tokens=10, clock_ns=clock, last_reservation=1000)
    tokens = {"prompt_tokens": 1, "output_tokens": 1, "max_output_tokens": 9}

    def go_on(number):
        return book.resume((("client", "c"),), "one", **tokens, reservation=number).reservation

    assert [go_on(number) for number in (17, 17, 0, 5000)] == [17, 1001, 1002, 1003]
    book.release_owner("one")
    assert go_on(17) == 1004
    assert book.reserve("c", "one", prompt_tokens=1, max_output_tokens=1).reservation == 1005


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
    assert ("client", "c") in book._accounts
    book.settle(grant.reservation, 1, prompt_tokens=30, output_tokens=0)
    clock.now += 1
    book.forget_idle()
    assert book._accounts == {}
    book.reserve("d", 1, prompt_tokens=30, max_output_tokens=0)
    book.release_owner(1)
    book.forget_idle()
    assert ("client", "d") in book._accounts


class QuotaMachine(RuleBasedStateMachine):
    """Gateways that start, extend, settle, die, and clients that wait, in any order."""

    reservations = Bundle("reservations")
    clients = st.sampled_from(["a", "b"])
    owners = st.sampled_from([1, 2])

    def __init__(self):
        super().__init__()
        self.book, self.clock = book_of(
            concurrent_requests=4, requests_per_minute=30, tokens_per_minute=1000, block_tokens=64
        )
        self.open = {}
        self.lost = {}
        self.told = {}
        self.used = {"a": 0, "b": 0}

    @rule(
        target=reservations,
        client=clients,
        owner=owners,
        prompt=st.integers(0, 600),
        output=st.integers(0, 400),
        is_further=st.booleans(),
    )
    def reserve(self, client, owner, prompt, output, is_further):
        answer = self.book.reserve(client, owner, prompt_tokens=prompt, max_output_tokens=output, is_further=is_further)
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

    @rule(number=reservations, prompt=st.integers(0, 600), output=st.integers(0, 500), is_final=st.booleans())
    def settle(self, number, prompt, output, is_final):
        if number in self.open:
            client, owner, held_prompt, held_output = self.open.pop(number)
            assert self.book.settle(number, owner, prompt_tokens=prompt, output_tokens=output, is_final=is_final)
            used = min(prompt, held_prompt) + min(output, held_output)
            if not is_final and number in self.told:
                used = min(self.told[number], held_prompt + held_output)
            elif not is_final:
                self.lost[number] = (client, used)
            self.used[client] += used

    @rule(owner=owners)
    def lose_gateway(self, owner):
        lost = [number for number, held in self.open.items() if held[1] == owner]
        assert self.book.release_owner(owner) == len(lost)
        for number in lost:
            client, _owner, prompt, output = self.open.pop(number)
            held = prompt + output
            self.used[client] += min(held, self.told.get(number, held))
            if number not in self.told:
                self.lost[number] = (client, held)

    @rule(number=reservations, tokens=st.integers(0, 1200))
    def hear_of_a_lost_request(self, number, tokens):
        client = (self.open.get(number) or self.lost.get(number) or ("a",))[0]
        if number in self.lost:
            tokens = min(tokens, self.lost[number][1])  # More than that is charged whether there is room or not.
        self.book.correct(number, (("client", client),), tokens)
        if number in self.open:
            self.told[number] = tokens
        elif number in self.lost:
            held = self.lost.pop(number)[1]
            self.used[client] -= held - min(held, tokens)

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


QuotaMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestQuotaMachine = QuotaMachine.TestCase


def test_without_limits_everything_is_covered_at_once():
    """No blocks, no waiting."""
    book, _clock = book_of()
    for _ in range(1000):
        assert book.reserve("c", 1, prompt_tokens=10**6, max_output_tokens=10**6).output_tokens == 10**6
    book.check_integrity()


@pytest.mark.parametrize("limit", ["concurrent_requests", "requests_per_minute"])
def test_zero_is_no_limit_for_each_limit_alone(limit):
    """One limit does not switch on another."""
    book, _clock = book_of(**{limit: 5})
    codes = [book.reserve("c", 1, prompt_tokens=1, max_output_tokens=1) for _ in range(6)]
    assert [isinstance(code, QuotaGrant) for code in codes] == [True] * 5 + [False]


SUBJECTS = (("client", "c"), ("user", "u"), ("tenant", "t"), ("model", "m"))


@pytest.mark.parametrize("subject", ["client", "user", "tenant", "model"])
@pytest.mark.parametrize(
    ("limit", "code"),
    [
        ({"requests_per_minute": 1}, "rate_limit"),
        ({"tokens_per_minute": 100}, "rate_limit"),
        ({"tokens_per_day": 100}, "rate_limit"),
        ({"tokens_in_flight": 100}, "rate_limit"),
        ({"concurrent_requests": 1}, "too_many_requests"),
    ],
)
def test_each_limit_of_each_subject_refuses_and_charges_nobody(subject, limit, code):
    """What one subject has not, costs the others nothing: a refused request leaves no trace anywhere."""
    name = dict(SUBJECTS)[subject]
    book, _clock = book_of(kind=QuotaBook, block_tokens=10, rules=[LimitRule(subject, name, Limits(**limit))])
    granted = book.reserve(SUBJECTS, 1, prompt_tokens=60, max_output_tokens=10)
    assert isinstance(granted, QuotaGrant)
    before = {one: (account.num_open, account.in_flight, account.day_tokens) for one, account in book._accounts.items()}
    denied = book.reserve(SUBJECTS, 1, prompt_tokens=60, max_output_tokens=10)
    assert (denied.code, denied.retry_after_s > 0) == (code, True)
    assert denied.message.startswith(f"{subject} {name}: ")
    assert before == {
        one: (account.num_open, account.in_flight, account.day_tokens) for one, account in book._accounts.items()
    }
    book.check_integrity()
    others = tuple(one for one in SUBJECTS if one[0] != subject)
    assert isinstance(book.reserve(others, 1, prompt_tokens=60, max_output_tokens=10), QuotaGrant)


def test_limits_are_found_by_name_then_by_star_then_by_configuration():
    """The nearest decides alone; nothing is added up."""
    rules = [
        LimitRule("client", "vip", Limits(requests_per_minute=2)),
        LimitRule("client", "*", Limits(requests_per_minute=1)),
    ]
    table = LimitTable(tuple(rules), {"client": Limits(requests_per_minute=9), "user": Limits(requests_per_minute=8)})
    assert table.find("client", "vip").requests_per_minute == 2
    assert table.find("client", "x").requests_per_minute == 1
    assert table.find("user", "x").requests_per_minute == 8
    assert table.find("tenant", "x") == Limits()


def test_a_day_ends_at_midnight_and_takes_its_tokens_along():
    """Tokens held over midnight count for the day in which they were reserved; giving them back later helps no other day."""
    book, clock = book_of(tokens_per_day=100, block_tokens=10)
    first = book.reserve("c", 1, prompt_tokens=60, max_output_tokens=20)
    denial = book.reserve("c", 1, prompt_tokens=31, max_output_tokens=0)
    assert (denial.code, denial.retry_after_s) == ("rate_limit", 23 * 3600 - 1)
    clock.now += 23 * 3600 * 10**9
    assert book.extend(first.reservation, 1).output_tokens == 20
    second = book.reserve("c", 1, prompt_tokens=90, max_output_tokens=0)
    assert isinstance(second, QuotaGrant)
    assert isinstance(book.reserve("c", 1, prompt_tokens=1, max_output_tokens=0), QuotaDenial)
    book.settle(first.reservation, 1, prompt_tokens=0, output_tokens=0)
    assert book.reserve("c", 1, prompt_tokens=10, max_output_tokens=0)
    assert isinstance(book.reserve("c", 1, prompt_tokens=1, max_output_tokens=0), QuotaDenial)
    book.check_integrity()


def test_tokens_in_flight_come_back_with_the_request():
    """They are held, not used."""
    book, _clock = book_of(tokens_in_flight=100, block_tokens=10)
    grant = book.reserve("c", 1, prompt_tokens=90, max_output_tokens=30)
    assert book.extend(grant.reservation, 1).code == "quota_exhausted"
    assert book.reserve("c", 1, prompt_tokens=101, max_output_tokens=0).retry_after_s == 0
    book.settle(grant.reservation, 1, prompt_tokens=90, output_tokens=10)
    assert isinstance(book.reserve("c", 1, prompt_tokens=100, max_output_tokens=0), QuotaGrant)


def test_other_limits_hold_at_once_and_what_was_taken_stays_taken():
    """Raising a limit gives the difference, lowering it takes it away, down to nothing."""
    book, _clock = book_of(tokens_per_minute=100)
    book.reserve("c", 1, prompt_tokens=80, max_output_tokens=0)
    book.change_limits(LimitTable((), {"client": Limits(tokens_per_minute=200)}))
    assert book.allowances((("client", "c"),)).tokens == Allowance(200, 120, 24_000)
    book.change_limits(LimitTable((), {"client": Limits(tokens_per_minute=50)}))
    assert book.allowances((("client", "c"),)).tokens == Allowance(50, 0, 60_000)
    book.change_limits(LimitTable((), {}))
    assert book.allowances((("client", "c"),)) == Allowances(None, None, None)
    book.check_integrity()


def test_the_tightest_limit_is_told():
    """Of each kind, whoever it is of."""
    rules = [
        LimitRule("client", "c", Limits(requests_per_minute=10, tokens_per_day=1000)),
        LimitRule("tenant", "t", Limits(requests_per_minute=5, tokens_per_minute=600)),
    ]
    book, _clock = book_of(kind=QuotaBook, rules=rules)
    book.reserve(SUBJECTS, 1, prompt_tokens=100, max_output_tokens=0)
    told = book.allowances(SUBJECTS)
    assert told.requests == Allowance(5, 4, 12_000)
    assert told.tokens == Allowance(600, 500, 10_000)
    assert (told.day_tokens.limit, told.day_tokens.remaining) == (1000, 900)


@settings(max_examples=150)
@given(
    uses=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 300), st.integers(0, 300)), min_size=1, max_size=12),
    open_requests=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 64)), max_size=4),
)
def test_a_book_written_anew_allows_no_more_than_the_one_that_was_lost(uses, open_requests):
    """From what ended (by the minute, as the log's sums are) and what is open: the day is exact, the minute never more generous."""
    lost, clock = book_of(tokens_per_minute=100_000, tokens_per_day=50_000, requests_per_minute=100, block_tokens=64)
    ended = {}
    for wait_s, prompt, output in uses:
        clock.now += wait_s * 10**9
        grant = lost.reserve("c", 1, prompt_tokens=prompt, max_output_tokens=output)
        if isinstance(grant, QuotaGrant):
            lost.settle(grant.reservation, 1, prompt_tokens=prompt, output_tokens=min(output, grant.output_tokens))
            minute = int(lost._utc_s()) // 60
            requests, tokens = ended.get(minute, (0, 0))
            ended[minute] = (requests + 1, tokens + prompt + min(output, grant.output_tokens))
    still_open = []
    for prompt, output in open_requests:
        grant = lost.reserve("c", 1, prompt_tokens=prompt, max_output_tokens=output)
        if isinstance(grant, QuotaGrant):
            still_open.append((prompt, grant.output_tokens, output))
    anew = PlainBook(lost._limits, block_tokens=64, clock_ns=clock, utc_s=lost._utc_s)
    subjects = (("client", "c"),)
    for minute, (requests, tokens) in sorted(ended.items()):
        at_s = min(lost._utc_s(), (minute + 1) * 60 - 0.001)
        anew.charge(subjects, requests=requests, tokens=tokens, at_s=at_s)
    for prompt, output, limit in still_open:
        anew.resume(subjects, 2, prompt_tokens=prompt, output_tokens=output, max_output_tokens=limit)
    anew.check_integrity()
    before, after = lost.allowances(subjects), anew.allowances(subjects)
    assert after.day_tokens == before.day_tokens
    assert after.tokens.remaining <= before.tokens.remaining
    assert anew.tokens_reserved == lost.tokens_reserved


@control("AC-2(11)", "AC-10", "SC-5")
def test_many_at_once_never_take_more_than_there_is():
    """Tasks that reserve, extend and settle as gateways do, each step awaiting: the sum of all that was granted stays below
    the limit.
    """
    limit = 20_000
    rules = [LimitRule("tenant", "t", Limits(tokens_per_day=limit, concurrent_requests=40))]
    book, _clock = book_of(kind=QuotaBook, block_tokens=32, rules=rules)
    granted = {"tokens": 0, "open": 0, "most": 0, "used": 0}

    async def request(number):
        chance = random.Random(number)
        subjects = (("client", f"c{number % 7}"), ("tenant", "t"), ("model", "m"))
        prompt, output = chance.randrange(200), chance.randrange(400)
        grant = book.reserve(subjects, number % 3, prompt_tokens=prompt, max_output_tokens=output)
        if isinstance(grant, QuotaDenial):
            return
        granted["open"] += 1
        granted["most"] = max(granted["most"], granted["open"])
        covered = grant.output_tokens
        while covered < output:
            await asyncio.sleep(0)
            more = book.extend(grant.reservation, number % 3)
            if isinstance(more, QuotaDenial):
                break
            covered = more.output_tokens
            book.check_integrity()
        await asyncio.sleep(0)
        used = chance.randrange(covered + 1)
        assert book.settle(grant.reservation, number % 3, prompt_tokens=prompt, output_tokens=used)
        granted["open"] -= 1
        granted["used"] += prompt + used

    async def everybody():
        await asyncio.gather(*(request(number) for number in range(400)))

    asyncio.run(everybody())
    assert granted["most"] <= 40
    assert granted["used"] <= limit
    assert book._accounts["tenant", "t"].day_tokens == granted["used"]
    assert (book.num_reservations, book.tokens_reserved) == (0, 0)
