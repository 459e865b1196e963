"""Every rank of an engine but the first: it loads what the first loads, and launches what the first launches.

    assignment from the first rank → the model, admitted and verified by itself → steps, until the first ends

It has no link to anybody else, no ticket, no request: token ids come in steps, and a digest of what was chosen goes back. Trust
boundary: none towards the first rank, see `runtime.parallel.channel`.
"""

import os
import threading
import time

import msgspec
import structlog

from appliance.config import parse_configuration
from appliance.errors import EXIT_MISCONFIGURED
from appliance.inference.model import build_runner_of
from appliance.messages.control import Assign
from appliance.models.admission import checks_of
from appliance.processes.confinement import confine_after_imports
from appliance.processes.memory import settle_memory
from appliance.processes.refusal import START_REFUSALS, configuration_directory
from runtime.parallel.channel import Channel, RankLost, receive_message, send_message, wait_for_end
from runtime.parallel.following import follow
from security.sandbox.launch import Confined

EXIT_RANK_LOST = 71
_GRACE_S = 2.0

log = structlog.get_logger(__name__)


def assign_ranks(channel: Channel, assignment: Assign) -> None:
    """Tell the other ranks what the first one is. Raises: RankLost."""
    message = msgspec.msgpack.encode(assignment)
    for sock in channel.steps:
        send_message(sock, message)


def end_with_others(channel: Channel) -> None:
    """End this process, whatever it waits for, when another rank has ended: on a GPU ranks wait for each other without a limit.

    The first rank takes a moment, in which it may say why.
    """

    def watch() -> None:
        wait_for_end(channel)
        if not channel.is_first:
            os._exit(0)  # As it ends by itself where it waits for a step; why the first has ended others say.
        time.sleep(_GRACE_S)
        log.error("rank_lost", reason="another rank of the engine has ended")
        os._exit(EXIT_RANK_LOST)

    threading.Thread(target=watch, name="ranks", daemon=True).start()


def run_rank(channel: Channel, confined: Confined | None) -> int:
    """Serve until the first rank ends; gives the exit status."""
    structlog.contextvars.bind_contextvars(rank=channel.share.rank)
    try:
        confine_after_imports(confined)
        end_with_others(channel)
        assignment = msgspec.msgpack.decode(receive_message(channel.steps[0]), type=Assign)
        config = parse_configuration(assignment.configuration, configuration_directory(assignment))
        settings = config.engines[assignment.instance]
        checks = checks_of(config, settings)
        runner, _digest = build_runner_of(settings, lambda: None, checks.weights, checks.head, channel=channel)
    except START_REFUSALS as refusal:
        log.error("cannot_start", reason=str(refusal))
        send_message(channel.steps[0], f"rank {channel.share.rank}: {refusal}".encode())
        return EXIT_MISCONFIGURED
    except RankLost:
        return 0
    settle_memory()
    log.info("rank_ready", pages=runner.num_pages)
    follow(runner, channel)
    return 0
