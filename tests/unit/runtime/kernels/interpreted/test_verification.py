"""`runtime.attention.verifying`, interpreted: several latest positions of each sequence, wherever its context is cut."""

import pytest
import torch

from runtime.attention.verifying import TreeRows, TritonVerification
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


def spread_words(seen: torch.Tensor) -> torch.Tensor:
    """[rows, n] of bool → [rows, ceil(n / 32)] int32, bit by bit."""
    words = torch.zeros(len(seen), -(-seen.shape[1] // 32), dtype=torch.int64)
    for row, column in seen.nonzero().tolist():
        words[row, column // 32] |= 1 << (column % 32)
    return torch.where(words >= 1 << 31, words - (1 << 32), words).to(torch.int32)


def check_trees(
    contexts: list[int],
    num_queries: int,
    num_places: int,
    window: int | None = None,
    *,
    heads: int = 4,
    splits: int = 8,
) -> float:
    """Rows see what is before their tree, and of its places what is drawn for them; against a sum over exactly these."""
    random = torch.Generator().manual_seed(num_queries)
    inputs = Inputs("cpu", torch.float16, len(contexts))
    count, group = len(contexts), heads // 2
    case = Attention(inputs, contexts, [num_queries] * count, heads=heads, kv_heads=2, head_dim=16)
    seen = torch.rand(count * num_queries, num_places, generator=random) < 0.4
    seen[torch.arange(len(seen)), torch.arange(len(seen)) % num_queries] = True
    depths = torch.randint(0, 5, (count * num_queries,), generator=random, dtype=torch.int32)
    bases = torch.tensor(contexts, dtype=torch.int32) - num_places
    tree = TreeRows(spread_words(seen), depths, bases, torch.tensor(contexts, dtype=torch.int32))
    attention = TritonVerification(
        case.pages, num_heads=heads, layer_windows=(None, window), launcher=LAUNCHER, max_queries=num_queries,
        max_sequences=count, num_multiprocessors=splits,
    )  # fmt: skip
    out = torch.full_like(case.query, torch.nan)
    attention.plan(case.tables, count, num_queries, tree).attend(1, case.query, out)
    wanted = torch.empty_like(case.query, dtype=torch.float32)
    for row in range(len(out)):
        sequence = row // num_queries
        base, first = int(bases[sequence]), int(case.tables.page_starts[sequence])
        places = [*range(base), *(base + place for place in seen[row].nonzero()[:, 0].tolist())]
        own = depths[sequence * num_queries : (sequence + 1) * num_queries]
        if window is not None:
            stands = [place if place < base else base + int(own[place - base]) for place in places]
            kept = base + int(depths[row]) - window
            places = [place for place, at in zip(places, stands, strict=True) if at > kept]
        slots = [(int(case.tables.page_ids[first + place // 16]), place % 16) for place in places]
        keys, values = (torch.stack([case.pages[1, page, part, at] for page, at in slots]).float() for part in (0, 1))
        for head in range(heads):
            weights = torch.softmax(keys[:, head // group] @ case.query[row, head].float() / 4, dim=0)
            wanted[row, head] = weights @ values[:, head // group]
    return float((out.float() - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("splits", [1, 16])
@pytest.mark.parametrize(
    ("num_queries", "num_places"), [(9, 9), pytest.param(40, 40, marks=LONG), pytest.param(3, 36, marks=LONG), (4, 8)]
)
def test_rows_of_trees_see_what_their_words_say(num_queries: int, num_places: int, splits: int) -> None:
    """Every row of a tree, in one program and in several; and rows of one step over places of all before it."""
    assert check_trees([num_places, 70, 131], num_queries, num_places, splits=splits) < TOLERANCE


def test_many_rows_of_trees_and_many_words() -> None:
    """40 rows for each of 4 heads of a group: three programs, and two words a row; bit 31 is one of them."""
    assert check_trees([41], 40, 40, heads=8, splits=1) < TOLERANCE


def test_windows_count_positions_in_trees() -> None:
    """A place of the tree stands as deep as its row; the window may begin before the tree and within it."""
    assert check_trees([40, 131], 6, 6, window=20) < TOLERANCE
    assert check_trees([40, 131], 6, 6, window=9) < TOLERANCE
