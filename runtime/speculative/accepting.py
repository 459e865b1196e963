"""Which drafts of a step are accepted: those that are the very tokens that were chosen at their positions.

In a tree the token chosen at a row is looked for among the row's children: there at most one path can be right, whatever stands
beside it, and it is as long as plain decoding would have gone on choosing drafts.
"""

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


def follow_paths(
    token_ids: Int64, chosen: Int64, sample_rows: Int32, chain_starts: Int32, parents: Int32, num_steps: int
) -> tuple[Int32, Int32]:
    """How many of each chain's samples are its tokens, and which; other arguments as for `count_tokens`.

    Args:
        parents: [num_tokens], see `TreeBatch`.
        num_steps: no tree is deeper.
    Returns: [num_chains], and [num_chains, num_steps + 1] samples counted from each chain's first, the accepted ones first.
    """
    lengths = np.diff(chain_starts)
    numbers = np.arange(int(lengths.max(initial=1)))
    is_sample = numbers < lengths[:, None]
    samples = np.where(is_sample, chain_starts[:-1, None] + numbers, chain_starts[:-1, None])
    tokens, ids, above = chosen[samples], token_ids[sample_rows[samples]], parents[sample_rows[samples]]
    is_draft = is_sample & (numbers > 0)
    paths = np.zeros((len(lengths), num_steps + 1), np.int32)
    counts, going_on = np.ones(len(lengths), np.int32), np.ones(len(lengths), np.bool_)
    for step in range(num_steps):
        place = paths[:, step, None]
        is_next = is_draft & (above == place) & (ids == np.take_along_axis(tokens, place, axis=1))
        going_on &= is_next.any(axis=1)
        paths[:, step + 1] = np.where(going_on, is_next.argmax(axis=1), 0)
        counts += going_on
    return counts, paths
