"""A walk through a grammar before anybody's answer follows it: one with a slow step is refused while it costs only its sender.

How long a mask takes is not seen in a grammar, and cannot be stopped in an engine: `(((={0,9}){0,9}b?){0,9}){0,9}` is a few
kilobytes, and where the vocabulary has tokens of many equal signs, one mask of such a grammar takes minutes. So the compiler's
child, which the kernel ends, follows each grammar as an engine would, and measures every step in processor time, twice if it was
long.

The walk goes where it has not been: at each place it tries which token leads into a part of the grammar that it has not seen, goes
there, and comes back for the others. Where all is known it goes where it was least often, and makes for the end of the innermost
rule, as what is used twice is behind it. At each new place it also dives: the same long run of one character again and again, and
a few characters in turn, which is what makes a text readable in ever more ways. It is the same walk each time, but for where its
time ends.

A walk proves nothing of places that it does not reach in its time. There a choice's allowance (`matching`) ends it after the step.
"""

import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.batch import Int32
from runtime.errors import RequestRejected
from runtime.structured.compiler import compile_structure
from runtime.structured.following import Place, read_places
from runtime.structured.matching import Grammars
from runtime.structured.vocabulary import GrammarVocabulary

SLOW_STEP_S = 0.25
"""Processor time of one mask or token; ordinary ones take less than a millisecond, and long runs of any character 60."""
WALK_S = 0.5
"""Processor time of a walk; most have been everywhere before."""
MOST_COUNTED_S = 0.05
"""Of one step, so that a slow beginning does not end the walk before what is behind it."""
MOST_KNOWN_STEPS = 24
"""Through parts that are known, before the walk turns back."""
LAST_KNOWN_STEPS = 256
"""The same when there is nothing left to turn back to: once more from the beginning, for what is behind many known parts."""
MOST_TRIED = 32
"""Tokens that are tried for a way out of what is known."""
DIVE_STEPS = 24
DIVE_BYTES = 320
_CLOSING = frozenset(bytes([byte]) for byte in b"\"'`}])>,;:. \n")
"""What often ends a part of a text."""


@dataclass(frozen=True)
class StepTokens:
    """Those of a vocabulary that a walk takes.

    Attributes:
        ways: [at most 256] int64: for each first byte the shortest token.
        runs: [at most 256] int64: for each byte the longest token of nothing else, the longest first.
        of_byte: the token of a byte alone.
    """

    ways: NDArray[np.int64]
    runs: NDArray[np.int64]
    of_byte: dict[int, int]

    @classmethod
    def of(cls, table: Sequence[bytes]) -> "StepTokens":
        """Those of a vocabulary, given as bytes by token id."""
        ways: dict[int, int] = {}
        runs: dict[int, int] = {}
        for token, content in enumerate(table):
            if not content:
                continue
            first = content[0]
            if first not in ways or len(content) < len(table[ways[first]]):
                ways[first] = token
            if content.count(first) == len(content) and (first not in runs or len(content) > len(table[runs[first]])):
                runs[first] = token
        longest = sorted(runs.values(), key=lambda token: (-len(table[token]), token))
        of_byte = {first: token for first, token in ways.items() if len(table[token]) == 1}
        return cls(np.array(sorted(ways.values()), np.int64), np.array(longest, np.int64), of_byte)


class Walker:
    """Compiles for one vocabulary. What it needs of that is made once, and whoever forks has it."""

    def __init__(self, vocabulary: GrammarVocabulary) -> None:
        self._grammars = Grammars(vocabulary)
        self._tokens = StepTokens.of(vocabulary.table)

    def compile(self, structure: str, max_bytes: int) -> bytes:
        """A grammar of an untrusted structure, see `compile_structure`, no step of which was slow on a walk.

        One of more than `max_bytes` is not walked through: no engine gets it.
        Raises: RequestRejected.
        """
        grammar = compile_structure(self._grammars.vocabulary, structure)
        if len(grammar) <= max_bytes:
            _Walk(self._grammars, self._tokens, grammar).go()
        return grammar


