"""How many prompt tokens a step takes beside the rows that decode.

The device multiplies few rows in the time that it takes to read the weights, and many in a time that grows with them. A step
that only decodes reads all weights for few rows. Prompt rows beside them use the same weights, so the decoding rows of such
a step cost next to nothing; the prompts cost what they cost in any step. Two things follow:

- Prompts are spread: it is better that many steps have some prompt rows than that few have many, as long as all are through
  in time. A step takes its part of those that wait, so that they would be through in `SPREAD_STEPS` steps.
- Rows come in tiles: a step is filled up to whole tiles, decoding rows included.

With more prompts in line than that, steps grow to the largest size that the operator allows, and with it the time between
two tokens of those who decode.
"""

from runtime.identifiers import PAGE_SIZE

SPREAD_STEPS = 4
"""Steps in which all that waits should be through."""
LEAST_ROWS = 256
"""Of a step with prompt rows: below, the device waits for weights, and a row more takes no time."""
TILE_ROWS = 64
"""Products are cut into blocks of so many rows."""
_LEAST_SHARE = 8
"""Prompts get at least this part of the largest step, however many rows decode."""


def mixed_budget(num_decodes: int, num_waiting_tokens: int, largest: int) -> int:
    """Most prompt tokens of a step in which `num_decodes` rows decode.

    Args:
        num_waiting_tokens: of all prompts that are not through, at least as many as matter: `SPREAD_STEPS * largest`.
        largest: rows of the largest such step, decoding rows included.
    """
    wanted = num_decodes + -(-num_waiting_tokens // SPREAD_STEPS)
    num_rows = min(largest, -(-max(LEAST_ROWS, wanted) // TILE_ROWS) * TILE_ROWS)
    budget = max(num_rows - num_decodes, -(-largest // _LEAST_SHARE))
    # Chunks end where pages do: what is beyond whole pages would start another prompt by a few tokens.
    return budget if budget < PAGE_SIZE else budget // PAGE_SIZE * PAGE_SIZE
