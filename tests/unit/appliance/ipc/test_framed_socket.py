"""What a slow peer leaves unread waits, in order and whole, and what is waiting is bounded."""

import contextlib
import socket
from collections.abc import Iterator

import pytest

from appliance.errors import LinkClosed
from appliance.ipc.edges import EdgeCodec
from appliance.ipc.framed_socket import FramedSocket
from appliance.messages.engine import RequestRefused


@contextlib.contextmanager
def connected(max_buffered_bytes: int = 1 << 20) -> Iterator[tuple[FramedSocket, FramedSocket]]:
    """An engine's and a gateway's end."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    engine = FramedSocket(one, EdgeCodec("engine", "gateway"), max_buffered_bytes=max_buffered_bytes)
    gateway = FramedSocket(other, EdgeCodec("gateway", "engine"))
    try:
        yield engine, gateway
    finally:
        engine.close()
        gateway.close()


def refusal(number: int) -> RequestRefused:
    """A message of some 10 KB."""
    return RequestRefused(number, "code", "m" * 10_000)


def test_what_the_socket_does_not_take_at_once_goes_later_whole_and_in_order() -> None:
    """The kernel's buffer is far smaller than what is sent: writes stop in the middle of messages."""
    with connected() as (engine, gateway):
        for number in range(90):
            engine.queue(refusal(number))
        received: list[RequestRefused] = []
        num_rounds = 0
        while len(received) < 90:
            engine.flush()
            num_rounds += 1
            received += gateway.receive()[0]
        assert received == [refusal(number) for number in range(90)]
        assert num_rounds > 1
        assert not engine.wants_write


def test_the_bound_counts_only_what_is_still_unread() -> None:
    """A peer that catches up may be sent as much again, time after time; one that does not is given up."""
    with connected(max_buffered_bytes=25_000) as (engine, gateway):
        for number in range(20):
            engine.queue(refusal(2 * number))
            engine.queue(refusal(2 * number + 1))
            engine.flush()
            while engine.wants_write:
                gateway.receive()
                engine.flush()
            gateway.receive()
        engine.queue(refusal(1))
        engine.queue(refusal(2))
        with pytest.raises(LinkClosed, match="unread"):
            engine.queue(refusal(3))


def test_what_is_sent_at_once_keeps_its_place_behind_what_waits() -> None:
    """`send` writes what it can, in the middle of a message too; then it queues, and nothing overtakes or is lost."""
    with connected() as (engine, gateway):
        for number in range(90):
            engine.send(refusal(number))
        assert engine.wants_write
        received: list[RequestRefused] = []
        while len(received) < 90:
            received += gateway.receive()[0]
            engine.flush()
        assert received == [refusal(number) for number in range(90)]
        assert not engine.wants_write


def test_what_is_sent_at_once_is_under_the_same_bound() -> None:
    """A message that may not wait is refused before a byte of it leaves; so is one to a peer that left too much unread."""
    with connected(max_buffered_bytes=5_000) as (engine, gateway):
        with pytest.raises(LinkClosed, match="more than may wait"):
            engine.send(refusal(1))
        assert gateway.receive() == ([], False)
    with connected(max_buffered_bytes=25_000) as (engine, _gateway):
        while not engine.wants_write:
            engine.send(refusal(1))
        engine.send(refusal(2))
        with pytest.raises(LinkClosed, match="unread"):
            engine.send(refusal(3))
