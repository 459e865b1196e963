"""Stop strings across token boundaries, with nothing delivered that may belong to one.

The match that *completes* first in the text wins, of several that complete at once the longest. That does not depend on
how the text is cut into tokens, so a stream and a whole answer end at the same character.
"""

from collections.abc import Sequence

import msgspec


class Progress(msgspec.Struct, frozen=True):
    """What a piece of text led to: `text` may be delivered; `matched` is the stop string that ended it, `rest` what follows."""

    text: str
    matched: str | None = None
    rest: str = ""


class StopStrings:
    """Watches one growing text for any of a few strings."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(dict.fromkeys(stops))
        self._held = ""

    def feed(self, text: str) -> Progress:
        """Take more text; give what is certain not to belong to a stop string."""
        if not self._stops:
            return Progress(text)
        text = self._held + text
        found = self._first_match(text)
        if found is not None:
            start, stop = found
            self._held = ""
            return Progress(text[:start], stop, text[start + len(stop) :])
        num_held = max(_overlap(text, stop) for stop in self._stops)
        cut = len(text) - num_held
        self._held = text[cut:]
        return Progress(text[:cut])

    def finish(self) -> str:
        """The text ends without a match: what was held back."""
        held, self._held = self._held, ""
        return held

    def _first_match(self, text: str) -> tuple[int, str] | None:
        best: tuple[int, int, str] | None = None
        for stop in self._stops:
            start = text.find(stop)
            if start >= 0 and (best is None or (start + len(stop), start) < best[:2]):
                best = (start + len(stop), start, stop)
        return None if best is None else (best[1], best[2])


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`, but is not all of it."""
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
