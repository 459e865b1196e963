"""What the forms with marks have in common: text outside of calls, in which a mark is watched for.

White space between calls, and after the last, belongs to the form and is dropped; before other text it stands.
"""

from collections.abc import Sequence

from appliance.gateway.text.stops import StopStrings
from appliance.gateway.tools.events import MAX_HELD_CHARS, Content, Event

_MAX_SPACE_CHARS = 4096


class Outside:
    """Text until one of a few marks."""

    def __init__(self, marks: Sequence[str]) -> None:
        self._stops = StopStrings(marks)
        self._marks = marks
        self._after_call = False
        self._space = ""
        self.matched: str | None = None

    def feed(self, text: str) -> tuple[list[Event], str]:
        """Take text up to the end of a mark; gives what is content, and the text that is left (none without a mark)."""
        progress = self._stops.feed(text)
        events = self._emit(progress.text)
        self.matched = progress.matched
        return events, progress.rest

    def after_call(self) -> None:
        """A call ended here."""
        self._after_call = True

    def after_text(self) -> None:
        """What was given back stands before: white space counts again."""
        self._after_call = False

    def finish(self) -> list[Event]:
        """The text ends."""
        return self._emit(self._stops.finish())

    def _emit(self, text: str) -> list[Event]:
        if self._after_call:
            text = self._space + text
            if not text.strip() and len(text) <= MAX_HELD_CHARS:
                self._space = text
                return []
            self._space, self._after_call = "", False
        return [Content(text)] if text else []


class Expected:
    """One of a few strings that should come next, white space before it skipped.

    Attributes:
        held: what has come and may still become one of them.
    """

    def __init__(self, *strings: str) -> None:
        self._strings = strings
        self.held = ""

    def feed(self, text: str) -> tuple[str | None, str, bool]:
        """Take text.

        Returns: the string that came, the text after it, and whether none can come any more (the text is then all that was held).
        """
        self.held += text
        stripped = self.held.lstrip()
        if len(self.held) - len(stripped) > _MAX_SPACE_CHARS:
            return None, self.held, True
        for string in self._strings:
            if stripped.startswith(string):
                return string, stripped[len(string) :], False
        if any(string.startswith(stripped) for string in self._strings):
            return None, "", False
        return None, self.held, True
