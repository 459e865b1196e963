"""Greedy texts compared up to ties: where two differ, the reference must have seen (almost) no difference either.

Lower precision moves a logit by its rounding, so two tokens whose logits are closer than that may change places. After such
a place the texts have different contexts and are not compared any further. `max_gap` bounds the reference's logprob gap
between the two tokens at the first difference.
"""

from collections.abc import Sequence

from runtime.runner.torch_runner import TorchRunner
from tests.support.next_token import Text, score_at_once


def assert_equal_up_to_ties(
    reference: TorchRunner, prompt: Sequence[int], given: Sequence[int], expected: Sequence[int], max_gap: float
) -> int:
    """Returns how many tokens agree before the first tie, all if there is none.

    Args:
        reference: in float32; its cache is overwritten.
    """
    for index, (mine, theirs) in enumerate(zip(given, expected, strict=True)):
        if mine != theirs:
            gap = logprob_gap(reference, [*prompt, *expected[:index]], theirs, mine)
            assert gap <= max_gap, f"token {index}: {mine} instead of {theirs}, which is {gap:.4f} more likely (log)"
            return index
    return len(expected)


def logprob_gap(reference: TorchRunner, context: Sequence[int], better: int, worse: int) -> float:
    """log p(better) - log p(worse) after a context."""
    (scores,) = score_at_once(reference, Text(context, [better]))
    return float(scores[better] - scores[worse])
