"""Trees of drafts: how they grow, which nodes are kept, how a path through them is found and unfolded."""

import math
from itertools import product

import numpy as np
import pytest
import torch

from runtime.batch import Int64
from runtime.draft_shape import DraftShape, draft_chain, num_candidates
from runtime.speculative.accepting import follow_paths
from runtime.speculative.continuing import depths_of
from runtime.speculative.growing import GrowingTrees
from runtime.speculative.unfolding import tails_of
from tests.support.draft_trees import plant

VOCAB_SIZE = 6
NUM_CHAINS = 3


def logits_after(chain: int, path: tuple[int, ...]) -> torch.Tensor:
    """What a head says behind a path of drafts; any function of both."""
    seed = hash((chain, *path)) % (1 << 31)
    return 2 * torch.randn(VOCAB_SIZE, generator=torch.Generator().manual_seed(seed))


def slowly(chain: int, num_steps: int, topk: int, num_drafts: int) -> set[tuple[int, ...]]:
    """The paths to the nodes that are kept, node by node."""
    scores: dict[tuple[int, ...], float] = {}
    beams: list[tuple[int, ...]] = [()]
    for _ in range(num_steps):
        found: dict[tuple[int, ...], float] = {}
        for path in beams:
            logprobs = torch.log_softmax(logits_after(chain, path), dim=0)
            for token in logprobs.argsort(descending=True)[:topk].tolist():
                found[*path, token] = scores.get(path, 0.0) + float(logprobs[token])
        scores |= found
        beams = sorted(found, key=lambda path: -found[path])[:topk]
    return set(sorted(scores, key=lambda path: -scores[path])[:num_drafts])


def paths_of(ids: list[int], parents: list[int]) -> list[tuple[int, ...]]:
    paths: list[tuple[int, ...]] = [()]
    for token, parent in zip(ids, parents, strict=True):
        paths.append((*paths[parent], token))
    return paths[1:]


def grow(num_steps: int, topk: int, num_drafts: int) -> tuple[Int64, Int64]:
    trees = GrowingTrees(topk)
    beams = trees.grow(torch.stack([logits_after(chain, ()) for chain in range(NUM_CHAINS)]))
    paths: list[tuple[int, ...]] = [()] * NUM_CHAINS
    for step in range(1, num_steps + 1):
        ids, rows = beams.ids.flatten().tolist(), beams.parent_rows.tolist()
        paths = [(*paths[row], token) for row, token in zip(rows, ids, strict=True)]
        assert beams.path.shape == (NUM_CHAINS, topk, step)
        if step < num_steps:
            rows_of_chains = [logits_after(number // topk, path) for number, path in enumerate(paths)]
            beams = trees.grow(torch.stack(rows_of_chains))
    kept, parents = trees.keep(num_drafts)
    return kept.numpy(), parents.numpy()


@pytest.mark.parametrize(("num_steps", "topk", "num_drafts"), [(1, 4, 4), (2, 2, 3), (4, 3, 9), (3, 2, 10), (5, 4, 20)])
def test_the_likeliest_nodes_are_kept(num_steps: int, topk: int, num_drafts: int) -> None:
    """As a slow search finds them, each behind its parent."""
    ids, parents = grow(num_steps, topk, num_drafts)
    for chain in range(NUM_CHAINS):
        assert (parents[chain] <= np.arange(num_drafts)).all()
        paths = paths_of(ids[chain].tolist(), parents[chain].tolist())
        assert set(paths) == slowly(chain, num_steps, topk, num_drafts)
        assert sorted(paths, key=len) == paths, "nodes are not in order of depth"


def test_ties_and_broken_logits_leave_a_tree() -> None:
    """With certain tokens all scores are equal, and with NaN none is a number: parents are kept before their children."""
    for logits in (torch.tensor([0.0, -math.inf, -math.inf, -math.inf]), torch.full((4,), math.nan)):
        trees = GrowingTrees(2)
        trees.grow(logits.expand(1, 4))
        trees.grow(logits.expand(2, 4))
        trees.grow(logits.expand(2, 4))
        ids, parents = trees.keep(7)
        assert bool(((ids >= 0) & (ids < 4)).all())
        assert bool((parents[0] <= torch.arange(7)).all())


def test_a_path_ends_where_no_child_is_the_chosen_token() -> None:
    """Two trees and a prompt's chain of one; each walk is that of following it by hand."""
    #  5 -> (7 -> 8 -> 9, 6 -> 8); token chosen at each row below
    token_ids = np.array([5, 6, 7, 8, 8, 9, 5, 6, 1, 2], np.int64)
    parents = np.array([0, 0, 0, 1, 2, 4, 0, 0, 0, 0], np.int32)
    sample_rows = np.array([0, 1, 2, 3, 4, 5, 6, 7, 9], np.int32)
    chosen = np.array([7, 8, 8, 3, 9, 4, 2, 8, 6], np.int64)
    counts, paths = follow_paths(token_ids, chosen, sample_rows, np.array([0, 6, 8, 9], np.int32), parents, 3)
    assert counts.tolist() == [4, 1, 1]
    assert paths.tolist() == [[0, 2, 4, 5], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_tails_are_the_ancestors_below_the_root() -> None:
    """Each row's, in their order, and itself last; roots have none."""
    parents = np.array([0, 0, 0, 1, 3, 5, 5])
    firsts = np.array([0, 0, 0, 0, 0, 5, 5])
    tails = tails_of(np.arange(100, 107), parents, np.arange(7) != firsts)
    found = [row[len(row) - length :].tolist() for row, length in zip(tails.slots, tails.lengths, strict=True)]
    assert found == [[], [101], [102], [101, 103], [101, 103, 104], [], [106]]
    starts = np.array([0, 5, 7], np.int32)
    assert depths_of(np.array([0, 0, 0, 1, 3, 0, 0], np.int32), starts).tolist() == [0, 1, 1, 2, 3, 0, 1]


def test_levels_of_a_tree_hold_whole_paths() -> None:
    """Each level keeps fewer nodes than the one above, never fewer than a path has or more than are looked at."""
    for steps, topk in product(range(1, 8), range(1, 5)):
        for num_drafts in range(steps, num_candidates(steps, topk) + 1):
            shape = DraftShape(steps, topk, num_drafts) if topk > 1 else draft_chain(steps)
            counts = [shape.drafts_at(level) for level in range(steps + 1)]
            assert counts == sorted(counts)
            assert counts[0] == 0
            assert counts[steps] == shape.num_drafts
            assert all(level <= counts[level] <= num_candidates(level, topk) for level in range(1, steps + 1))
            assert all(shape.places_at(level) >= counts[level] for level in range(steps + 1))
    assert [draft_chain(5).places_at(level) for level in range(6)] == [0, 1, 2, 3, 4, 5]


def test_planted_trees_hold_their_path() -> None:
    """The tests' own trees: parents come first, siblings differ, and the path is among them."""
    for salt in range(50):
        ids, parents = plant([7, 8, 9], 9, salt, 24)
        assert len(ids) == len(parents) == 9
        assert all(parent <= number for number, parent in enumerate(parents))
        paths = paths_of(ids, parents)
        assert (7, 8, 9) in paths
        assert len(set(paths)) == 9
