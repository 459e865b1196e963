"""Who computes first when the cores do not suffice for all: those that a request waits for."""

import os

BACKGROUND_NICENESS = 10


def step_back() -> None:
    """Let this process compute when the others leave time for it, and interrupt none of them.

    The reader indexes a second's records at once. At a thousand a second that is 20 ms of a core, in which requests waited.
    """
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    os.setpriority(os.PRIO_PROCESS, 0, BACKGROUND_NICENESS)
