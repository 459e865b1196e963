"""Progress of a step that may take more than a second: a live line on a terminal, one line a change elsewhere."""

import sys
import threading
import time
from types import TracebackType

_INTERVAL_S = 0.2
_BAR_WIDTH = 30


class Progress:
    """Says on standard error what is going on and for how long. A thread redraws the line on a terminal."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._detail = ""
        self._told: tuple[str, int] = ("", -1)
        self._started = time.monotonic()
        self._is_terminal = sys.stderr.isatty()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._redraw, daemon=True)

    def __enter__(self) -> "Progress":
        if self._is_terminal:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.done()

    def say(self, detail: str) -> None:
        """What is being waited for now."""
        if detail != self._detail:
            self._detail = detail
            if not self._is_terminal and not self._ended.is_set():
                sys.stderr.write(f"{self._what}: {detail}\n")
                sys.stderr.flush()

    def advance(self, stage: str, done: int, total: int, detail: str = "") -> None:
        """A bar that grows; where no terminal redraws it, a line for each tenth."""
        tenth = (stage, 10 * done // max(1, total))
        if self._is_terminal or tenth != self._told:
            self._told = tenth
            filled = _BAR_WIDTH * done // max(1, total)
            self.say(f"{stage} [{'#' * filled}{'.' * (_BAR_WIDTH - filled)}] {done}/{total}{detail and '  '}{detail}")

    def done(self) -> None:
        """Clear the line; may be called more than once."""
        if not self._ended.is_set():
            self._ended.set()
            if self._thread.is_alive():
                self._thread.join()
                sys.stderr.write("\r\x1b[K")
                sys.stderr.flush()

    def _redraw(self) -> None:
        while not self._ended.wait(_INTERVAL_S):
            elapsed = time.monotonic() - self._started
            if elapsed > 1.0:
                sys.stderr.write(f"\r\x1b[K{self._what}: {self._detail} ({elapsed:.0f} s)")
                sys.stderr.flush()
