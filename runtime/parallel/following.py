"""Every other rank's loop: take a step, launch it, say what the one before it chose.

As the first rank does, it reads a step behind the launch of the next one, and while there is no next one after a moment.
"""

import select
from collections import deque

from runtime.batch import LaunchedStep, ModelRunner
from runtime.parallel.channel import Channel, RankLost, receive_message
from runtime.parallel.leading import DIGEST, digest_of
from runtime.parallel.wire import decode_step

_PATIENCE_S = 0.02
"""Without another step a step is read."""


def follow(runner: ModelRunner, channel: Channel) -> None:
    """Launch what the first rank launches, until that ends."""
    (sock,) = channel.steps
    in_flight: deque[LaunchedStep] = deque()
    try:
        while True:
            if in_flight and not select.select([sock], [], [], _PATIENCE_S)[0]:
                sock.sendall(DIGEST.pack(digest_of(in_flight.popleft().result())))
                continue
            in_flight.append(runner.launch(decode_step(receive_message(sock))))
            if len(in_flight) > 1:
                sock.sendall(DIGEST.pack(digest_of(in_flight.popleft().result())))
    except (RankLost, OSError):
        return
