"""Tool calls in the Hermes form, taken out of an answer as it comes: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`.

Text before, between and after goes on as content. A call is given whole, when its end mark is here. What stands between
marks and is no call, and a mark that is never closed, is given back as the text that it was: nothing a model wrote is lost.
"""

from dataclasses import dataclass, field
from typing import Any

import msgspec

from appliance.gateway.text.stops import StopStrings

_BEGIN, _END = (mark.decode() for mark in (b"<tool_call>", b"</tool_call>"))
MAX_CALL_CHARS = 256 * 1024


@dataclass(frozen=True)
class ToolCall:
    """One call: the tool's name and its arguments as JSON text."""

    name: str
    arguments: str


@dataclass
class Parsed:
    """What more text led to: content to show, and calls that are complete."""

    content: str = ""
    calls: list[ToolCall] = field(default_factory=list)


class ToolCallParser:
    """Watches one answer for tool calls."""

    def __init__(self) -> None:
        self._outside = StopStrings([_BEGIN])
        self._call: str | None = None

    def feed(self, text: str) -> Parsed:
        """Take more text of the answer."""
        parsed = Parsed()
        while text or self._call is not None:
            if self._call is None:
                progress = self._outside.feed(text)
                parsed.content += progress.text
                if progress.matched is None:
                    return parsed
                self._call, text = "", progress.rest
            self._call, text = self._call + text, ""
            end = self._call.find(_END)
            if end < 0:
                if len(self._call) > MAX_CALL_CHARS:
                    parsed.content += self._give_back()
                return parsed
            inner, text = self._call[:end], self._call[end + len(_END) :]
            self._call = None
            call = _parse_call(inner)
            if call is None:
                parsed.content += _BEGIN + inner + _END
            else:
                parsed.calls.append(call)
        return parsed

    def finish(self) -> Parsed:
        """The answer ends; an open call is text."""
        return Parsed(self._outside.finish() if self._call is None else self._give_back())

    def _give_back(self) -> str:
        text, self._call = _BEGIN + (self._call or ""), None
        return text


def _parse_call(inner: str) -> ToolCall | None:
    try:
        call: Any = msgspec.json.decode(inner)
    except (msgspec.DecodeError, RecursionError):
        return None
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        return None
    arguments = call.get("arguments", call.get("parameters", {}))
    if not isinstance(arguments, dict):
        return None
    return ToolCall(call["name"], msgspec.json.encode(arguments).decode())
