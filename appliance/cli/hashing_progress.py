"""How far hashing is, and sizes in words."""

import time

from appliance.cli.progress import Progress

_QUIET_S = 1.0
_STEP_PERCENT = 10


class Percentage:
    """How far hashing is: nothing in the first second, then each tenth."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._started = time.monotonic()

    def report(self, done: int, total: int) -> None:
        """Called by the library several times a second."""
        if time.monotonic() - self._started >= _QUIET_S and total:
            percent = done * 100 // total // _STEP_PERCENT * _STEP_PERCENT
            self._progress.say(f"{percent} % of {format_size(total)}")


def count(number: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def format_size(size_bytes: int) -> str:
    """Bytes in decimal units, one digit after the point."""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
