"""What the benchmarks of the log say about a list of latencies, and how they begin with a disk that has nothing left to do."""

import os
import time
from collections.abc import Sequence

SETTLE_S = 2.0


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which so large a share lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def settle() -> None:
    """Let the device finish what was asked of it before, so that it is not measured as ours.

    The log of an earlier run that was removed is given back to a device that discards blocks with the next commits of the file
    system's journal, and every sync waits for that: p99 of 40 to 130 ms were seen in the first seconds after it.
    """
    os.sync()
    time.sleep(SETTLE_S)
    os.sync()
