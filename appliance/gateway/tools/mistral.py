"""Mistral's forms: `[TOOL_CALLS][{"name": …, "arguments": {…}}, …]`, and since its tokenizer 11 `[TOOL_CALLS]name[ARGS]{…}`.

The later one also without `[ARGS]`, and before it with `[CALL_ID]` and an id of the model's, which is dropped: ids are ours.
Source: mistral-common, instruct tokenizers of versions 3 to 13.
"""

import re

from appliance.gateway.tools.events import MAX_HELD_CHARS, MAX_NAME_CHARS, CallBegun, Content, Event
from appliance.gateway.tools.json_call import JsonArguments, JsonCall
from appliance.gateway.tools.marked import Expected, Outside

MARK, ARGS, CALL_ID = "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"
_LONGEST_HEAD = 2 * MAX_NAME_CHARS


def _begun(mark: str) -> str:
    """A pattern for a mark as far as it has come, nothing included."""
    pattern = ""
    for character in reversed(mark):
        pattern = f"(?:{re.escape(character)}{pattern})?"
    return pattern


_SPACE, _ID = r"[ \t\n\r]*", r"[A-Za-z0-9_-]"
_NAME = re.compile(rf"([A-Za-z0-9_.-]+){_SPACE}(?:\[CALL_ID\]{_ID}{{1,64}}{_SPACE})?(?:\[ARGS\])?{_SPACE}(?=\{{)")
_NAME_BEGUN = re.compile(
    rf"[A-Za-z0-9_.-]*{_SPACE}(?:{_begun(CALL_ID)}|(?:\[CALL_ID\]{_ID}{{1,64}}{_SPACE})?(?:{_begun(ARGS)}|\[ARGS\]{_SPACE}))"
)


class MistralParser:
    """Watches one answer for such calls."""

    def __init__(self) -> None:
        self._outside = Outside([MARK])
        self._state = "outside"
        """outside, form (after the mark), call and next (in a list), arguments (after a name)."""
        self._held = ""
        self._call = JsonCall()
        self._next = Expected()
        self._arguments = JsonArguments()
        self._has_calls = False

    def feed(self, text: str) -> list[Event]:
        """Take more text of the answer."""
        events: list[Event] = []
        steps = {
            "outside": self._in_text,
            "form": self._at_form,
            "call": self._in_call,
            "next": self._at_next,
            "arguments": self._in_arguments,
        }
        while text:
            text = steps[self._state](text, events)
        return events

    def finish(self) -> list[Event]:
        """The answer ends: what had not become a call is text."""
        if self._state == "outside":
            return self._outside.finish()
        if self._state == "form":
            return [Content(MARK + self._held)]
        if self._state == "call" and not self._call.begun and not self._has_calls:
            return [Content(self._prefix + self._call.raw)]
        return []

    @property
    def _prefix(self) -> str:
        """What stood before an object that is no call: given back, unless calls came out of the list before it."""
        return "" if self._has_calls else MARK + self._held

    def _in_text(self, text: str, events: list[Event]) -> str:
        given, rest = self._outside.feed(text)
        events += given
        if self._outside.matched is not None:
            self._state, self._held, self._has_calls = "form", "", False
        return rest

    def _at_form(self, text: str, events: list[Event]) -> str:
        self._held += text
        stripped = self._held.lstrip()
        if stripped.startswith("["):
            rest = stripped[1:]
            self._held = self._held[: len(self._held) - len(rest)]
            self._state, self._call = "call", JsonCall()
            return rest
        named = _NAME.match(stripped)
        if named is not None and len(named.group(1)) <= MAX_NAME_CHARS and named.end() <= _LONGEST_HEAD:
            events.append(CallBegun(named.group(1)))
            self._state, self._arguments = "arguments", JsonArguments()
            return stripped[named.end() :]
        if len(self._held) <= MAX_HELD_CHARS and len(stripped) <= _LONGEST_HEAD and _NAME_BEGUN.fullmatch(stripped):
            return ""
        return self._give_back(MARK, self._held, events)

    def _in_call(self, text: str, events: list[Event]) -> str:
        given, rest = self._call.feed(text)
        events += given
        if self._call.done:
            self._state, self._next, self._has_calls = "next", Expected(",", "]"), True
        elif self._call.failed:
            if self._call.begun:
                return self._leave(rest)
            return self._give_back(self._prefix + self._call.raw, rest, events)
        return rest

    def _at_next(self, text: str, events: list[Event]) -> str:
        found, rest, is_other = self._next.feed(text)
        if found == ",":
            self._state, self._call = "call", JsonCall()
        elif found is not None or is_other:
            return self._leave(rest)
        return rest

    def _in_arguments(self, text: str, events: list[Event]) -> str:
        rest = self._arguments.feed(text)
        events += self._arguments.take()
        return self._leave(rest) if self._arguments.done or self._arguments.failed else rest

    def _leave(self, rest: str) -> str:
        self._state = "outside"
        self._outside.after_call()
        return rest

    def _give_back(self, raw: str, rest: str, events: list[Event]) -> str:
        self._state = "outside"
        self._outside.after_text()
        events.append(Content(raw))
        return rest
