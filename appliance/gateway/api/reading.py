"""An answer's choices read by the model's forms: reasoning, calls and text, with the count of reasoning tokens.

Shared by all APIs that speak of messages; each words the events in its own way.
"""

from collections.abc import Callable, Sequence
from typing import Any

from appliance.gateway.api.content_tokens import ContentTokens
from appliance.gateway.flow.choice import Piece, ShownToken
from appliance.gateway.models import ServedModel
from appliance.gateway.text.detokenizer import detokenize
from appliance.gateway.text.vocabulary import Vocabulary
from appliance.gateway.tools import reasoning
from appliance.gateway.tools.events import Event, PlainText
from appliance.gateway.tools.reader import AnswerReader
from appliance.gateway.tools.reasoning import ReasoningParser

_TAIL_TOKENS = 16


class ChatReading:
    """Reads all choices of one answer.

    Attributes:
        reasoning_tokens: of all choices so far; None for models that do not reason.
        finish_reasons: of the choices that have ended, in the order in which they did.
    """

    def __init__(
        self,
        model: ServedModel,
        prompt: Sequence[int],
        n: int,
        *,
        has_tools: bool,
        parallel: bool,
        score: Callable[[ShownToken], Any] | None = None,
    ) -> None:
        """
        Args:
            has_tools: the model was told of tools.
            parallel: it may call several at once.
            score: content comes as `ScoredContent`, with this of its tokens.
        """
        self._vocabulary = model.tokenizer.vocabulary
        self._end_id = model.tokenizer.special.id_of(reasoning.END)
        self.forms = model.forms
        reasons = self.forms.reasoning != "none"
        is_open = reasons and opens_reasoning(self._vocabulary, prompt)
        self._readers = [
            AnswerReader(
                self.forms.new_call_parser() if has_tools else PlainText(),
                ReasoningParser(is_open=is_open) if reasons else None,
                max_calls=None if parallel else 1,
            )
            for _ in range(n)
        ]
        self._contents = [ContentTokens(score) for _ in range(n)] if score is not None else None
        self.reasoning_tokens = 0 if reasons else None
        self.finish_reasons: list[str] = []

    def read(self, piece: Piece) -> list[Event]:
        """The events of one piece of one choice."""
        reader = self._readers[piece.choice]
        was_reasoning = reader.is_reasoning
        events = (
            reader.feed(piece.text) if self._contents is None else self._scored(piece, self._contents[piece.choice])
        )
        if self.reasoning_tokens is not None and (was_reasoning or reader.is_reasoning):
            self.reasoning_tokens += self._num_reasoning(piece.token_ids)
        if piece.end is None:
            return events
        last = reader.finish()
        self.finish_reasons.append(self.reason(piece))
        return events + (last if self._contents is None else self._contents[piece.choice].score(last))

    def _scored(self, piece: Piece, contents: ContentTokens) -> list[Event]:
        reader = self._readers[piece.choice]
        events: list[Event] = []
        for text, tokens in contents.slices(piece):
            events += contents.score(reader.feed(text), text, tokens)
        return events

    def reason(self, piece: Piece) -> str:
        """`finish_reason` of a choice's last piece, after `read`."""
        assert piece.end is not None
        called = self._readers[piece.choice].num_calls and piece.end.reason == "stop"
        return "tool_calls" if called else piece.end.reason

    def _num_reasoning(self, token_ids: list[int]) -> int:
        """Tokens up to the end mark, if it is among them."""
        return token_ids.index(self._end_id) + 1 if self._end_id in token_ids else len(token_ids)


def opens_reasoning(vocabulary: Vocabulary, prompt: Sequence[int]) -> bool:
    """Does the prompt end with an open mark of reasoning?"""
    return detokenize(vocabulary, prompt[-_TAIL_TOKENS:]).rstrip().endswith(reasoning.BEGIN)
