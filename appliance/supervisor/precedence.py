"""Who computes first where the cores do not suffice for all: what every request waits for most, if `supervisor.foreground_niceness`
says so.

Only the supervisor can give it to them: a process is confined and has another user before it knows its configuration. The
kernel must allow it: to root with CAP_SYS_NICE, to others up to RLIMIT_NICE, `LimitNICE=` in a unit of systemd.

Source: nice(2), getrlimit(2).
"""

import os

import structlog

from appliance.errors import StartRefused
from appliance.messages.control import Role

FOREGROUND: tuple[Role, ...] = ("gateway", "auditor")
"""Workers alone would keep the auditor, which they wait for, from computing."""

log = structlog.get_logger(__name__)


def verify_niceness(niceness: int) -> None:
    """Refuse to start if the kernel will not allow it, by taking it for a moment. 0 asks for nothing.

    Raises: StartRefused.
    """
    own = os.getpriority(os.PRIO_PROCESS, 0)
    if niceness == 0 or niceness >= own:
        return
    try:
        os.setpriority(os.PRIO_PROCESS, 0, niceness)
    except PermissionError as error:
        raise StartRefused(
            f"supervisor.foreground_niceness: the kernel does not allow {niceness} here; it takes CAP_SYS_NICE, or "
            f"LimitNICE={niceness} in the unit of systemd"
        ) from error
    os.setpriority(os.PRIO_PROCESS, 0, own)


def set_niceness(pid: int, niceness: int) -> None:
    """Give a process that has just been started its place; all threads that it makes later inherit it."""
    try:
        os.setpriority(os.PRIO_PROCESS, pid, niceness)
    except OSError as error:
        log.error("niceness_not_set", pid=pid, niceness=niceness, reason=error.strerror)
