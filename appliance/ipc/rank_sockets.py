"""Which descriptors are the sockets between the ranks of an engine: a rule, so that nobody has to be told.

Behind the control socket's number come those for steps, then those for sums, as the first rank has them: one to each other rank.
Every other rank has one of each.
"""

import os
import socket
from dataclasses import dataclass

from runtime.parallel.channel import Channel
from runtime.weights.shares import Share


@dataclass(frozen=True, slots=True)
class RankDescriptors:
    """Of one rank."""

    steps: tuple[int, ...]
    sums: tuple[int, ...]


def descriptors_of(share: Share, control_fd: int) -> RankDescriptors:
    """Where a rank's sockets are."""
    count = share.size - 1 if share.rank == 0 else 1
    first = control_fd + 1
    return RankDescriptors(tuple(range(first, first + count)), tuple(range(first + count, first + 2 * count)))


def all_descriptors(num_ranks: int, control_fd: int) -> tuple[int, ...]:
    """What some rank may have inherited, its control socket included."""
    return tuple(range(control_fd, control_fd + 1 + 2 * (num_ranks - 1)))


def take_channel(share: Share, control_fd: int) -> Channel | None:
    """The sockets that this process has inherited as a rank; None where the engine has no others."""
    if share.size == 1:
        return None
    inherited = descriptors_of(share, control_fd)
    channel = Channel(share, *(tuple(map(_take, group)) for group in (inherited.steps, inherited.sums)))
    return channel


def _take(descriptor: int) -> socket.socket:
    os.set_inheritable(descriptor, False)
    return socket.socket(fileno=descriptor)
