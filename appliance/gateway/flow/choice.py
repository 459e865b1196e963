"""One choice of an answer: token ids become text, until a stop string or the engine ends it. Step (6)."""

from collections.abc import Sequence

import msgspec

from appliance.gateway.text.detokenizer import Detokenizer
from appliance.gateway.text.stops import Progress, StopStrings
from appliance.gateway.text.vocabulary import Vocabulary
from runtime.request import Finish, TokenDelivery, TokenLogprobs


class ShownToken(msgspec.Struct, frozen=True):
    """A delivered token: where in the choice's text its characters stand, and how likely it was."""

    token_id: int
    start: int
    end: int
    logprobs: TokenLogprobs | None


class ChoiceEnd(msgspec.Struct, frozen=True):
    """How a choice ended."""

    reason: str
    """stop or length."""
    matched: str | int | None = None
    """The stop string or token that ended it."""


class Piece(msgspec.Struct):
    """What one delivery gave for one choice."""

    prompt: int
    choice: int
    text: str = ""
    token_ids: list[int] = []
    """All that came and counts, those whose text is held back or silent included."""
    logprobs: list[TokenLogprobs] = []
    """Of all of `token_ids`; only if they were asked for."""
    shown: list[ShownToken] = []
    """Tokens whose text is complete with this piece; only if logprobs were asked for."""
    end: ChoiceEnd | None = None


class ChoiceText:
    """Text of one growing choice.

    Attributes:
        num_tokens: output tokens that count: up to and with the one that completed a stop string.
        end: how it ended, None while it grows.
        cut: a stop string ended it, which the engine does not know of.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        stops: Sequence[str],
        *,
        begins_text: bool,
        gives_text: bool,
        shows_tokens: bool,
        prompt: int,
        index: int,
        min_tokens: int = 0,
    ) -> None:
        """`min_tokens`: what comes before so many belongs to no stop string."""
        self._detokenizer = Detokenizer(vocabulary, at_start=begins_text)
        self._stops = StopStrings(stops)
        self._min_tokens = min_tokens if stops else 0
        self._gives_text = gives_text
        self._shows_tokens = shows_tokens
        self._is_plain = gives_text and not shows_tokens and not stops
        """Text comes out as it goes in: nothing is held back but parts of characters, and nothing is told of single tokens."""
        self._prompt = prompt
        self._index = index
        self._num_decoded = 0
        self._num_emitted = 0
        self._incomplete: list[tuple[int, int, TokenLogprobs | None]] = []
        self._unshown: list[ShownToken] = []
        self.num_tokens = 0
        self.texts: list[str] = []
        self.end: ChoiceEnd | None = None
        self.cut = False

    def feed(self, delivery: TokenDelivery) -> Piece:
        """Take a delivery of the engine for this choice. MUST not be called after the end."""
        if self._is_plain and not delivery.logprobs:
            return self._feed_plain(delivery)
        piece = Piece(self._prompt, self._index)
        finish = delivery.finish
        if not self._gives_text:
            self.num_tokens += len(delivery.token_ids)
            self.end = piece.end = None if finish is None else ChoiceEnd("length")
            return piece
        last = len(delivery.token_ids) - 1
        for place, token_id in enumerate(delivery.token_ids):
            self.num_tokens += 1
            piece.token_ids.append(token_id)
            logprobs = delivery.logprobs[place] if delivery.logprobs else None
            if logprobs is not None:
                piece.logprobs.append(logprobs)
            if place == last and finish is not None and finish.matched_token is not None:
                break  # The token that ended it says nothing.
            if self._take(token_id, logprobs, piece):
                return piece
        if finish is not None:
            self._finish(finish, piece)
        return piece

    def _feed_plain(self, delivery: TokenDelivery) -> Piece:
        piece = Piece(self._prompt, self._index, token_ids=delivery.token_ids)
        self.num_tokens += len(delivery.token_ids)
        finish, said = delivery.finish, delivery.token_ids
        if finish is not None and finish.matched_token is not None:
            said = said[:-1]  # The token that ended it says nothing.
        text = "".join(map(self._detokenizer.feed, said))
        if finish is not None:
            text += self._detokenizer.finish()
            self.end = piece.end = ChoiceEnd(finish.reason, finish.matched_token)
        piece.text = text
        if text:
            self.texts.append(text)
        return piece

    def feed_token(self, token_id: int) -> Piece:
        """Take one token that has no logprobs and is not the last. MUST not be called after the end."""
        self.num_tokens += 1
        piece = Piece(self._prompt, self._index, token_ids=[token_id])
        if not self._is_plain:
            self._take(token_id, None, piece)
            return piece
        piece.text = self._detokenizer.feed(token_id)
        if piece.text:
            self.texts.append(piece.text)
        return piece

    def _take(self, token_id: int, logprobs: TokenLogprobs | None, piece: Piece) -> bool:
        """Add one token; True if a stop string ended the choice."""
        self._hold(token_id, logprobs)
        return self._emit(self._detokenizer.feed(token_id), piece)

    def _hold(self, token_id: int, logprobs: TokenLogprobs | None) -> None:
        if self._shows_tokens:
            self._incomplete.append((token_id, self._num_decoded, logprobs))

    def _complete(self, text: str) -> None:
        """Text came: the tokens since the last are all part of it, as a character may take several."""
        self._num_decoded += len(text)
        if not self._shows_tokens:
            return
        self._unshown += [
            ShownToken(token, start, self._num_decoded, logprobs) for token, start, logprobs in self._incomplete
        ]
        self._incomplete.clear()

    def _emit(self, text: str, piece: Piece) -> bool:
        if text:
            self._complete(text)
        progress = Progress(text) if self.num_tokens < self._min_tokens else self._stops.feed(text)
        self._show(progress.text, piece, is_end=progress.matched is not None)
        if progress.matched is not None:
            self.end = piece.end = ChoiceEnd("stop", progress.matched)
            self.cut = True
        return self.cut

    def _finish(self, finish: Finish, piece: Piece) -> None:
        if self._emit(self._detokenizer.finish(), piece):
            return
        self._complete("")
        self._show(self._stops.finish(), piece, is_end=True)
        self.end = piece.end = ChoiceEnd(finish.reason, finish.matched_token)

    def _show(self, text: str, piece: Piece, *, is_end: bool) -> None:
        if text:
            piece.text += text
            self.texts.append(text)
        self._num_emitted += len(text)
        if not self._shows_tokens:
            return
        # At the end a token counts as shown if any of its text is; those beyond a stop string's beginning are not.
        shown = [
            token
            for token in self._unshown
            if token.end <= self._num_emitted or (is_end and token.start < self._num_emitted)
        ]
        del self._unshown[: len(shown)]
        piece.shown += shown
