"""Who computes first when the cores, or the interpreter, do not suffice for all: those that a request waits for."""

import os
import sys

BACKGROUND_NICENESS = 10
SWITCH_INTERVAL_S = 0.0002
"""How long a thread may keep the interpreter while another waits for it; Python's default is 5 ms."""


def step_back() -> None:
    """Let this process compute when the others leave time for it, and interrupt none of them.

    The reader indexes a second's records at once. At a thousand a second that is 20 ms of a core, in which requests waited.
    Where everything was started with less precedence still (`nice`, `Nice=` of a unit) it stays there: the way back takes a
    privilege.
    """
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    own = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, max(own, BACKGROUND_NICENESS))


def take_short_turns() -> None:
    """Let the thread that requests wait for have the interpreter soon, whatever others of this process do beside it.

    The auditor publishes beside, policy reads its database, a gateway tokenizes long prompts.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
