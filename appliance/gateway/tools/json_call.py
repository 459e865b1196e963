"""One tool call as a JSON object, `{"name": …, "arguments": {…}}`, and arguments alone, both read as they come.

When the name stands before the arguments, as models write it, arguments are passed on character by character as written. In
any other order of members the call is given whole when its object ends.
"""

import re
from typing import Any

import msgspec

from appliance.gateway.tools.events import MAX_HELD_CHARS, MAX_NAME_CHARS, CallArguments, CallBegun, Event
from appliance.gateway.tools.json_text import JsonObjectScanner

_STRING = r'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"'
_SPACE = r"[ \t\n\r]*"
_HEAD = re.compile(
    rf'{_SPACE}\{{{_SPACE}"name"{_SPACE}:{_SPACE}({_STRING}){_SPACE},{_SPACE}"(?:arguments|parameters)"{_SPACE}:{_SPACE}'
)


class JsonArguments:
    """An object of arguments alone.

    Attributes:
        text: what has come of it since the last `take`.
        done, failed: how it ended, if it has.
    """

    def __init__(self) -> None:
        self._scanner = JsonObjectScanner()
        self._text: list[str] = []
        self.done = False
        self.failed = False

    def feed(self, text: str) -> str:
        """Take text up to the object's end, or to where it cannot be one; gives what is left."""
        for place, character in enumerate(text):
            if not self._scanner.step(character):
                self.failed = True
                return text[place:]
            if self._scanner.depth or self._scanner.done:
                self._text.append(character)
            if self._scanner.done:
                self.done = True
                return text[place + 1 :]
        return ""

    def take(self) -> list[Event]:
        """What has come since the last time."""
        text, self._text = "".join(self._text), []
        return [CallArguments(text)] if text else []


class JsonCall:
    """A call as an object.

    Attributes:
        raw: what was read and not given out, for whoever gives back what is no call.
        begun: the call has been given out, in part at least.
        done, failed: how it ended, if it has.
    """

    def __init__(self, *, needs_arguments: bool = False) -> None:
        """`needs_arguments`: an object without them is no call, where no mark says that one comes."""
        self._needs_arguments = needs_arguments
        self._scanner = JsonObjectScanner()
        self._arguments: list[str] = []
        self._in_arguments = False
        self.raw = ""
        self.begun = False
        self.done = False
        self.failed = False

    def feed(self, text: str) -> tuple[list[Event], str]:
        """Take text up to the object's end, or to where it is no call; gives events, and the text that is left."""
        events: list[Event] = []
        rest = ""
        for place, character in enumerate(text):
            self._take(character, events)
            if self.failed or self.done:
                # The character that no object can have here is not part of it.
                rest = text[place:] if self.failed and not self._scanner.done else text[place + 1 :]
                break
        return events + self._flush(), rest

    def _take(self, character: str, events: list[Event]) -> None:
        depth = self._scanner.depth
        if len(self.raw) > MAX_HELD_CHARS or not self._scanner.step(character):
            self.failed = True
            return
        if self._in_arguments:
            self._arguments.append(character)
            self._in_arguments = self._scanner.depth > 1
        elif not self.begun:
            if depth == 1 and self._scanner.depth == 2 and character == "{":
                self._begin(events)
            if not self.begun:
                self.raw += character
        if self._scanner.done:
            self._end(events)

    def _begin(self, events: list[Event]) -> None:
        head = _HEAD.fullmatch(self.raw)
        name = None if head is None else _decode_name(head.group(1))
        if name is not None:
            self.raw, self.begun, self._in_arguments = "", True, True
            self._arguments.append("{")
            events.append(CallBegun(name))

    def _end(self, events: list[Event]) -> None:
        if self.begun:
            self.done = True
            return
        call = parse_call(self.raw, needs_arguments=self._needs_arguments)
        if call is None:
            self.failed = True
            return
        self.raw, self.begun, self.done = "", True, True
        events += call

    def _flush(self) -> list[Event]:
        text, self._arguments = "".join(self._arguments), []
        return [CallArguments(text)] if text else []


def parse_call(text: str, *, needs_arguments: bool = False) -> list[Event] | None:
    """The events of a whole object, or None if it is no call."""
    try:
        call: Any = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None
    if not isinstance(call, dict):
        return None
    name = _name_of(call.get("name"))
    arguments = _arguments_of(call.get("arguments", call.get("parameters")))
    if name is None or arguments is None or (needs_arguments and not call.keys() & {"arguments", "parameters"}):
        return None
    return [CallBegun(name), CallArguments(msgspec.json.encode(arguments).decode())]


def _arguments_of(value: Any) -> dict[str, Any] | None:
    """Some models write them as JSON text in a string; none at all, or null, is the empty object."""
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError):
            return None
    return {} if value is None else value if isinstance(value, dict) else None


def _decode_name(text: str) -> str | None:
    try:
        return _name_of(msgspec.json.decode(text))
    except msgspec.DecodeError:
        return None


def _name_of(value: Any) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= MAX_NAME_CHARS else None
