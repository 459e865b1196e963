"""`runtime.attention.verifying`, interpreted: several latest positions of each sequence, wherever its context is cut."""

import pytest
import torch

from runtime.attention.verifying import TritonVerification
from tests.support.kernel_checks import LAUNCHER, TOLERANCES, Attention, Inputs

TOLERANCE = TOLERANCES[torch.float16]
LONG = pytest.mark.long


def check(contexts: list[int], num_queries: int, window: int | None, num_multiprocessors: int, **sizes: int) -> float:
    shape = {"heads": 4, "kv_heads": 2, "head_dim": 16} | sizes
    inputs = Inputs("cpu", torch.float16, len(contexts))
    case = Attention(inputs, contexts, [num_queries] * len(contexts), **shape)
    attention = TritonVerification(
        case.pages,
        num_heads=shape["heads"],
        layer_windows=(None, window),
        launcher=LAUNCHER,
        max_queries=num_queries,
        max_sequences=len(contexts),
        num_multiprocessors=num_multiprocessors,
    )
    out = torch.full_like(case.query, torch.nan)
    attention.plan(case.tables, len(contexts), num_queries).attend(1, case.query, out)
    wanted = case.reference(window)
    return float((out.float() - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("window", [None, 20])
@pytest.mark.parametrize("num_multiprocessors", [1, 16])
@pytest.mark.parametrize("num_queries", [pytest.param(1, marks=LONG), pytest.param(3, marks=LONG), 8])
def test_positions_see_what_is_before_them(num_queries: int, num_multiprocessors: int, window: int | None) -> None:
    """One part and many, of which some rows see nothing; contexts that begin with the queries; NaN where no token is."""
    assert check([8, 16, 65, 70, 200], num_queries, window, num_multiprocessors) < TOLERANCE


def test_groups_and_head_sizes_that_fill_no_block() -> None:
    """A group of 3 queries to a key head, a head size of 24."""
    assert check([40, 131], 6, None, 8, heads=6, kv_heads=2, head_dim=24) < TOLERANCE


def test_nothing_is_read_beyond_a_sequences_pages() -> None:
    """One that has ended may claim a longer context: its neighbour's rows are what they are without it."""
    inputs = Inputs("cpu", torch.float16, 2)
    case = Attention(inputs, [30, 40], [3, 3], heads=4, kv_heads=2, head_dim=16)
    attention = TritonVerification(
        case.pages, num_heads=4, layer_windows=(None, None), launcher=LAUNCHER, max_queries=3, max_sequences=2,
        num_multiprocessors=8,
    )  # fmt: skip
    before, after = torch.empty_like(case.query), torch.empty_like(case.query)
    attention.plan(case.tables, 2, 3).attend(1, case.query, before)
    case.tables.context_lengths[0] = 45
    attention.plan(case.tables, 2, 3).attend(1, case.query, after)
    assert torch.equal(before[3:], after[3:])
    case.tables.context_lengths[0] = 30
