"""What parsers give, in the order in which it stands in the answer."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

MAX_HELD_CHARS = 256 * 1024
"""Most text that a parser holds back: beyond, what looked like the beginning of a call is text."""
MAX_NAME_CHARS = 128


@dataclass(frozen=True, slots=True)
class Content:
    """Text for the reader."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """Text that the model wrote to itself."""

    text: str


@dataclass(frozen=True, slots=True)
class CallBegun:
    """A call of this tool begins; its arguments follow."""

    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """More of the arguments of the call that began last, as JSON text."""

    text: str


Event = Content | Reasoning | CallBegun | CallArguments


class CallParser(Protocol):
    """Watches one answer for tool calls in one form."""

    def feed(self, text: str) -> list[Event]:
        """Take more text of the answer."""
        ...

    def finish(self) -> list[Event]:
        """The answer ends: what was held back."""
        ...


class PlainText:
    """The form of models that write no calls."""

    def feed(self, text: str) -> list[Event]:
        """All is content."""
        return [Content(text)] if text else []

    def finish(self) -> list[Event]:
        """Nothing was held back."""
        return []


@dataclass(frozen=True)
class Call:
    """A whole call."""

    name: str
    arguments: str


@dataclass(frozen=True)
class Parsed:
    """A whole answer, sorted."""

    content: str
    reasoning: str
    calls: tuple[Call, ...]


def gather(events: Iterable[Event]) -> Parsed:
    """Put the pieces of an answer together."""
    content: list[str] = []
    reasoning: list[str] = []
    calls: list[tuple[str, list[str]]] = []
    for event in events:
        match event:
            case Content(text):
                content.append(text)
            case Reasoning(text):
                reasoning.append(text)
            case CallBegun(name):
                calls.append((name, []))
            case CallArguments(text):
                calls[-1][1].append(text)
    joined = tuple(Call(name, "".join(parts)) for name, parts in calls)
    return Parsed("".join(content), "".join(reasoning), joined)
