"""DeepSeek's forms, inside `<｜tool▁calls▁begin｜>…<｜tool▁calls▁end｜>`, one pair of marks a call.

V3 and R1: `<｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME`, a line break, and the arguments in a fenced block of JSON. V3.1:
`<｜tool▁call▁begin｜>NAME<｜tool▁sep｜>{…}`. Source: the chat templates of these models.
"""

import re

from appliance.gateway.tools.events import MAX_HELD_CHARS, MAX_NAME_CHARS, CallBegun, Content, Event
from appliance.gateway.tools.json_call import JsonArguments
from appliance.gateway.tools.marked import Outside

CALLS_BEGIN, CALLS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
CALL_BEGIN, CALL_END, SEPARATOR = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"
FENCE = "\n```json\n"
_HEAD = re.compile(r"\s*(?:function<｜tool▁sep｜>([^\s<{`]+)\s*```(?:json)?\s*|([^\s<{`]+)<｜tool▁sep｜>\s*)(?=\{)")
_LONGEST_HEAD = 4 * MAX_NAME_CHARS


class DeepSeekParser:
    """Watches one answer for such calls."""

    def __init__(self) -> None:
        self._outside = Outside([CALLS_BEGIN, CALL_BEGIN, CALLS_END])
        self._state = "outside"
        """outside, head (after a call's mark), arguments, tail (up to the call's end mark)."""
        self._held = ""
        self._arguments = JsonArguments()

    def feed(self, text: str) -> list[Event]:
        """Take more text of the answer."""
        events: list[Event] = []
        while text:
            if self._state == "outside":
                given, text = self._outside.feed(text)
                events += given
                if self._outside.matched == CALL_BEGIN:
                    self._state, self._held = "head", ""
                elif self._outside.matched is not None:
                    self._outside.after_call()
            elif self._state == "head":
                text = self._at_head(text, events)
            elif self._state == "arguments":
                text = self._arguments.feed(text)
                events += self._arguments.take()
                if self._arguments.done or self._arguments.failed:
                    self._state, self._held = "tail", ""
            else:
                text = self._at_tail(text)
        return events

    def finish(self) -> list[Event]:
        """The answer ends: a call that had not begun is text."""
        if self._state == "head":
            return [Content(CALL_BEGIN + self._held)]
        return self._outside.finish() if self._state == "outside" else []

    def _at_head(self, text: str, events: list[Event]) -> str:
        self._held += text
        head = _HEAD.match(self._held)
        name = (head.group(1) or head.group(2)) if head is not None else ""
        if head is not None and head.end() <= _LONGEST_HEAD and len(name) <= MAX_NAME_CHARS:
            events.append(CallBegun(name))
            self._state, self._arguments = "arguments", JsonArguments()
            return self._held[head.end() :]
        if head is None and "{" not in self._held and len(self._held) <= _LONGEST_HEAD:
            return ""
        held, self._held, self._state = self._held, "", "outside"
        self._outside.after_text()
        # Only the mark is certain to be text: another call may begin in what was held.
        events.append(Content(CALL_BEGIN))
        return held

    def _at_tail(self, text: str) -> str:
        """The fence's end and what else stands before the end mark belong to the form."""
        self._held += text
        end = self._held.find(CALL_END)
        if end < 0:
            self._held = self._held[-MAX_HELD_CHARS:]
            return ""
        rest, self._held, self._state = self._held[end + len(CALL_END) :], "", "outside"
        self._outside.after_call()
        return rest
