"""Every rank of an engine but the first: it loads what the first loads, and launches what the first launches.

    assignment from the first rank → the model, admitted and verified by itself → steps, until the first ends

It has no link to anybody else, no ticket, no request: token ids come in steps, and a digest of what was chosen goes back. Trust
boundary: none towards the first rank, see `runtime.parallel.channel`.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable

import msgspec
import structlog

from appliance.config import parse_configuration
from appliance.errors import EXIT_MISCONFIGURED, StartRefused
from appliance.inference.model import build_runner_of
from appliance.inference.rank_facts import tell_rank_facts
from appliance.ipc.rank_sockets import take_channel
from appliance.messages.control import Assign
from appliance.models.admission import checks_of
from appliance.processes.confinement import confine_after_imports
from appliance.processes.memory import release_collector, settle_memory
from appliance.processes.refusal import START_REFUSALS, configuration_directory
from runtime.parallel.channel import (
    Channel,
    RankLost,
    receive_message,
    send_message,
    take_last_words,
    wait_for_end,
)
from runtime.parallel.following import follow
from runtime.weights.shares import Share
from security.sandbox.launch import Confined

EXIT_RANK_LOST = 71
_GRACE_S = 2.0

log = structlog.get_logger(__name__)


def assign_ranks(channel: Channel, assignment: Assign) -> None:
    """Tell the other ranks what the first one is. Raises: RankLost."""
    message = msgspec.msgpack.encode(assignment)
    for sock in channel.steps:
        send_message(sock, message)


class RankWatch:
    """End this process, whatever it waits for, when another rank has ended: on a GPU ranks wait for each other without a limit.

    The first rank takes a moment, in which it may say why. A rank that cannot start has said so before it ended: while the
    first one starts, that is why it cannot start either, however much it still has to load.
    """

    def __init__(self, channel: Channel, refuse: Callable[[str], object] = lambda _reason: None) -> None:
        """
        Args:
            refuse: tells whoever started this process that it cannot start.
        """
        self._channel = channel
        self._refuse = refuse
        self._is_starting = channel.is_first
        self._reason = ""
        self._ended = threading.Event()
        threading.Thread(target=self._watch, name="ranks", daemon=True).start()

    def verify(self) -> None:
        """While this process starts. Raises: StartRefused with what another rank said, RankLost if it has ended without."""
        if self._ended.is_set():
            self.refuse_start()
            raise RankLost("a rank of the engine has ended")

    def refuse_start(self) -> None:
        """Where a rank was found lost. Raises: StartRefused with what it said instead of starting, if it did."""
        self._ended.wait(_GRACE_S)
        if self._reason:
            raise StartRefused(self._reason)

    def started(self) -> None:
        """From now on what the others send are digests."""
        self._is_starting = False

    def _watch(self) -> None:
        wait_for_end(self._channel)
        os._exit(self._end_as_first() if self._channel.is_first else 0)  # Why the first has ended others say.

    def _end_as_first(self) -> int:
        """Let the first rank end by itself, as it does where it waits for a step; gives the exit status for one that does not."""
        if self._is_starting:
            self._reason = "; ".join(take_last_words(self._channel))
        self._ended.set()
        time.sleep(_GRACE_S)
        if self._reason:
            with contextlib.suppress(Exception):
                self._refuse(self._reason)
            return EXIT_MISCONFIGURED
        log.error("rank_lost", reason="another rank of the engine has ended")
        return EXIT_RANK_LOST


def run_rank(rank: int, size: int, control_fd: int, confined: Confined | None) -> int:
    """Serve until the first rank ends; gives the exit status."""
    release_collector()
    channel = take_channel(Share(rank, size), control_fd)
    assert channel is not None
    structlog.contextvars.bind_contextvars(rank=channel.share.rank)
    try:
        confine_after_imports(confined)
        RankWatch(channel)
        assignment = msgspec.msgpack.decode(receive_message(channel.steps[0]), type=Assign)
        config = parse_configuration(assignment.configuration, configuration_directory(assignment))
        settings = config.engines[assignment.instance]
        checks = checks_of(config, settings)
        built = build_runner_of(settings, lambda: None, checks.weights, checks.head, channel=channel)
        tell_rank_facts(built.facts, channel)
    except START_REFUSALS as refusal:
        log.error("cannot_start", reason=str(refusal))
        with contextlib.suppress(RankLost):
            send_message(channel.steps[0], f"rank {channel.share.rank}: {refusal}".encode())
        return EXIT_MISCONFIGURED
    except RankLost:
        return 0
    settle_memory()
    log.info("rank_ready", pages=built.runner.num_pages)
    follow(built.runner, channel)
    return 0
