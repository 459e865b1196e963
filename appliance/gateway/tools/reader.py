"""One choice's text, read: reasoning first, then calls and prose."""

from appliance.gateway.tools.events import CallArguments, CallBegun, CallParser, Event
from appliance.gateway.tools.reasoning import ReasoningParser


class AnswerReader:
    """Puts a reasoning parser before a parser of calls."""

    def __init__(
        self, calls: CallParser, reasoning: ReasoningParser | None = None, *, max_calls: int | None = None
    ) -> None:
        """`max_calls`: calls beyond are dropped (`parallel_tool_calls: false`)."""
        self._calls = calls
        self._reasoning = reasoning
        self._max_calls = max_calls
        self.num_calls = 0

    @property
    def is_reasoning(self) -> bool:
        """What comes next is reasoning, as far as is known."""
        return self._reasoning is not None and self._reasoning.is_open

    def feed(self, text: str) -> list[Event]:
        """Take more text of the answer."""
        events: list[Event] = []
        if self._reasoning is not None:
            events, text = self._reasoning.feed(text)
        return self._counted(events + (self._calls.feed(text) if text else []))

    def finish(self) -> list[Event]:
        """The answer ends: what was held back."""
        events: list[Event] = []
        if self._reasoning is not None:
            events, text = self._reasoning.finish()
            events += self._calls.feed(text) if text else []
        return self._counted(events + self._calls.finish())

    def _counted(self, events: list[Event]) -> list[Event]:
        kept: list[Event] = []
        for event in events:
            self.num_calls += isinstance(event, CallBegun)
            is_call = isinstance(event, CallBegun | CallArguments)
            if not (is_call and self._max_calls is not None and self.num_calls > self._max_calls):
                kept.append(event)
        return kept
