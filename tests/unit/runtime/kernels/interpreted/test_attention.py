"""`runtime.attention.triton`, interpreted."""

from typing import Any

import pytest
import torch

from tests.support.kernel_checks import TOLERANCES, Attention, Inputs, check_attention, check_shared_attention

TOLERANCE = TOLERANCES[torch.float16]


E4M3 = torch.float8_e4m3fn


def _case(contexts: list[int], queries: list[int], **given: Any) -> Attention:
    shape = {"heads": 4, "kv_heads": 2, "head_dim": 16} | given
    return Attention(Inputs("cpu", torch.float16, len(contexts)), contexts, queries, **shape)


@pytest.mark.parametrize("window", [None, 20])
@pytest.mark.parametrize("multiprocessors", [1, 8])
def test_decodes_of_any_length(window: int | None, multiprocessors: int) -> None:
    """One part and several, full and partly filled pages, NaN wherever no token is."""
    case = _case([1, 16, 65, 200], [1, 1, 1, 1])
    assert check_attention(case, window=window, num_multiprocessors=multiprocessors) < TOLERANCE


@pytest.mark.parametrize("window", [None, 20])
def test_prompt_chunks_and_decodes_mixed(window: int | None) -> None:
    """Whole prompts, chunks after a cached prefix, and decodes in one step."""
    case = _case([9, 70, 33, 100, 5], [1, 1, 33, 40, 2])
    assert check_attention(case, window=window) < TOLERANCE


def test_head_sizes_and_groups_that_fill_no_block() -> None:
    """A group of 3 queries to a key head, a head size of 24."""
    assert check_attention(_case([40, 50], [1, 21], heads=6, kv_heads=2, head_dim=24)) < TOLERANCE


def test_a_captured_plan_follows_the_tables() -> None:
    """Lengths are read on the device: the same plan attends over what the tables say now."""
    case = _case([64, 130], [1, 1])
    plan = case.backend().plan_capture(case.tables, 2)
    case.tables.context_lengths.copy_(torch.tensor([50, 3]))
    out = torch.empty_like(case.query)
    plan.attend(1, case.query, out)
    case.contexts = [50, 3]
    wanted = case.reference(None)
    assert float((out.float() - wanted).norm() / wanted.norm()) < TOLERANCE


@pytest.mark.parametrize(
    ("multiprocessors", "window"),
    [
        (1, None),
        (8, 20),
        pytest.param(1, 20, marks=pytest.mark.long),
        pytest.param(8, None, marks=pytest.mark.long),
    ],
)
def test_decodes_over_e4m3(window: int | None, multiprocessors: int) -> None:
    """As over fp16; the reference reads the same rounded numbers."""
    case = _case([1, 16, 65, 200, 300], [1, 1, 1, 1, 1], cache_dtype=E4M3)
    assert check_attention(case, window=window, num_multiprocessors=multiprocessors) < TOLERANCE


@pytest.mark.parametrize("window", [pytest.param(None, marks=pytest.mark.long), 20])
def test_prompt_chunks_over_e4m3(window: int | None) -> None:
    """Prompts, chunks and decodes mixed, a head size and a group that fill no block."""
    case = _case([9, 70, 33, 100, 5], [1, 1, 33, 40, 2], heads=6, head_dim=24, cache_dtype=E4M3)
    assert check_attention(case, window=window) < TOLERANCE


@pytest.mark.parametrize("size", [1e-7, 3e5])
def test_queries_of_any_size_over_e4m3(size: float) -> None:
    """Products are in fp16, but queries beyond its range, or below it, lose nothing."""
    case = Attention(
        Inputs("cpu", torch.float32, 0), [40, 9], [1, 9], heads=4, kv_heads=2, head_dim=16, cache_dtype=E4M3
    )
    case.query *= size
    assert check_attention(case) < TOLERANCE


GROUPS = [([2, 0], 2), ([5, 1, 6, 3], 5)]
"""Members, and pages in common: of seven sequences one is in no group, another has one token of its own."""
CONTEXTS = [60, 81, 33, 200, 7, 130, 81]


@pytest.mark.parametrize("multiprocessors", [1, 8])
def test_decodes_of_which_some_begin_with_the_same_pages(multiprocessors: int) -> None:
    """Beginnings in one part and in several, beside groups and members that are not there, and padding."""
    case = _case(CONTEXTS, [1] * 7)
    assert check_shared_attention(case, GROUPS, num_multiprocessors=multiprocessors) < TOLERANCE


@pytest.mark.parametrize("cache_dtype", [None, E4M3])
def test_groups_of_other_shapes(cache_dtype: torch.dtype | None) -> None:
    """8 queries to a key head, a head size that fills no block; over fp16 and e4m3."""
    case = _case(CONTEXTS, [1] * 7, heads=8, kv_heads=1, head_dim=24, cache_dtype=cache_dtype)
    assert check_shared_attention(case, GROUPS, num_multiprocessors=2) < TOLERANCE


def test_groups_in_a_layer_with_a_window() -> None:
    """Everybody reads their own there."""
    case = _case(CONTEXTS, [1] * 7)
    assert check_shared_attention(case, GROUPS, window=20) < TOLERANCE
