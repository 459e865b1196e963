"""Tenants take turns by tokens, whatever they send and whenever they come."""

from hypothesis import given
from hypothesis import strategies as st

from runtime.scheduling.fairness import FairClock

A, B, C = b"a", b"b", b"c"


def served(clock: FairClock, line: list[tuple[int, int, bytes, int]]) -> tuple[bytes, int]:
    """Admit who is first in line: its tenant and its tokens."""
    line.sort()
    tag, _, tenant, num_tokens = line.pop(0)
    clock.serve(tag)
    return tenant, num_tokens


def test_one_tenant_alone_is_served_as_it_came() -> None:
    """Tags never fall within a tenant."""
    clock = FairClock()
    tags = [clock.tag(A, size) for size in (5, 100, 1, 1)]
    assert tags == sorted(tags)


def test_tenant_that_was_away_waits_for_nobodys_past_and_is_owed_nothing() -> None:
    """After a hundred requests of another, the newcomer is next; and its absence gives it no more than its turn."""
    clock = FairClock()
    line = [(clock.tag(A, 10), number, A, 10) for number in range(100)]
    for _ in range(50):
        served(clock, line)
    line += [(clock.tag(B, 10), 100 + number, B, 10) for number in range(10)]
    order = [served(clock, line)[0] for _ in range(20)]
    assert B in order[:3]
    assert 9 <= order.count(B) <= 10
    assert order[:20].count(A) >= 10


@given(
    sizes=st.lists(st.tuples(st.sampled_from([A, B, C]), st.integers(1, 500)), min_size=3, max_size=200),
    take=st.integers(1, 200),
)
def test_while_all_wait_none_is_ahead_by_more_than_two_requests(sizes: list[tuple[bytes, int]], take: int) -> None:
    """Tokens served to any two tenants that still wait differ by at most the largest request of each."""
    clock = FairClock()
    line = [(clock.tag(tenant, size), number, tenant, size) for number, (tenant, size) in enumerate(sizes)]
    totals = {tenant: 0 for tenant, _ in sizes}
    for _ in range(min(take, len(line))):
        waiting = {tenant for _, _, tenant, _ in line}
        if len(waiting) < len(totals):
            return
        tenant, size = served(clock, line)
        totals[tenant] += size
        assert max(totals.values()) - min(totals.values()) <= 2 * max(size for _, size in sizes)


def test_tenants_that_owe_nothing_are_forgotten() -> None:
    """Thousands of tenants leave no thousands of entries behind."""
    clock = FairClock()
    for number in range(5000):
        clock.serve(clock.tag(b"%d" % number, 1) + 1)
    assert len(clock._ends) <= 1025
