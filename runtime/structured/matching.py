"""Grammars at work: which tokens may come next in one choice, as masks for the sampler.

A matcher is told every token of its choice and fills a mask before each. Both are bounded by a clock, as a grammar from
anybody may be slow to follow: one that is gives up, and its choice ends with an error before it costs others much time.
The clock is the thread's own: on a busy machine a step waits for a processor now and then, and that is no grammar's fault.
That clock runs on while a hypervisor has the processor, so what is bounded is a choice's sum, not a step.
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Collection

from runtime.batch import Int32
from runtime.errors import RequestRejected
from runtime.structured.bounds import MARKED, UNMARKED
from runtime.structured.following import Follower
from runtime.structured.library import CompiledGrammar, new_matcher
from runtime.structured.text_bounds import TextTokens
from runtime.structured.vocabulary import GrammarVocabulary

MAX_CACHED_BYTES = 256 << 20
ALLOWANCE_S = 0.5
"""What a choice may cost over all its steps, and `ALLOWANCE_STEP_S` for each of them."""
ALLOWANCE_STEP_S = 0.01
"""An ordinary step costs a tenth of a millisecond."""


class GrammarMatcher:
    """Follows one choice.

    Attributes:
        fault: a stable word for why it cannot go on, or empty.
    """

    def __init__(self, follower: Follower) -> None:
        self._follower = follower
        self._num_steps = 0
        self._taken_s = 0.0
        self.fault = ""

    def accept(self, token_id: int) -> None:
        """The choice's next token; one that its last mask did not allow sets `fault`."""
        started = time.thread_time()
        if not self.fault and not self._follower.advance(token_id):
            self.fault = "grammar_violated"
        self._count(time.thread_time() - started)

    def fill(self, mask: Int32) -> None:
        """Write which tokens may come next.

        Args:
            mask: [ceil(vocab_size / 32)] int32, packed, lowest bit first. All zeros where nothing may.
        """
        started = time.thread_time()
        mask[:] = 0
        if not self.fault:
            try:
                self._follower.write(mask)
            except RuntimeError:
                self.fault = "grammar_violated"
            else:
                self.fault = "" if mask.any() else "grammar_stuck"
        self._count(time.thread_time() - started)

    def fill_along(self, drafts: list[int], parents: list[int], ending_ids: Collection[int], masks: Int32) -> list[int]:
        """Write what may come next, and what after each draft; the matcher stands where it stood afterwards.

        Args:
            parents: what each draft follows: 0 the text, i + 1 draft i, an earlier one.
            ending_ids: drafts that end the text.
            masks: [at least len(drafts) + 1, ceil(vocab_size / 32)], see `fill`; those written are the first ones.
        Returns: what each of them is for, as `parents` counts: drafts that are not allowed, or follow one, have none.
        """
        self.fill(masks[0])
        places, path, started = [0], [0], time.thread_time()
        going_on = {} if self.fault else {0: masks[0]}
        for draft in _depth_first(parents):
            token, parent = drafts[draft], parents[draft]
            if parent not in going_on or token in ending_ids or not going_on[parent][token // 32] >> (token % 32) & 1:
                continue
            self._go_back(path, parent)
            if not self._follower.advance(token):
                continue
            path.append(draft + 1)
            mask = masks[len(places)]
            places.append(draft + 1)
            mask[:] = 0
            try:
                self._follower.write(mask)
            except RuntimeError:
                continue  # Its mask allows nothing: the matcher fails when it gets there, if it does.
            going_on[draft + 1] = mask
        self._go_back(path, 0)
        if len(places) > 1:
            # Every draft is a step of its own, as it is without speculation.
            self._count((time.thread_time() - started) / (len(places) - 1))
        return places

    def _go_back(self, path: list[int], place: int) -> None:
        """Take back what the matcher was told behind a place of the path that it is on."""
        count = len(path) - 1 - path.index(place)
        if count:
            self._follower.take_back(count)
            del path[-count:]

    def _count(self, taken_s: float) -> None:
        self._num_steps += 1
        self._taken_s += taken_s
        if self._taken_s > ALLOWANCE_S + self._num_steps * ALLOWANCE_STEP_S:
            self.fault = self.fault or "grammar_too_slow"


class Grammars:
    """Loads grammars for one vocabulary, and keeps those that were used last."""

    def __init__(self, vocabulary: GrammarVocabulary, *, max_cached_bytes: int = MAX_CACHED_BYTES) -> None:
        self.vocabulary = vocabulary
        self._tokens = TextTokens(vocabulary.table, vocabulary.num_words)
        self._max_cached_bytes = max_cached_bytes
        self._cached_bytes = 0
        self._cached: OrderedDict[bytes, tuple[CompiledGrammar, int]] = OrderedDict()

    @property
    def num_words(self) -> int:
        """Words of a mask."""
        return self.vocabulary.num_words

    def matcher(self, grammar: bytes) -> GrammarMatcher:
        """A matcher at the beginning of a text. Raises: as `follower`."""
        return GrammarMatcher(self.follower(grammar))

    def follower(self, grammar: bytes) -> Follower:
        """The same without a clock.

        Raises: RequestRejected for bytes that are no grammar of this vocabulary.
        """
        key = hashlib.sha256(grammar).digest()
        if key in self._cached:
            self._cached.move_to_end(key)
        else:
            compiled = self._load(grammar)
            size = compiled.size_bytes + len(grammar)
            self._cached[key] = compiled, size
            self._cached_bytes += size
            self._evict()
        is_marked = grammar[len(self.vocabulary.digest) :].startswith(MARKED)
        return Follower(new_matcher(self._cached[key][0]), self._tokens if is_marked else None)

    def _load(self, grammar: bytes) -> CompiledGrammar:
        digest = self.vocabulary.digest
        try:
            if not grammar.startswith(digest):
                raise ValueError("another vocabulary's")
            rest = grammar[len(digest) :]
            if not rest.startswith((MARKED, UNMARKED)):
                raise ValueError("no grammar")
            return CompiledGrammar.deserialize(rest[1:].decode(), self.vocabulary.info)
        except (RuntimeError, ValueError) as error:
            raise RequestRejected("invalid_grammar", "the grammar is none of this engine's vocabulary") from error

    def _evict(self) -> None:
        """The newest stays, however large: its choices need it now."""
        while self._cached_bytes > self._max_cached_bytes and len(self._cached) > 1:
            self._cached_bytes -= self._cached.popitem(last=False)[1][1]


def _depth_first(parents: list[int]) -> list[int]:
    """The drafts of a tree, each right behind its parent's other descendants or its parent; a chain in its own order."""
    children: list[list[int]] = [[] for _ in range(len(parents) + 1)]
    for draft in reversed(range(len(parents))):
        children[parents[draft]].append(draft)
    order, waiting = [], children[0]
    while waiting:
        order.append(waiting.pop())
        waiting += children[order[-1] + 1]
    return order
