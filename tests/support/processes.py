"""Processes that a test ends, or expects to end."""

import psutil


def has_ended(pid: int) -> bool:
    """Whether a process is no more; one that nobody has reaped yet has ended, too (process 1 of a container may never)."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
