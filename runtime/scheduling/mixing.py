"""How many prompt tokens a step takes beside the rows that decode.

The device multiplies few rows in the time that it takes to read the weights, and many in a time that grows with them. A step
that only decodes reads all weights for few rows. Prompt rows beside them use the same weights, so the decoding rows of such
a step cost next to nothing; the prompts cost what they cost in any step. So it is better that many steps have some prompt
rows than that few have many, as long as the prompts keep up with the answers:

    While each open sequence gets its answer, all their prompts should be computed once: that is the pace at which the
    sequences that end are replaced. A step takes that pace's part, and more if the line is long nevertheless.

The pace's part is seldom a size at which a step costs least, so steps take the size below it or the next one: which of them, says
what is owed from the steps before. Where that is cheaper, what is below is no prompt at all, unless prompts would wait long for it.

Spread like this, requests that came together do not end together, and the prompts that follow them do not come together
again. Where so many sequences are open that decoding alone fills the device, nothing is won by it: prompts then go through
in steps as large as the operator allows, as they do where answers are short and prompts long.

`python -m tests.bench.schedule chat` simulates it with step times measured on an H200: 5,340 tokens a second, 7,330 with FP8
weights; of which 3 % by steps without prompts in turn, for which the median time to the first token is the same.
"""

from dataclasses import dataclass

from runtime.identifiers import PAGE_SIZE
from runtime.step_sizes import MixedSizes

FULL_ROWS = 224
"""As many sequences decode in little more than the time of reading the weights; more of them are work enough."""
MOST_STEPS = 128
"""However long answers are, what is in line should be through in so many steps."""
_LEAST_SHARE = 8
"""Prompts get this part of the largest step even where the rows that decode leave less of it."""
_PACE_IN_TURN = 128
"""Prompt tokens a step, from which on steps without prompts may come between: there are at most three of them in a row."""
_CACHED_WEIGHT = 1 / 16
"""Of each new observation of how much of a prompt the cache had."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What is asked of the next steps."""

    num_open: int
    """Sequences that run or are in line."""
    prompt_tokens: int
    """Of all their prompts, computed or not."""
    output_tokens: int
    """That their answers are expected to have, all together."""
    waiting_tokens: int
    """Of their prompts, not computed yet."""


class MixedBudget:
    """Bounds prompt tokens by what decodes and what is asked.

    Args:
        largest: rows of the largest step with both.
        sizes: what steps are filled up to.
    """

    def __init__(self, largest: int, sizes: MixedSizes) -> None:
        self._largest = largest
        self._sizes = sizes
        self._computed_share = 1.0
        self._owed = 0
        """Prompt tokens of the pace that no step has taken yet; at most those of a largest step."""

    def observe(self, num_prompt: int, num_cached: int) -> None:
        """A prompt is through, of which the cache had so many tokens."""
        self._computed_share += _CACHED_WEIGHT * (1 - num_cached / num_prompt - self._computed_share)

    def tokens(self, num_decodes: int, demand: Demand) -> int:
        """Most prompt tokens of the next step, in which `num_decodes` rows decode; none in some, where steps come in turn."""
        budget = max(self._largest - num_decodes, -(-self._largest // _LEAST_SHARE))
        if demand.num_open < FULL_ROWS:
            budget = min(budget, self._paced_tokens(num_decodes, demand))
        # Chunks end where pages do: what is beyond whole pages would start another prompt by a few tokens.
        budget = budget if budget < PAGE_SIZE else budget // PAGE_SIZE * PAGE_SIZE
        self._owed = max(0, self._owed - min(budget, demand.waiting_tokens))
        return budget

    def _paced_tokens(self, num_decodes: int, demand: Demand) -> int:
        """Of the next step, so that steps have as many prompt tokens as the pace on average."""
        pace = self._pace(demand)
        self._owed = min(self._owed + pace, self._largest)
        below, above = self._sizes.around(num_decodes + pace)
        if num_decodes + self._owed >= above:
            return max(PAGE_SIZE, above - num_decodes)
        is_cheaper = self._sizes.in_turn and below == self._sizes.sizes[0] and above <= self._largest
        if is_cheaper and pace >= _PACE_IN_TURN:
            return 0
        return max(PAGE_SIZE, below - num_decodes)

    def _pace(self, demand: Demand) -> int:
        answer_steps = max(PAGE_SIZE, demand.output_tokens / max(1, demand.num_open))
        pace = self._computed_share * demand.prompt_tokens / answer_steps
        return int(max(pace, demand.waiting_tokens / MOST_STEPS))
