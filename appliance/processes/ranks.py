"""`python -m appliance.processes.ranks COUNT CONTROL_FD -- COMMAND…` becomes COMMAND, as the first of so many. Not for people.

The others are its children, by fork before anything else: each runs COMMAND as well, so it confines itself as the first does, with
a memory, a network and a view of /proc of its own, and nothing of the first but the two sockets between them. COMMAND is told
by `--rank`. The control socket is the first rank's alone.
"""

import fcntl
import os
import socket
import sys

from appliance.config.child_environment import rank_environment
from appliance.ipc.rank_sockets import all_descriptors, descriptors_of
from runtime.parallel.channel import Channel, open_channels


def main(arguments: list[str]) -> int:
    """Does not return, but for a command that cannot be executed."""
    if len(arguments) < 4 or arguments[2] != "--":
        raise SystemExit("usage: COUNT CONTROL_FD -- PROGRAM…")
    count, control_fd, _, *command = arguments
    return start_ranks(int(count), int(control_fd), command)


def start_ranks(num_ranks: int, control_fd: int, command: list[str]) -> int:
    """See the module."""
    beyond = all_descriptors(num_ranks, control_fd)[-1] + 1
    channels = open_channels(num_ranks)
    held = [_hold(channel, beyond) for channel in channels]
    own = next((rank for rank in range(1, num_ranks) if os.fork() == 0), 0)
    place = descriptors_of(channels[own].share, control_fd)
    for descriptor, target in zip(held[own], (*place.steps, *place.sums), strict=True):
        os.dup2(descriptor, target, inheritable=True)
    try:
        os.set_inheritable(control_fd, own == 0)
        arguments = [*command, "--rank", f"{own}/{num_ranks}"]
        os.execve(command[0], arguments, rank_environment(own))  # noqa: S606 - a launcher's purpose
    except OSError as error:
        sys.stderr.write(f"{command[0]} cannot be executed: {error}\n")
        return 1


def _hold(channel: Channel, beyond: int) -> list[int]:
    """The same sockets under numbers that no target has."""
    sockets: tuple[socket.socket, ...] = (*channel.steps, *channel.sums)
    held = [fcntl.fcntl(sock, fcntl.F_DUPFD_CLOEXEC, beyond) for sock in sockets]
    channel.close()
    return held


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
