"""What waits for a browser to come back."""

from security.oauth.waiting import WaitingRoom


def room(clock):
    return WaitingRoom(lifetime_s=60, max_waiting=6, max_per_source=2, clock=clock)


def test_what_waits_is_good_once_and_for_a_while(clock):
    """By what the browser holds, and by nothing else."""
    waiting = room(clock)
    waiting.add("a", 1, "192.0.2.1")
    assert (waiting.take("b"), waiting.take(None), waiting.take("a"), waiting.take("a")) == (None, None, 1, None)
    waiting.add("c", 3, "192.0.2.1")
    clock.now += 60
    assert waiting.take("c") is None
    assert len(waiting) == 0


def test_who_begins_too_often_ends_their_own_and_nobody_elses(clock):
    """One machine has a whole /64 of addresses; many machines are needed to be in everybody's way."""
    waiting = room(clock)
    waiting.add("other", 0, "192.0.2.1")
    for number in range(20):
        waiting.add(f"mine-{number}", number, f"2001:db8::{number + 1:x}")
    assert len(waiting) == 3
    assert [waiting.take(f"mine-{number}") for number in (17, 18, 19)] == [None, 18, 19]
    assert waiting.take("other") == 0
    for number in range(8):
        waiting.add(f"spread-{number}", number, f"192.0.2.{number + 10}")
    assert len(waiting) == 6
    assert (waiting.take("spread-1"), waiting.take("spread-7")) == (None, 7)
    clock.now += 61
    waiting.add("last", 1, "192.0.2.1")
    assert len(waiting) == 1
