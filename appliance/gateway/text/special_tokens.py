"""Which strings are control tokens, and how a user's text is kept from forging one.

A chat template mixes its own control tokens (`<|im_end|>`) with text of users into one string. Before it runs, every string
of the request that could complete such a token is broken by a *sentinel*, a noncharacter that the request does not hold.
Afterwards the result is cut at the tokens that are left, which are the template's own, and the sentinels are taken out of the
text between them, which is then tokenized by a tokenizer that knows no control tokens at all. So what a user typed reaches
the model exactly as typed, as ordinary text.

A string is broken inside each whole token, and also where it could make one together with its neighbours in the template: an
end that begins a token, a beginning that ends one, a text that is all inside one.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from appliance.gateway.text.errors import ModelFolderRefused, TextRefused
from appliance.gateway.text.model_folder import AddedToken

_NONCHARACTERS = [chr(code) for code in range(0xFDD0, 0xFDF0)]


@dataclass(frozen=True)
class Segment:
    """A part of a rendered prompt: a control token by id, or text."""

    token_id: int | None
    text: str


class SpecialTokens:
    """All tokens of a vocabulary that text is searched for as such."""

    def __init__(self, tokens: Iterable[AddedToken]) -> None:
        """Collect the tokens; those of a single character cannot be broken, and are not searched for.

        Raises: ModelFolderRefused if such a one is a control token.
        """
        found = list(tokens)
        for token in found:
            if token.special and len(token.content) < 2:
                raise ModelFolderRefused(
                    f"tokenizer.json: control token {token.id} is {token.content!r}, a single character"
                )
        ordered = sorted((token for token in found if len(token.content) > 1), key=lambda token: -len(token.content))
        self._ids = {token.content: token.id for token in ordered}
        self._pattern = re.compile("|".join(_pattern(token) for token in ordered)) if ordered else None
        self._group_ids = [token.id for token in ordered]
        self._all = tuple(token.content for token in ordered)
        self._control = tuple(token.content for token in ordered if token.special)

    def id_of(self, content: str) -> int | None:
        """Id of the token with exactly this text."""
        return self._ids.get(content)

    def split(self, rendered: str, sentinel: str) -> list[Segment]:
        """Cut trusted text at its control tokens, and take the sentinels out of the rest."""
        segments: list[Segment] = []
        start = 0
        for match in self._pattern.finditer(rendered) if self._pattern else ():
            if match.start() > start:
                segments.append(Segment(None, rendered[start : match.start()].replace(sentinel, "")))
            assert match.lastindex is not None
            segments.append(Segment(self._group_ids[match.lastindex - 1], match.group()))
            start = match.end()
        if start < len(rendered):
            segments.append(Segment(None, rendered[start:].replace(sentinel, "")))
        return [segment for segment in segments if segment.token_id is not None or segment.text]

    def break_all(self, text: str, sentinel: str) -> str:
        """Break every token in a text of a user, a tool or an operator."""
        return _break(text, self._all, sentinel)

    def break_control(self, text: str, sentinel: str) -> str:
        """Break control tokens only: in assistant messages templates look for `</think>` and the like."""
        return _break(text, self._control, sentinel)


def choose_sentinels(texts: Iterable[str]) -> tuple[str, str]:
    """Two noncharacters that none of the texts holds.

    Raises: TextRefused if they hold 31 of the 32: no honest text does.
    """
    left = list(_NONCHARACTERS)
    for text in texts:
        if not text.isascii():
            left = [candidate for candidate in left if candidate not in text]
    if len(left) < 2:
        raise TextRefused("invalid_text", "the messages hold the Unicode noncharacters of U+FDD0 to U+FDEF")
    return left[0], left[1]


def _pattern(token: AddedToken) -> str:
    body = re.escape(token.content)
    if token.single_word:
        body = rf"(?<!\w){body}(?!\w)"
    left = r"\s*" if token.lstrip else ""
    right = r"\s*" if token.rstrip else ""
    return f"({left}{body}{right})"


def _break(text: str, contents: Sequence[str], sentinel: str) -> str:
    if not text or not contents:
        return text
    for content in contents:
        if content in text:
            text = text.replace(content, content[0] + sentinel + content[1:])
    stripped = text.rstrip()
    if any(_begins(stripped, content) for content in contents):
        text = stripped + sentinel + text[len(stripped) :]
    stripped = text.lstrip()
    if any(_ends(stripped, content) for content in contents):
        text = text[: len(text) - len(stripped)] + sentinel + stripped
    return text


def _begins(text: str, content: str) -> bool:
    """Does the end of `text` begin `content`?"""
    return any(text.endswith(content[:length]) for length in range(1, len(content)))


def _ends(text: str, content: str) -> bool:
    """Does the beginning of `text` end `content`, or is all of it inside?"""
    return (bool(text) and text in content) or any(
        text.startswith(content[-length:]) for length in range(1, len(content))
    )
