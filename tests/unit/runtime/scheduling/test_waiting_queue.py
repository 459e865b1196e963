"""Who is next."""

from runtime.request import GenerationRequest, SamplingParams
from runtime.scheduling.requests import Sequence, build_request
from runtime.scheduling.waiting import MAX_OVERTAKEN, WaitingQueue


def sequence(arrival: int, priority: int = 0) -> Sequence:
    asked = GenerationRequest(request_id=arrival, prompt=[1], sampling=SamplingParams(), priority=priority)
    found = build_request(asked, arrival=arrival, eos_token_ids=(), is_internal=False).choices[0].sequence
    assert found is not None
    return found


def line(*sequences: Sequence) -> WaitingQueue:
    queue = WaitingQueue()
    for one in sequences:
        queue.add(one)
    return queue


def test_priority_comes_before_arrival() -> None:
    """Higher priority first, then earlier arrival."""
    low, first, second, high = sequence(1, -1), sequence(2), sequence(3), sequence(4, 5)
    assert list(line(second, low, high, first)) == [high, first, second, low]


def test_retracted_sequence_returns_to_its_place() -> None:
    """It keeps its arrival, so later ones do not pass it."""
    first, second, third = sequence(1), sequence(2), sequence(3)
    queue = line(second, third)
    queue.add(first)
    assert queue.first() is first


def test_longest_match_is_taken_among_equals_only() -> None:
    """A longer prefix does not beat a higher priority; equal lengths go by arrival."""
    first, second, low = sequence(1), sequence(2), sequence(3, -1)
    queue = line(first, second, low)
    assert queue.longest_match(lambda one: {1: 2, 2: 5, 3: 9}[one.request.arrival]) is second
    assert queue.longest_match(lambda one: 0) is first


def test_nobody_is_overtaken_for_ever() -> None:
    """Who was passed often enough goes first, whatever the others would share."""
    first, second = sequence(1), sequence(2)
    first.num_overtaken = MAX_OVERTAKEN
    assert line(first, second).longest_match(lambda one: one.request.arrival) is first


def test_empty_line_has_nobody() -> None:
    """No sequence, under either policy."""
    assert WaitingQueue().first() is None
    assert WaitingQueue().longest_match(lambda one: 0) is None
