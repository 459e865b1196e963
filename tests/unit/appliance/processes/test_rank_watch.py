"""A rank notices that another one has ended, and says what that one said, whatever it is busy with."""

import queue

import pytest

from appliance.errors import EXIT_MISCONFIGURED, StartRefused
from appliance.processes import rank
from appliance.processes.rank import EXIT_RANK_LOST, RankWatch
from runtime.parallel.channel import Channel, RankLost, open_channels, send_message


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> queue.Queue[int]:
    """What the process would have ended with; without the moment that the first rank takes."""
    statuses: queue.Queue[int] = queue.Queue()
    monkeypatch.setattr(rank.os, "_exit", statuses.put)
    monkeypatch.setattr(rank, "_GRACE_S", 0.0)
    return statuses


@pytest.fixture
def channels() -> list[Channel]:
    return open_channels(3)


def close(channels: list[Channel]) -> None:
    for channel in channels:
        channel.close()


def test_a_rank_that_cannot_start_is_why_the_first_cannot(exits: queue.Queue[int], channels: list[Channel]) -> None:
    """The first is told between two parts of its own work, and not only when it needs the other."""
    first, other, _ = channels
    watch = RankWatch(first)
    watch.verify()
    send_message(other.steps[0], b"rank 1: the weights need 9 GiB")
    other.close()
    assert exits.get(timeout=60) == EXIT_MISCONFIGURED
    with pytest.raises(StartRefused, match="rank 1: the weights need 9 GiB"):
        watch.verify()
    with pytest.raises(StartRefused, match="rank 1: the weights need 9 GiB"):
        watch.refuse_start()
    close(channels)


def test_a_first_rank_that_hangs_is_spoken_for(exits: queue.Queue[int], channels: list[Channel]) -> None:
    """It waits on its GPU for the rank that is gone, and never comes to saying anything."""
    refused: list[str] = []
    send_message(channels[2].steps[0], b"rank 2: no GPU")
    channels[2].close()
    RankWatch(channels[0], refused.append)
    assert exits.get(timeout=60) == EXIT_MISCONFIGURED
    assert refused == ["rank 2: no GPU"]
    close(channels)


def test_what_a_running_rank_sent_is_left_to_the_loop(exits: queue.Queue[int], channels: list[Channel]) -> None:
    """Digests are no last words, and the loop compares them."""
    refused: list[str] = []
    first, other, _ = channels
    watch = RankWatch(first, refused.append)
    watch.started()
    other.steps[0].sendall(b"1234")
    other.close()
    assert exits.get(timeout=60) == EXIT_RANK_LOST
    assert first.steps[0].recv(8) == b"1234"
    assert refused == []
    watch.refuse_start()
    with pytest.raises(RankLost):
        watch.verify()
    close(channels)


def test_every_other_rank_ends_at_once(exits: queue.Queue[int], channels: list[Channel]) -> None:
    """Without a word: why the first has ended others say."""
    RankWatch(channels[1])
    channels[0].close()
    assert exits.get(timeout=60) == 0
    close(channels)
