"""How a process that must not pause lives with Python's memory."""

import contextlib
import ctypes
import gc

_M_MMAP_THRESHOLD = -3
"""Of mallopt(3)."""
_MAPPED_FROM_BYTES = 128 << 10


def hold_collector() -> None:
    """While a process imports: what comes lives as long as the process, and would be walked a hundred times while it grows."""
    gc.disable()


def release_collector() -> None:
    """When everything is imported: that stays out of the collector's sight."""
    gc.freeze()
    gc.enable()


def settle_memory() -> None:
    """Take what was loaded out of the collector's sight, and let it look at the rest less often.

    A full collection over all that libraries and models leave behind stops a process for tens of milliseconds: every stream
    of a gateway, every step of an engine. Requests make few cycles.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)


def keep_buffers_apart() -> None:
    """Let malloc map each large block by itself, for good.

    A gateway's loop takes 256 KiB for each connection under TLS and touches the first pages of it. glibc by itself soon serves
    such blocks from its heap, where pages are in memory that others have touched: 42 KiB a connection instead of 28.
    """
    with contextlib.suppress(OSError, AttributeError):  # Another libc has no such habit.
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM_BYTES)
