"""A start that is refused, told by the next one that is not: while it is refused there may be no auditor to tell it to."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from appliance.cli.caller import actor
from appliance.errors import StartRefused
from appliance.models.places import open_outbox
from audit.errors import AuditMisconfigured
from security.errors import SecurityFault, SecurityMisconfigured

log = structlog.get_logger(__name__)

MAX_WAITING = 50
"""Refusals that wait for the log; a service that is started again for ever leaves no more."""
_MAX_REASON_CHARS = 1000


@contextmanager
def noting_refusal(state: Path, raw: bytes) -> Iterator[Callable[[], None]]:
    """Leave word of what refuses the start, and let it pass. Gives what is to be called once the appliance is ready.

    Args:
        raw: the configuration, as it was read.
    """
    is_ready = False

    def note_ready() -> None:
        nonlocal is_ready
        is_ready = True

    try:
        yield note_ready
    except (StartRefused, SecurityMisconfigured, AuditMisconfigured) as refused:
        if not is_ready:
            _leave_notice(state, raw, " ".join(str(refused).split())[:_MAX_REASON_CHARS])
        raise


def _leave_notice(state: Path, raw: bytes, reason: str) -> None:
    outbox = open_outbox(state)
    try:
        waiting = [one.facts.get("reason") for _, one in outbox.waiting() if one.kind == "start_refused"]
        if reason in waiting or len(waiting) >= MAX_WAITING:
            return
        digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        outbox.put("start_refused", name="appliance", digest=digest, actor=actor(), facts={"reason": reason})
    except (SecurityFault, OSError) as fault:
        log.error("refusal_not_noted", reason=str(fault))
