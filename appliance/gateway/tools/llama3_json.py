"""Llama 3's form: the answer is `{"name": …, "parameters": {…}}`, perhaps after `<|python_tag|>`; several are set apart by `;`.

An answer that begins otherwise is text, up to that mark if it comes, and so is an object without parameters: nothing else tells
a call from an answer in JSON. Source: Llama 3.1 model card, "JSON based tool calling".
"""

from appliance.gateway.tools.events import Content, Event
from appliance.gateway.tools.json_call import JsonCall
from appliance.gateway.tools.marked import Expected, Outside

TAG = "<|python_tag|>"


class Llama3JsonParser:
    """Watches one answer for such calls."""

    def __init__(self) -> None:
        self._expected: Expected | None = Expected(TAG, "{")
        self._call: JsonCall | None = None
        self._text = Outside([TAG])
        self._given_back = ""
        self._has_calls = False

    def feed(self, text: str) -> list[Event]:
        """Take more text of the answer."""
        events: list[Event] = []
        while text:
            if self._call is not None:
                given, text = self._call.feed(text)
                events += given
                self._after_call(self._call, events)
            elif self._expected is not None:
                text = self._before_call(self._expected, text, events)
            else:
                given, text = self._text.feed(text)
                events += given
                if self._text.matched is not None:
                    self._given_back, self._expected = TAG, Expected(TAG, "{")
        return events

    def finish(self) -> list[Event]:
        """The answer ends: a call that had not begun is text."""
        if self._call is not None and not self._call.begun:
            return [Content(self._given_back + self._call.raw)]
        if self._expected is not None:
            held = self._given_back + self._expected.held
            return [Content(held)] if held and not self._has_calls else []
        return self._text.finish() if self._call is None else []

    def _before_call(self, expected: Expected, text: str, events: list[Event]) -> str:
        found, rest, is_other = expected.feed(text)
        if is_other:
            self._expected = None
            if self._given_back:
                events.append(Content(self._take_given_back()))
            return rest
        if found is None:
            return ""
        self._given_back += expected.held[: len(expected.held) - len(rest)]
        if found == "{":
            self._given_back = self._given_back[:-1]
            self._expected, self._call = None, JsonCall(needs_arguments=True)
            return "{" + rest
        self._expected = Expected(TAG, "{") if found == TAG or self._has_calls else None
        return rest

    def _after_call(self, call: JsonCall, events: list[Event]) -> None:
        if call.done:
            self._call, self._has_calls, self._given_back = None, True, ""
            self._expected = Expected(";", TAG, "{")
        elif call.failed:
            self._call = None
            if not call.begun:
                events.append(Content(self._take_given_back() + call.raw))

    def _take_given_back(self) -> str:
        text, self._given_back = self._given_back, ""
        return text
