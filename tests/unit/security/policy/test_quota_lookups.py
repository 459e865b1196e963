"""Lookups: requests that ask a model's tokenizer alone count against the request rate, beside requests for tokens."""

import pytest

from security.policy.allowances import Allowance
from security.policy.denials import QuotaDenial
from security.policy.limits import LimitRule, Limits, LimitTable, Subject
from security.policy.quotas import QuotaBook, QuotaGrant

SUBJECTS: tuple[Subject, ...] = (("client", "c"), ("user", "u"), ("tenant", "t"), ("model", "m"))
SECOND_NS = 10**9


class ClockNs:
    """Monotonic nanoseconds that move only when told to."""

    def __init__(self) -> None:
        self.now = SECOND_NS

    def __call__(self) -> int:
        return self.now


def book_of(*rules: LimitRule) -> tuple[QuotaBook, ClockNs]:
    clock = ClockNs()
    return QuotaBook(LimitTable(rules, {}), block_tokens=8, clock_ns=clock, utc_s=lambda: 3600.0), clock


@pytest.mark.parametrize("subject", SUBJECTS)
def test_each_subjects_limit_refuses_lookups_and_charges_nobody(subject: Subject) -> None:
    """What one subject has not, costs the others nothing; it says when to come back, to the second."""
    kind, name = subject
    other = next(one for one in SUBJECTS if one != subject)
    book, clock = book_of(
        LimitRule(kind, name, Limits(requests_per_minute=3)), LimitRule(*other, Limits(requests_per_minute=9))
    )
    for _ in range(3):
        assert book.look_up(SUBJECTS) is None
    denial = book.look_up(SUBJECTS)
    assert denial == QuotaDenial("rate_limit", f"{kind} {name}: the limit is 3 requests per minute", 20)
    assert book.lookups_left([other]) == Allowance(9, 6, 20_000)
    clock.now += 20 * SECOND_NS
    assert book.look_up(SUBJECTS) is None
    book.check_integrity()


def test_lookups_and_requests_have_as_many_each() -> None:
    """Whoever has each prompt counted first may ask as often as who does not."""
    book, _clock = book_of(LimitRule("client", "c", Limits(requests_per_minute=2)))
    for _ in range(2):
        assert book.look_up(SUBJECTS) is None
        assert isinstance(book.reserve(SUBJECTS, 1, prompt_tokens=1, max_output_tokens=1), QuotaGrant)
    assert book.lookups_left(SUBJECTS) == book.allowances(SUBJECTS).requests == Allowance(2, 0, 60_000)
    assert book.look_up(SUBJECTS) is not None
    assert isinstance(book.reserve(SUBJECTS, 1, prompt_tokens=1, max_output_tokens=1), QuotaDenial)
    book.check_integrity()


def test_lookups_need_no_limit_of_their_own_and_take_no_tokens() -> None:
    """Without a limit of requests they are free, whatever else is limited."""
    book, _clock = book_of(
        LimitRule("client", "c", Limits(tokens_per_minute=1, tokens_per_day=1, concurrent_requests=1))
    )
    for _ in range(100):
        assert book.look_up(SUBJECTS) is None
    assert book.lookups_left(SUBJECTS) is None
    assert isinstance(book.reserve(SUBJECTS, 1, prompt_tokens=1, max_output_tokens=0), QuotaGrant)


def test_lookups_are_not_forgotten_while_that_would_give_some_back() -> None:
    """Neither as idle nor by another limit."""
    book, clock = book_of(LimitRule("client", "c", Limits(requests_per_minute=2)))
    assert book.look_up(SUBJECTS) is None
    clock.now += SECOND_NS
    book.forget_idle()
    book.change_limits(LimitTable((LimitRule("client", "c", Limits(requests_per_minute=3)),), {}))
    found = book.lookups_left(SUBJECTS)
    assert found is not None
    assert (found.limit, found.remaining) == (3, 2)
    clock.now += 60 * SECOND_NS
    book.forget_idle()
    assert book._accounts == {}
