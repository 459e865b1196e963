"""What a draft is worth: how many tokens a round of drafting and verifying gives, on answers that are known.

A round begins with one token that the target has chosen, drafts some more and gives those that the target would have chosen
too, plus the target's own next one. On greedy answers it is known beforehand which drafts those are, so rounds are walked
through on paper; no engine is needed. The end of an answer cuts the last round short, as it does when it is served.

*Acceptance length* is tokens given by rounds over number of rounds, what SGLang calls so. The two-gram draft, which knows for
each token what most often follows it in the answers, is walked the same way: what is free must be beaten.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray


@dataclass
class Rounds:
    """Sums over rounds."""

    num_drafts: int
    num_rounds: int = 0
    num_tokens: int = 0
    reached: list[int] = field(default_factory=list)
    """Of each draft, how many rounds were long enough to judge it."""
    accepted: list[int] = field(default_factory=list)
    """Of each draft, how many rounds took it and all before it."""

    def __post_init__(self) -> None:
        self.reached = self.reached or [0] * self.num_drafts
        self.accepted = self.accepted or [0] * self.num_drafts

    @property
    def length(self) -> float:
        """Acceptance length; 0 without rounds."""
        return self.num_tokens / self.num_rounds if self.num_rounds else 0.0

    @property
    def rates(self) -> list[float]:
        """Of each draft, the share of rounds that took it."""
        return [took / max(1, could) for took, could in zip(self.accepted, self.reached, strict=True)]

    def add(self, hits: NDArray[np.bool_]) -> None:
        """Walk through one answer.

        Args:
            hits: [num_drafts, n] for an answer of n + 1 tokens; at (s, i) whether the draft of step s in a round that begins
                with token i is token i + s + 1. What lies behind the end is not read.
        """
        place, num_left = 0, hits.shape[1]
        while num_left > 0:
            took = 0
            for step in range(min(self.num_drafts, num_left)):
                self.reached[step] += 1
                if took == step and hits[step, place]:
                    took += 1
                    self.accepted[step] += 1
            given = min(took + 1, num_left)
            self.num_rounds += 1
            self.num_tokens += given
            place, num_left = place + given, num_left - given


class TwoGrams:
    """For each token the one that most often follows it in the answers; among equals the lowest id."""

    def __init__(self, texts: Iterable[tuple[Sequence[int], int]]) -> None:
        """
        Args:
            texts: tokens of prompt and answer, and how many of them are the prompt's.
        """
        counts: defaultdict[int, Counter[int]] = defaultdict(Counter)
        for tokens, num_prompt in texts:
            for before, after in zip(tokens[num_prompt - 1 :], tokens[num_prompt:], strict=False):
                counts[before][after] += 1
        self._next = {before: min(after, key=lambda token: (-after[token], token)) for before, after in counts.items()}

    def hits(self, answer: Sequence[int], num_drafts: int) -> NDArray[np.bool_]:
        """As `Rounds.add` takes them."""
        right = np.array([self._next.get(before) == after for before, after in pairwise(answer)], bool)
        hits = np.zeros((num_drafts, len(right)), bool)
        for step in range(min(num_drafts, len(right))):
            hits[step, : len(right) - step] = right[step:]
        return hits