class _Walk:
    def __init__(self, grammars: Grammars, tokens: StepTokens, grammar: bytes) -> None:
        self._ends_at = time.process_time() + WALK_S
        """Later where steps were longer than what counts of them."""
        self._follower = grammars.follower(grammar)
        self._mask = np.zeros(grammars.num_words, np.int32)
        self._tokens = tokens
        self._table = grammars.vocabulary.table
        self._draw = random.Random(0)  # noqa: S311 - the same walk each time
        self._num_steps = 0
        self._seen: set[Place] = set()
        self._visits: Counter[frozenset[Place]] = Counter()
        self._branches: list[tuple[int, int, set[Place]]] = []
        """Where a way was not taken: behind how many tokens, by which, and where it leads."""

    def go(self) -> None:
        """Raises: RequestRejected for a slow step."""
        self._seen |= read_places(self._follower.places())[0]
        num_known, most_known = 0, MOST_KNOWN_STEPS
        is_new = True
        while time.process_time() < self._ends_at:
            self._skip()
            ways = self._ways()
            if is_new:
                self._dive(ways)
            num_known = 0 if is_new else num_known + 1
            if ways and num_known < most_known:
                is_new = self._step(ways, is_new=is_new)
            elif self._turn_back():
                is_new = True
            elif most_known == MOST_KNOWN_STEPS and self._num_steps:
                most_known, num_known, is_new = LAST_KNOWN_STEPS, 0, False
                self._take_back(self._num_steps)
            else:
                return

    def _skip(self) -> None:
        """Take what must come: names of members and the like, where one mask is as the next."""
        for byte in self._follower.forced():
            if byte not in self._tokens.of_byte or not self._advance(self._tokens.of_byte[byte]):
                return

    def _ways(self) -> list[int]:
        """Tokens that may come next, one for each first byte."""
        return _among(self._tokens.ways, self._mask) if self._fill() else []

    def _step(self, ways: list[int], *, is_new: bool) -> bool:
        """Go on by one of them; whether that is new."""
        if not is_new and len(ways) > MOST_TRIED:
            ways = self._draw.sample(ways, MOST_TRIED) + [token for token in ways if self._table[token] in _CLOSING]
        ways_to: dict[str, int] = {}
        for token in ways:
            ways_to.setdefault(self._follower.places_after(token), token)
        ways_to.pop("", None)
        known: list[tuple[int, int, int]] = []
        new: list[tuple[int, int, set[Place]]] = []
        for words, token in ways_to.items():
            places, latest = read_places(words)
            known.append((self._visits[frozenset(places)], latest, token))
            if not places <= self._seen:
                new.append((self._num_steps, token, places))
        if new:
            self._branches += reversed(new)
            return self._turn_back()
        if known:
            least = min(known)[:2]
            self._advance(self._draw.choice([token for *order, token in known if tuple(order) == least]))
            self._visits[frozenset(read_places(self._follower.places())[0])] += 1
        return False

    def _turn_back(self) -> bool:
        """Take the last way that was not taken and still leads to something new; whether there is one."""
        while self._branches:
            num_steps, token, places = self._branches.pop()
            if places <= self._seen:
                continue
            if num_steps < self._num_steps:
                self._take_back(self._num_steps - num_steps)
            if self._advance(token):
                self._seen |= places
                self._visits[frozenset(places)] += 1
                return True
        return False

    def _dive(self, ways: list[int]) -> None:
        """What a text of few characters, again and again, costs from here; the walk stands where it stood afterwards."""
        runs = _among(self._tokens.runs, self._mask)
        few = self._draw.sample(ways, min(4, len(ways)))
        for tokens in (runs[:1], few):
            self._follow_again(tokens)

    def _follow_again(self, tokens: list[int]) -> None:
        before, size, place = self._num_steps, 0, 0
        while tokens and self._num_steps < before + DIVE_STEPS and size < DIVE_BYTES and place < 2 * DIVE_STEPS:
            token = tokens[place % len(tokens)]
            place += 1
            if self._advance(token):
                size += len(self._table[token])
            elif len(tokens) == 1:
                break
        if self._num_steps > before + 1:
            self._fill()
        if self._num_steps > before:
            self._take_back(self._num_steps - before)

    def _fill(self) -> bool:
        """The mask of what may come next; False behind the end."""
        for last in (False, True):
            started = time.process_time()
            self._mask[:] = 0
            try:
                self._follower.write(self._mask)
            except RuntimeError:
                return False
            if not self._is_slow(started, last):
                break
        return True

    def _advance(self, token: int) -> bool:
        for last in (False, True):
            started = time.process_time()
            if not self._follower.advance(token):
                return False
            if not self._is_slow(started, last):
                break
            self._follower.take_back(1)
        self._num_steps += 1
        return True

    def _take_back(self, count: int) -> None:
        self._follower.take_back(count)
        self._num_steps -= count

    def _is_slow(self, started: float, last: bool) -> bool:
        """Whether a step must be measured again. Raises: RequestRejected if it was."""
        taken_s = time.process_time() - started
        self._ends_at += max(0.0, taken_s - MOST_COUNTED_S)
        if taken_s < SLOW_STEP_S:
            return False
        if last:
            message = (
                f"a token of it takes longer than {SLOW_STEP_S:g} s to follow:"
                " repeat less of what may be empty or may be read in several ways"
            )
            raise RequestRejected("grammar_too_slow", message)
        return True


def _among(tokens: NDArray[np.int64], mask: Int32) -> list[int]:
    """Those that a mask allows, in their order."""
    found: list[int] = tokens[(mask[tokens >> 5] >> (tokens & 31) & 1).astype(bool)].tolist()
    return found
