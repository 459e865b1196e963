"""Reasoning, which stands at the beginning of an answer between `<think>` and `</think>` (DeepSeek-R1, Qwen3).

R1's template writes the first mark into the prompt, so the answer begins inside; Qwen3 writes it itself, unless its template has
put an empty pair into the prompt. Which it is, the end of the prompt tells. White space at both ends belongs to the form.
"""

from appliance.gateway.text.stops import StopStrings
from appliance.gateway.tools.events import Event, Reasoning
from appliance.gateway.tools.marked import Expected

BEGIN, END = "<think>", "</think>"


class ReasoningParser:
    """Splits one answer into reasoning and the rest.

    Attributes:
        is_open: what comes next is reasoning, as far as is known.
    """

    def __init__(self, *, is_open: bool) -> None:
        """`is_open`: the answer begins inside."""
        self._expected = None if is_open else Expected(BEGIN)
        self._stops = StopStrings([END])
        self._space = ""
        self._has_text = False
        self._after = False
        self.is_open = is_open

    def feed(self, text: str) -> tuple[list[Event], str]:
        """Take more text; gives reasoning, and the text that is the answer's."""
        if self._expected is not None:
            found, text, is_other = self._expected.feed(text)
            if is_other:
                self._expected = None
                return [], text
            if found is None:
                return [], ""
            self._expected, self.is_open = None, True
        if self.is_open:
            progress = self._stops.feed(text)
            events = self._emit(progress.text)
            if progress.matched is None:
                return events, ""
            self.is_open, self._after = False, True
            return events, self._begin_answer(progress.rest)
        return [], self._begin_answer(text) if self._after else text

    def finish(self) -> tuple[list[Event], str]:
        """The answer ends: what was held back."""
        if self._expected is not None:
            return [], self._expected.held
        return (self._emit(self._stops.finish()), "") if self.is_open else ([], "")

    def _begin_answer(self, text: str) -> str:
        text = text.lstrip()
        self._after = not text
        return text

    def _emit(self, text: str) -> list[Event]:
        text = self._space + (text if self._has_text else text.lstrip())
        kept = text.rstrip()
        self._space = text[len(kept) :]
        self._has_text = self._has_text or bool(kept)
        return [Reasoning(kept)] if kept else []
