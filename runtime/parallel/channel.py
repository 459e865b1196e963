"""The sockets between ranks: pairs that the first rank makes before it starts the others, one for steps and one for sums.

Messages are bytes behind their length. Trust boundary: none. All ranks are one program under one user that the first rank
started, and each ends when the other side does.
"""

import select
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

from runtime.weights.shares import Share

MAX_MESSAGE_BYTES = 1 << 30
_LENGTH = struct.Struct("<Q")


class RankLost(RuntimeError):
    """Another rank of the engine has ended."""


@dataclass(frozen=True, slots=True)
class Channel:
    """One rank's ends. The first has one to each other rank, in their order; the others have one to the first."""

    share: Share
    steps: tuple[socket.socket, ...]
    sums: tuple[socket.socket, ...]

    @property
    def is_first(self) -> bool:
        """Whether this is the first rank's."""
        return self.share.rank == 0

    def exchange(self, own: bytes, join: Callable[[list[bytes]], bytes]) -> bytes:
        """What `join` makes, on the first rank, of what all ranks give, in their order. Every rank gets the same.

        Raises: RankLost.
        """
        if not self.is_first:
            send_message(self.sums[0], own)
            return receive_message(self.sums[0])
        joined = join([own, *map(receive_message, self.sums)])
        for sock in self.sums:
            send_message(sock, joined)
        return joined

    def smallest(self, value: int) -> int:
        """Of the values that all ranks give, none negative."""
        return int.from_bytes(self.exchange(value.to_bytes(8), min))

    def close(self) -> None:
        """All of them."""
        for sock in (*self.steps, *self.sums):
            sock.close()


def open_channels(size: int) -> list[Channel]:
    """Of so many ranks, the first one's first; each process keeps its own and closes the others."""
    pairs = [[socket.socketpair() for _ in range(size - 1)] for _ in range(2)]
    first = (tuple(pair[0] for pair in purpose) for purpose in pairs)
    others = zip(*((pair[1] for pair in purpose) for purpose in pairs), strict=True)
    return [
        Channel(Share(0, size), *first),
        *(Channel(Share(rank, size), (steps,), (sums,)) for rank, (steps, sums) in enumerate(others, 1)),
    ]


def wait_for_end(channel: Channel) -> None:
    """Until some other rank has ended. Reads nothing."""
    ends = select.poll()
    for sock in (*channel.steps, *channel.sums):
        ends.register(sock, select.POLLRDHUP)
    ends.poll()


def take_last_words(channel: Channel) -> list[str]:
    """What the other ranks said instead of starting; nothing of those that said nothing."""
    said = []
    for sock in channel.steps:
        try:
            sock.setblocking(False)
            said.append(receive_message(sock).decode())
        except (RankLost, UnicodeDecodeError):
            continue
        finally:
            sock.setblocking(True)
    return said


def send_message(sock: socket.socket, message: bytes) -> None:
    """Raises: RankLost."""
    try:
        sock.sendall(_LENGTH.pack(len(message)) + message)
    except OSError as error:
        raise RankLost(f"a rank of the engine is gone: {error}") from error


def receive_message(sock: socket.socket) -> bytes:
    """Raises: RankLost."""
    (length,) = _LENGTH.unpack(_receive(sock, _LENGTH.size))
    assert length <= MAX_MESSAGE_BYTES
    return bytes(_receive(sock, length))


def _receive(sock: socket.socket, count: int) -> bytearray:
    content = bytearray(count)
    view = memoryview(content)
    while view:
        try:
            got = sock.recv_into(view)
        except OSError as error:
            raise RankLost(f"a rank of the engine is gone: {error}") from error
        if not got:
            raise RankLost("a rank of the engine has ended")
        view = view[got:]
    return content
