"""The pythonic form (Llama 3.2 and 4, ToolACE): the answer is a list of calls, `[get_weather(city="Rome"), add(a=1, b=2)]`.

Each argument is passed on when it is whole, as JSON, and a call begins with its first one: what has none is text, and so is an
answer that begins otherwise, to its end. Values are literals: nothing is evaluated but by `ast.literal_eval`, and nothing deep
or long is given to it.
"""

import ast
import json
import re
import warnings
from typing import Any

from appliance.gateway.tools.events import MAX_HELD_CHARS, MAX_NAME_CHARS, CallArguments, CallBegun, Content, Event

_CALL = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_.-]*)\s*\(")
_CALL_BEGUN = re.compile(r"\s*(?:[A-Za-z_][A-Za-z0-9_.-]*\s*)?")
_ARGUMENT = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*=(?!=)(.*)", re.DOTALL)
_LONGEST_HEAD = 2 * MAX_NAME_CHARS
_MAX_DEPTH = 32
_MAX_LITERAL_CHARS = 64 * 1024


class PythonicParser:
    """Watches one answer for such calls."""

    def __init__(self) -> None:
        self._state = "start"
        """start, name, arguments, next, text, over."""
        self._opening = ""
        """The list's bracket, and what stood before it: given back unless a call follows."""
        self._held = ""
        self._has_calls = False
        self._piece = _Piece()
        self._names: set[str] = set()
        self._begun = False
        """The call has been given out; before, its head is held."""

    def feed(self, text: str) -> list[Event]:
        """Take more text of the answer."""
        events: list[Event] = []
        steps = {"start": self._at_start, "name": self._at_name, "arguments": self._in_arguments, "next": self._at_next}
        while text:
            step = steps.get(self._state)
            if step is None:
                if self._state == "over":
                    text = self._trim(text)
                if text:
                    events.append(Content(text))
                return events
            text = step(text, events)
        return events

    def finish(self) -> list[Event]:
        """The answer ends: what had not become a call is text."""
        held = self._opening + self._held
        if self._state == "arguments" and not self._begun:
            return [Content(held + self._piece.text)]
        return [Content(held)] if self._state in ("start", "name") and held and not self._has_calls else []

    def _trim(self, text: str) -> str:
        """White space at the end belongs to the form; before other text it stands."""
        text = self._held + text
        self._held = ""
        if text.strip():
            self._state = "text"
            return text
        self._held = text
        return ""

    def _at_start(self, text: str, events: list[Event]) -> str:
        self._held += text
        stripped = self._held.lstrip()
        if not stripped and len(self._held) <= MAX_HELD_CHARS:
            return ""
        if not stripped.startswith("["):
            return self._give_back()
        rest = stripped[1:]
        self._opening, self._held = self._held[: len(self._held) - len(rest)], ""
        self._state = "name"
        return rest

    def _at_name(self, text: str, events: list[Event]) -> str:
        self._held += text
        found = _CALL.match(self._held)
        if found is not None and len(found.group(1)) <= MAX_NAME_CHARS and found.end() <= _LONGEST_HEAD:
            rest, self._held = self._held[found.end() :], self._held[: found.end()]
            self._state, self._begun, self._piece, self._names = "arguments", False, _Piece(), set()
            return rest
        if found is None and len(self._held) <= _LONGEST_HEAD and _CALL_BEGUN.fullmatch(self._held):
            return ""
        return self._give_back()

    def _in_arguments(self, text: str, events: list[Event]) -> str:
        for place, character in enumerate(text):
            end = self._piece.step(character)
            if end is None:
                continue
            if not self._end_piece(end, events):
                # Not a call after all: what was not given out is text.
                return self._give_back() + self._piece.text + text[place:]
            if end == ")":
                events.append(CallArguments("}"))
                self._state = "next"
                return text[place + 1 :]
        return ""

    def _end_piece(self, end: str, events: list[Event]) -> bool:
        text = self._piece.text
        if end == "!":
            return False
        if not text.strip():
            # f() and a comma before the bracket; a comma alone is none.
            if end == ")":
                self._begin(events)
            return end == ")"
        found = _ARGUMENT.fullmatch(text)
        value = None if found is None else _literal(found.group(2))
        if found is None or value is None or found.group(1) in self._names:
            return False
        self._begin(events)
        comma = ", " if self._names else ""
        self._names.add(found.group(1))
        events.append(CallArguments(f'{comma}"{found.group(1)}": {value}'))
        self._piece = _Piece()
        return True

    def _begin(self, events: list[Event]) -> None:
        if not self._begun:
            events += [CallBegun(self._held.strip(" \t\n\r\f\v(")), CallArguments("{")]
            self._opening, self._held, self._has_calls, self._begun = "", "", True, True

    def _at_next(self, text: str, events: list[Event]) -> str:
        self._held += text
        stripped = self._held.lstrip()
        if not stripped:
            return ""
        self._held = ""
        if stripped[0] == ",":
            self._state = "name"
            return stripped[1:]
        self._state = "over"
        return stripped[1:] if stripped[0] == "]" else stripped

    def _give_back(self) -> str:
        text = self._opening + self._held
        self._opening, self._held, self._state = "", "", "text"
        return text


class _Piece:
    """Text of one argument, up to its comma or the call's bracket."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._depth = 0
        self._quote = ""
        self._escaped = False

    @property
    def text(self) -> str:
        return "".join(self._parts)

    def step(self, character: str) -> str | None:
        """Take one character; gives "," or ")" where the argument ends, "!" where it is none."""
        if self._quote:
            if self._escaped:
                self._escaped = False
            elif character == "\\":
                self._escaped = True
            elif character == self._quote:
                self._quote = ""
        elif character in "'\"":
            self._quote = character
        elif character in "([{":
            self._depth += 1
        elif character in ")]}":
            if self._depth == 0:
                return ")" if character == ")" else "!"
            self._depth -= 1
        elif character == "," and self._depth == 0:
            return ","
        if self._depth > _MAX_DEPTH or len(self._parts) >= _MAX_LITERAL_CHARS:
            return "!"
        self._parts.append(character)
        return None


def _literal(text: str) -> str | None:
    """A Python literal as JSON, or None if it is none that JSON has."""
    try:
        with warnings.catch_warnings():
            # The compiler warns of odd escapes, in words that hold the text.
            warnings.simplefilter("ignore")
            value: Any = ast.literal_eval(text.strip())
        if not _is_json(value):
            return None
        encoded = json.dumps(value, ensure_ascii=False, allow_nan=False)
        encoded.encode()
        return encoded
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError, OverflowError):
        return None


def _is_json(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_json(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(_is_json(item) for item in value)
    return value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and value - value == 0)
