"""Hermes' form, Qwen's too: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, one pair of marks a call, text around them.

Source: NousResearch Hermes-Function-Calling; Qwen 2.5 and 3 chat templates.
"""

from appliance.gateway.tools.events import Content, Event
from appliance.gateway.tools.json_call import JsonCall
from appliance.gateway.tools.marked import Expected, Outside

BEGIN, END = "<tool_call>", "</tool_call>"


class HermesParser:
    """Watches one answer for such calls. A mark before what is no call is given back as text."""

    def __init__(self) -> None:
        self._outside = Outside([BEGIN])
        self._call: JsonCall | None = None
        self._end: Expected | None = None

    def feed(self, text: str) -> list[Event]:
        """Take more text of the answer."""
        events: list[Event] = []
        while text:
            if self._call is not None:
                text = self._in_call(self._call, text, events)
            elif self._end is not None:
                text = self._at_end(self._end, text, events)
            else:
                given, text = self._outside.feed(text)
                events += given
                if self._outside.matched is not None:
                    self._call = JsonCall()
        return events

    def finish(self) -> list[Event]:
        """The answer ends: a call that had not begun is text."""
        if self._call is not None:
            return [] if self._call.begun else [Content(BEGIN + self._call.raw)]
        return [] if self._end is not None else self._outside.finish()

    def _in_call(self, call: JsonCall, text: str, events: list[Event]) -> str:
        given, rest = call.feed(text)
        events += given
        if call.done:
            self._call, self._end = None, Expected(END)
        elif call.failed:
            self._call = None
            if call.begun:
                self._outside.after_call()
            else:
                events.append(Content(BEGIN + call.raw))
                self._outside.after_text()
        return rest

    def _at_end(self, expected: Expected, text: str, events: list[Event]) -> str:
        """A call whose end mark does not come is a call all the same."""
        found, rest, is_other = expected.feed(text)
        if found is not None or is_other:
            self._end = None
            self._outside.after_call()
        return rest
