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
        self._all = _Breaker([token.content for token in ordered])
        self._control = _Breaker([token.content for token in ordered if token.special])

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
        return self._all.break_in(text, sentinel)

    def break_control(self, text: str, sentinel: str) -> str:
        """Break control tokens only: in assistant messages templates look for `</think>` and the like."""
        return self._control.break_in(text, sentinel)


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


class _Breaker:
    """Breaks some tokens in texts. A request may have a hundred thousand texts and a vocabulary hundreds of tokens, so each text is
    looked at by a few searches that know all tokens, and nearly all texts are done with the first."""

    def __init__(self, contents: Sequence[str]) -> None:
        self._contents = tuple(contents)
        ends = "".join(content[0] + content[-1] for content in contents)
        self._suspect = re.compile(f"[{re.escape(ends)}]") if contents else None
        self._whole = re.compile("|".join(map(re.escape, contents)))
        self._inside = "\0".join(contents)
        self._lengths = range(1, max(map(len, contents), default=1))
        self._heads = {content[:length] for content in contents for length in range(1, len(content))}
        self._tails = {content[-length:] for content in contents for length in range(1, len(content))}

    def break_in(self, text: str, sentinel: str) -> str:
        """The text, in which no token is whole, and which makes none with its neighbours."""
        if self._suspect is None or not text:
            return text
        if self._suspect.search(text) is None and not self._is_inside(text.lstrip()):
            return text
        if self._whole.search(text) is not None:
            for content in self._contents:
                text = text.replace(content, content[0] + sentinel + content[1:])
        stripped = text.rstrip()
        if any(stripped[-length:] in self._heads for length in self._lengths):
            text = stripped + sentinel + text[len(stripped) :]
        stripped = text.lstrip()
        if any(stripped[:length] in self._tails for length in self._lengths) or self._is_inside(stripped):
            text = text[: len(text) - len(stripped)] + sentinel + stripped
        return text

    def _is_inside(self, text: str) -> bool:
        """Is all of the text a part of a token?"""
        return bool(text) and text in self._inside and any(text in content for content in self._contents)
