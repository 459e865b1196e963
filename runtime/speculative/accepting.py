"""Which drafts of a step are accepted: those that are the very tokens that were chosen at their positions."""

import numpy as np

from runtime.batch import Int32, Int64


def count_tokens(token_ids: Int64, chosen: Int64, sample_rows: Int32, chain_starts: Int32) -> Int32:
    """How many of each chain's samples are its tokens.

    Args:
        token_ids: [num_tokens], drafts included.
        chosen: [num_samples], the token chosen after each sampled row.
        sample_rows: [num_samples]; a chain's follow each other.
        chain_starts: [num_chains + 1].
    Returns: [num_chains]: 1, and 1 more for every draft up to the first that was not chosen.
    """
    num_drafts = np.diff(chain_starts) - 1
    counts = np.ones(len(num_drafts), np.int32)
    for place in range(int(num_drafts.max(initial=0))):
        samples = chain_starts[:-1] + place
        is_whole = (counts == place + 1) & (num_drafts > place)
        samples = samples[is_whole]
        counts[is_whole] += chosen[samples] == token_ids[sample_rows[samples] + 1]
    return counts
