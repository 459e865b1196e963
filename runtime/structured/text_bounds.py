"""Where a text is near a bound, and which tokens may come there.

xgrammar tries every token that is longer than what is left of a budget, up to a tenth of a second for the last characters of each
text. Inside bounded text of JSON there is no need: what shows no quotation mark fits if it is short enough, and of what shows
one only those tokens are tried that would end the text as its end is written. The result is a part of xgrammar's mask, and all
of it where only one bounded text is open; a matcher's answer to a token is xgrammar's in any case.
"""

import codecs
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from runtime.batch import Int32

NEAR_CHARS = 24
"""Fewer characters than this are left: from there on xgrammar's own way costs many milliseconds."""
_SPACE = b" \n\r\t"
_UNSHOWN = re.compile(rb'[\x00-\x1f"\\]')
_CONTINUING = bytes(range(0x80, 0xC0))
"""Bytes that go on with a character (RFC 3629)."""


class TextTokens:
    """One vocabulary's tokens, as text of JSON may be made of them."""

    def __init__(self, table: Sequence[bytes], num_words: int) -> None:
        self.table = table
        endings: dict[bytes, list[tuple[int, int]]] = defaultdict(list)
        short: list[list[int]] = [[] for _ in range(NEAR_CHARS + 1)]
        white = []
        for token, content in enumerate(table):
            if content[:1] and content[0] in _SPACE:
                white.append(token)
            begin, mark, _ = content.partition(b'"')
            length = num_chars(begin)
            if length > NEAR_CHARS or not _is_text(begin, may_be_cut=not mark):
                continue
            if mark:
                endings[content[len(begin) :]].append((length, token))
            elif content:
                short[length].append(token)
        self.endings = [sorted(group) for group in endings.values()]
        """Tokens that end a text, those of one ending together: how many characters each has before it, and the token."""
        self.not_white = ~_packed(white, num_words)
        """[num_words] int32: tokens that do not begin with white space."""
        self.short = [np.zeros(num_words, np.int32)]
        """[num_words] int32 by a number of characters: what is text of at most so many."""
        for tokens in short[1:]:
            self.short.append(self.short[-1] | _packed(tokens, num_words))


@dataclass(frozen=True, slots=True)
class Tail:
    """How what was written ends.

    Attributes:
        text_chars: characters (code points) since the last quotation mark, one that is cut included.
        num_white: bytes of white space at the end.
        num_missing: bytes that the last character lacks.
    """

    text_chars: int = 0
    num_white: int = 0
    num_missing: int = 0

    def after(self, content: bytes) -> "Tail":
        """With one more token."""
        text = content[content.rfind(b'"') + 1 :]
        chars = num_chars(text) + (self.text_chars if len(text) == len(content) else 0)
        num_white = len(content) - len(content.rstrip(_SPACE))
        white = num_white + (self.num_white if num_white == len(content) else 0)
        return Tail(chars, white, _missing(content, self.num_missing))


def num_chars(content: bytes) -> int:
    """Code points that begin in it."""
    return len(content.translate(None, _CONTINUING))


def _missing(content: bytes, before: int) -> int:
    for place in range(len(content) - 1, max(-1, len(content) - 5), -1):
        lead = content[place]
        if lead & 0xC0 != 0x80:
            length = 1 if lead < 0xC0 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
            return max(0, length - (len(content) - place))
    return max(0, before - len(content))


def _is_text(content: bytes, *, may_be_cut: bool) -> bool:
    """UTF-8 that a string of JSON shows as itself, from the beginning of a character on."""
    if _UNSHOWN.search(content):
        return False
    try:
        codecs.utf_8_decode(content, "strict", not may_be_cut)
    except UnicodeDecodeError:
        return False
    return True


def _packed(tokens: list[int], num_words: int) -> Int32:
    bits = np.zeros(num_words * 32, np.uint8)
    bits[tokens] = 1
    return np.packbits(bits, bitorder="little").view(np.int32)
