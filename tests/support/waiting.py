"""Waiting for what nobody announces: an index that follows the log, a batch of spans, a link that ends.

The limits only say when a test gives up. They are generous: a machine that runs tests has other work, and a test that
claims a time measures it.
"""

import asyncio
import time
from collections.abc import Callable

GIVE_UP_S = 60.0
_DAY_S = 86_400.0


def wait_until(condition: Callable[[], object], timeout_s: float = GIVE_UP_S, poll_s: float = 0.05) -> float:
    """Wait until the condition holds; gives the seconds it took."""
    began_s = time.monotonic()
    while not condition():
        took_s = time.monotonic() - began_s
        assert took_s < timeout_s, f"did not happen within {timeout_s} s"
        time.sleep(poll_s)
    return time.monotonic() - began_s


def stay_within_a_day(needed_s: float = 60.0) -> None:
    """For what is compared by its day (UTC): if the day ends in less than this time, wait for the next one."""
    left_s = _DAY_S - time.time() % _DAY_S
    if left_s < needed_s:
        time.sleep(left_s + 0.01)


def shortest(measure: Callable[[], float], limit_s: float, attempts: int = 3) -> float:
    """The first time within the limit, or else the shortest of so many.

    Other work on the machine delays one of them. What is late by itself, because it asks now and then or waits for a time to
    be over, is late each time.
    """
    taken: list[float] = []
    while len(taken) < attempts:
        taken.append(measure())
        if taken[-1] <= limit_s:
            break
    return min(taken)


async def until(condition: Callable[[], object], timeout_s: float = GIVE_UP_S) -> None:
    """The same, in an event loop whose other tasks bring it about."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - the condition is anybody's
            await asyncio.sleep(0.005)
