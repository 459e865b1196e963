"""An answer as a row of blocks, each of one kind: reasoning, text, calls. Responses and Messages both speak so.

White space at the beginning of a block of text waits for more: alone, between calls, it is no block.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from appliance.gateway.api.content_tokens import ScoredContent
from appliance.gateway.tools.events import CallArguments, CallBegun, Content, Event, Reasoning

Kind = Literal["reasoning", "text", "call"]


@dataclass
class Block:
    """One block as far as it has come."""

    index: int
    kind: Kind
    name: str = ""
    """Of the called tool."""
    namespace: str = ""
    """That it belongs to, of the namespaces of a Responses request."""
    text: str = ""
    """Text, or arguments as JSON text."""
    is_cut: bool = False
    """The limit of tokens ended it."""
    scores: list[Any] = field(default_factory=list)
    """Of the tokens of its text, where they were asked for."""
    encrypted: str = ""
    """Of reasoning that has ended, where it was asked for."""


@dataclass(frozen=True)
class BlockEvent:
    """A block begins, grows by some text, or ends."""

    what: Literal["begin", "delta", "end"]
    block: Block
    text: str = ""
    scores: tuple[Any, ...] = ()


class BlockBuilder:
    """Makes blocks of a growing answer.

    Attributes:
        blocks: all that have begun.
    """

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self._open: Block | None = None
        self._space = ""
        self._space_scores: tuple[Any, ...] = ()

    def take(self, events: Iterable[Event]) -> list[BlockEvent]:
        """What more of the answer does to the blocks."""
        given: list[BlockEvent] = []
        for event in events:
            match event:
                case Content(text):
                    scores = event.scores if isinstance(event, ScoredContent) else ()
                    self._take_text(text, scores, given)
                case Reasoning(text):
                    self._grow("reasoning", text, given)
                case CallBegun(name):
                    self._close(given)
                    self._begin("call", name, given)
                case CallArguments(text):
                    self._grow("call", text, given)
        return given

    def finish(self, *, is_cut: bool = False) -> list[BlockEvent]:
        """The answer ends, perhaps cut by the limit of tokens; one without any block has an empty text."""
        given: list[BlockEvent] = []
        if not self.blocks:
            self._begin("text", "", given)
        if self._open is not None:
            self._open.is_cut = is_cut
        self._close(given)
        return given

    def _take_text(self, text: str, scores: tuple[Any, ...], given: list[BlockEvent]) -> None:
        if self._open is None or self._open.kind != "text":
            text, scores = self._space + text, self._space_scores + scores
            if not text.strip():
                self._space, self._space_scores = text, scores
                return
        self._grow("text", text, given, scores)

    def _grow(self, kind: Kind, text: str, given: list[BlockEvent], scores: tuple[Any, ...] = ()) -> None:
        if self._open is None or self._open.kind != kind:
            self._close(given)
            self._begin(kind, "", given)
        assert self._open is not None
        self._open.text += text
        self._open.scores += scores
        given.append(BlockEvent("delta", self._open, text, scores))

    def _begin(self, kind: Kind, name: str, given: list[BlockEvent]) -> None:
        self._space, self._space_scores = "", ()
        self._open = Block(len(self.blocks), kind, name)
        self.blocks.append(self._open)
        given.append(BlockEvent("begin", self._open))

    def _close(self, given: list[BlockEvent]) -> None:
        if self._open is not None:
            given.append(BlockEvent("end", self._open))
            self._open = None
