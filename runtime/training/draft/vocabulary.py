"""The draft vocabulary: the tokens that the target's answers are mostly made of.

Logits of a large vocabulary are a good part of a draft's cost, and a token that is never drafted is merely never gained.
Ids keep their order, so the map to the target's is an increasing one. Stored as published heads do: `d2t` holds target id
minus draft id of each draft id, `t2d` which target ids can be drafted.

Source: FR-Spec, Zhao et al. 2025; the two tensors, EAGLE-3.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class DraftVocabulary:
    """Which target ids can be drafted."""

    target_ids: Tensor
    """[draft_vocab_size] int64, increasing."""
    vocab_size: int
    """Of the target."""

    def __len__(self) -> int:
        return len(self.target_ids)

    @property
    def offsets(self) -> Tensor:
        """`d2t`, [draft_vocab_size] int64."""
        return self.target_ids - torch.arange(len(self.target_ids), device=self.target_ids.device)

    @property
    def is_drafted(self) -> Tensor:
        """`t2d`, [vocab_size] bool."""
        drafted = torch.zeros(self.vocab_size, dtype=torch.bool, device=self.target_ids.device)
        drafted[self.target_ids] = True
        return drafted

    def to(self, device: str) -> "DraftVocabulary":
        """The same on a device."""
        return DraftVocabulary(self.target_ids.to(device), self.vocab_size)


def choose_vocabulary(
    answers: Iterable[Sequence[int]], *, vocab_size: int, draft_vocab_size: int, always: Iterable[int]
) -> DraftVocabulary:
    """The most frequent tokens of the answers; among equals, and where answers have too few, the lowest ids.

    Args:
        always: ids that are taken first, whatever their frequency: ends of answers.
    """
    counts: Counter[int] = Counter()
    for answer in answers:
        counts.update(answer)
    first = set(always)
    order = sorted(range(vocab_size), key=lambda token: (token not in first, -counts[token], token))
    chosen = sorted(order[: min(draft_vocab_size, vocab_size)])
    return DraftVocabulary(torch.tensor(chosen, dtype=torch.int64), vocab_size)
