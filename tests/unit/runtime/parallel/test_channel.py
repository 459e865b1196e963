"""Ranks speak over socket pairs: all get the same, and whoever is alone is told."""

import threading
from collections.abc import Callable, Iterator

import pytest

from runtime.parallel.channel import (
    Channel,
    RankLost,
    open_channels,
    receive_message,
    send_message,
    take_last_words,
    wait_for_end,
)


@pytest.fixture
def opened() -> Iterator[Callable[[int], list[Channel]]]:
    """Opens channels, and closes them."""
    channels: list[Channel] = []

    def open_some(size: int) -> list[Channel]:
        channels.extend(open_channels(size))
        return channels

    yield open_some
    for channel in channels:
        channel.close()


Opener = Callable[[int], list[Channel]]


def test_every_rank_gets_what_the_first_makes_of_all(opened: Opener) -> None:
    """In the order of the ranks."""
    channels = opened(4)
    got: dict[int, bytes] = {}

    def run(channel: Channel) -> None:
        got[channel.share.rank] = channel.exchange(f"{channel.share.rank} ".encode(), b"".join)

    threads = [threading.Thread(target=run, args=(channel,)) for channel in channels]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == dict.fromkeys(range(4), b"0 1 2 3 ")


def test_the_smallest_of_all_ranks_is_taken(opened: Opener) -> None:
    """So each has as many pages as the one with the least memory."""
    first, other = opened(2)
    thread = threading.Thread(target=other.smallest, args=(70_000,))
    thread.start()
    assert first.smallest(1 << 40) == 70_000
    thread.join()


def test_a_lost_rank_is_named_on_every_way_to_it(opened: Opener) -> None:
    """Sending, receiving and waiting."""
    first, other = opened(2)
    other.close()
    with pytest.raises(RankLost, match="rank"):
        receive_message(first.sums[0])
    with pytest.raises(RankLost, match="rank"):
        send_message(first.steps[0], b"step")
    wait_for_end(first)


def test_messages_are_no_end(opened: Opener) -> None:
    """Whoever waits for an end does not take a message for one, and leaves it."""
    first, other = opened(2)
    send_message(other.steps[0], b"digest")
    waiting = threading.Thread(target=wait_for_end, args=(first,))
    waiting.start()
    waiting.join(timeout=0.05)
    assert waiting.is_alive()
    other.close()
    waiting.join(timeout=10)
    assert not waiting.is_alive()
    assert receive_message(first.steps[0]) == b"digest"


def test_last_words_are_heard_from_those_that_spoke(opened: Opener) -> None:
    """A rank that cannot start says why before it ends."""
    first, silent, speaking = opened(3)
    send_message(speaking.steps[0], b"rank 2: no GPU")
    silent.close()
    speaking.close()
    assert take_last_words(first) == ["rank 2: no GPU"]
