"""The acceptance of a trained head on held-out answers, kind by kind, beside the two-gram draft's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.training.documents import Documents
from runtime.training.draft.acceptance import Rounds, TwoGrams
from runtime.training.draft.answers import Answered
from runtime.training.draft.trainee import DraftTrainee

_ALL = "all"
_TOKENS_AT_ONCE = 2048


@dataclass(frozen=True)
class KindFigures:
    """Held-out answers of one kind."""

    kind: str
    num_answers: int
    head: Rounds
    two_gram: Rounds

    def describe(self) -> dict[str, Any]:
        """As a report states it."""
        return {
            "kind": self.kind,
            "answers": self.num_answers,
            "acceptance_length": round(self.head.length, 3),
            "acceptance_by_position": [round(rate, 4) for rate in self.head.rates],
            "two_gram_acceptance_length": round(self.two_gram.length, 3),
            "rounds": self.head.num_rounds,
        }


def measure_head(
    trainee: DraftTrainee, held_out: Sequence[Answered], two_grams: TwoGrams, num_drafts: int
) -> list[KindFigures]:
    """Figures of each kind, in the order in which kinds first occur, then of all together."""
    hits = head_hits(trainee, held_out, num_drafts)
    kinds = [kind for kind in dict.fromkeys(one.kind for one in held_out) if kind]
    figures = []
    for kind in (*kinds, _ALL):
        mine = [index for index, one in enumerate(held_out) if kind == _ALL or one.kind == kind]
        head, plain = Rounds(num_drafts), Rounds(num_drafts)
        for index in mine:
            head.add(hits[index])
            plain.add(two_grams.hits(held_out[index].answer, num_drafts))
        figures.append(KindFigures(kind, len(mine), head, plain))
    return figures


def head_hits(trainee: DraftTrainee, texts: Sequence[Answered], num_drafts: int) -> list[NDArray[np.bool_]]:
    """For each text what `Rounds.add` takes."""
    documents = Documents.of((one.prompt + one.answer, [0] * len(one.prompt) + [1] * len(one.answer)) for one in texts)
    device = trainee.head.norm.weight.device
    hits: list[NDArray[np.bool_]] = [np.zeros((num_drafts, 0), bool) for _ in texts]
    order = sorted(range(len(texts)), key=documents.size)
    while order:
        num_rows = max(1, _TOKENS_AT_ONCE // documents.size(order[-1]))
        block, order = order[-num_rows:], order[:-num_rows]
        rows = documents.rows(block)
        found = trainee.hits(rows.tokens.to(device), rows.targets.to(device), num_drafts).cpu().numpy()
        for row, index in enumerate(block):
            hits[index] = found[:, row, : len(texts[index].answer) - 1]
    return hits
