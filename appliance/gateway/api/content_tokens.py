"""Which tokens the content of an answer is made of, where it is read for reasoning and calls as well.

Parsers give texts, and drop marks and white space between them; so what is given is looked for in what was fed. The answer is fed
token by token here, and what is content then ends with the token just fed, or with one that was held back before it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from appliance.gateway.flow.choice import Piece, ShownToken
from appliance.gateway.tools.events import Content, Event


@dataclass(frozen=True, slots=True)
class ScoredContent(Content):
    """Content with how likely its tokens were."""

    scores: tuple[Any, ...] = ()


class ContentTokens:
    """Of one choice, fed in order."""

    def __init__(self, word: Callable[[ShownToken], Any]) -> None:
        """`word` makes a score of a token."""
        self._word = word
        self._text = ""
        """Fed, and not known to be anything."""
        self._start = 0
        """Where that begins in the choice's text."""
        self._tokens: list[ShownToken] = []

    def slices(self, piece: Piece) -> Iterable[tuple[str, list[ShownToken]]]:
        """The piece's text, cut where tokens end. Those of one character are together."""
        begin = self._start + len(self._text)
        slices: list[tuple[str, list[ShownToken]]] = []
        at = 0
        for token in piece.shown:
            end = min(max(token.end - begin, at), len(piece.text))
            if end > at or not slices:
                slices.append((piece.text[at:end], []))
                at = end
            slices[-1][1].append(token)
        return [*slices, (piece.text[at:], [])] if at < len(piece.text) else slices

    def score(self, events: list[Event], text: str = "", tokens: Iterable[ShownToken] = ()) -> list[Event]:
        """The events that a slice led to, with the tokens of their content."""
        self._text += text
        self._tokens += tokens
        contents = [event for event in events if isinstance(event, Content)]
        if not contents:
            if events:
                self._forget(len(self._text))
            return events
        spoken = "".join(content.text for content in contents)
        at = _place(self._text, spoken)
        low, high = self._start + at, self._start + at + len(spoken)
        spoke = [token for token in self._tokens if token.start < high and token.end > low]
        scores = tuple(self._word(token) for token in spoke if token.logprobs is not None)
        self._forget(at + len(spoken))
        first = contents[0]
        return [ScoredContent(event.text, scores) if event is first else event for event in events]

    def _forget(self, num_chars: int) -> None:
        self._start += min(num_chars, len(self._text))
        self._text = self._text[num_chars:]
        self._tokens = [token for token in self._tokens if token.start >= self._start]


def _place(text: str, spoken: str) -> int:
    """Where it stands: at the end, at the beginning where the end is held back, else behind what was dropped."""
    if text.endswith(spoken):
        return len(text) - len(spoken)
    return 0 if text.startswith(spoken) else max(text.rfind(spoken), 0)
