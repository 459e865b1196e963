"""One text along a grammar: what may come next, what came, and back again.

It is xgrammar's matcher, which takes any token that its mask allows, and what `text_bounds` knows better near the end of a bounded
text. No clock is here: `matching` bounds what an answer's steps may cost, `walking` looks at single ones.
"""

import re
from typing import Any

import numpy as np

from runtime.batch import Int32
from runtime.structured.bounds import MAX_WHITESPACE, WHITESPACE_MARK
from runtime.structured.text_bounds import NEAR_CHARS, Tail, TextTokens

_PLACE = re.compile(
    r"rule_id=(-?\d+), sequence_id=-?\d+, element_id=(-?\d+), rule_start_pos=(-?\d+), sub_element_id=(\d+)"
)

Place = tuple[int, int, int]
"""Where in a grammar a text stands: a rule, a state of its automaton, and bytes of a character that have come."""


class Follower:
    """Follows one text."""

    def __init__(self, matcher: Any, marked: TextTokens | None) -> None:
        """
        Args:
            matcher: see `library.new_matcher`.
            marked: the vocabulary's text, where the grammar has the marks of `bounds`.
        """
        self._matcher = matcher
        self._tokens = marked
        self._tails = [Tail()]

    def advance(self, token: int) -> bool:
        """Take one more token; False, and nothing is taken, where it may not come."""
        if not self._matcher.accept_token(token, False):
            return False
        if self._tokens is not None:
            self._tails.append(
                self._tails[-1].after(self._tokens.table[token] if token < len(self._tokens.table) else b"")
            )
        return True

    def take_back(self, count: int) -> None:
        """The last tokens were none."""
        self._matcher.rollback(count)
        if self._tokens is not None:
            del self._tails[-count:]

    def write(self, mask: Int32) -> None:
        """Write what may come next.

        Args:
            mask: [ceil(vocab_size / 32)] int32, packed, lowest bit first, all zeros before.
        Raises: RuntimeError behind the end of the text.
        """
        mark, tail = self._matcher.temperature() if self._tokens is not None else None, self._tails[-1]
        left = int(mark) - tail.text_chars if mark is not None and mark != WHITESPACE_MARK else 0
        if 0 < left <= NEAR_CHARS and not tail.num_missing:
            self._write_near(mask, left)
            return
        self._matcher.fill_next_token_bitmask(mask[None, :], 0, False)
        if mark == WHITESPACE_MARK and tail.num_white >= MAX_WHITESPACE:
            assert self._tokens is not None
            other = mask & self._tokens.not_white
            if other.any():
                mask[:] = other

    def places(self) -> str:
        """Where the text stands, in the library's words: the same words for the same places. `read_places` reads them."""
        return str(self._matcher._debug_print_internal_state())

    def places_after(self, token: int) -> str:
        """Where it would stand behind one more token; empty where that may not come."""
        if not self._matcher.accept_token(token, False):
            return ""
        places = self.places()
        self._matcher.rollback(1)
        return places

    def forced(self) -> bytes:
        """What must come next, whatever is chosen."""
        try:
            return str(self._matcher.find_jump_forward_string()).encode()
        except UnicodeDecodeError:
            return b""

    def _write_near(self, mask: Int32, left: int) -> None:
        """Inside text that may have so many characters more."""
        assert self._tokens is not None
        mask |= self._tokens.short[left]
        words = mask.view(np.uint32)
        for group in self._tokens.endings:
            for length, token in group:
                if length > left or not self._matcher.accept_token(token, False):
                    break
                self._matcher.rollback(1)
                words[token // 32] |= np.uint32(1 << token % 32)


def read_places(places: str) -> tuple[set[Place], int]:
    """All places where a text stands at once, and at which of its bytes the latest of those rules began that it is in."""
    found = _PLACE.findall(places)
    read = {(int(rule), int(state), int(part)) for rule, state, _, part in found}
    return read, max((int(start) for _, _, start, _ in found), default=-1)
