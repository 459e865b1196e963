"""`runtime.kernels.invariant` and `runtime.attention.invariant`, interpreted. That bits do not depend on the rows beside them is a
matter of a GPU; here it holds where what is added up is of one shape."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as functional

from runtime.attention import invariant
from runtime.kernels.blocks import choose_invariant_blocks
from runtime.kernels.invariant import multiply_any
from tests.support.kernel_checks import LAUNCHER, TOLERANCES, Attention, Inputs, relative_error


@pytest.mark.parametrize("rows", [1, 20, 300])
@pytest.mark.parametrize("fused", ["plain", "bias", "residual", "swiglu"])
def test_product_is_the_references(rows: int, fused: str) -> None:
    """Columns and inputs that fill no block, rows of one tile and of several."""
    inputs, n, k = Inputs("cpu", torch.float16, rows), 40, 136
    x, weight = inputs.normal(rows, k), inputs.normal(2 * n if fused == "swiglu" else n, k, scale=k**-0.5)
    bias = inputs.normal(n) if fused == "bias" else None
    residual = inputs.normal(rows, n) if fused == "residual" else None
    wanted = x.float() @ weight.float().T
    if bias is not None:
        wanted += bias.float()
    if residual is not None:
        wanted += residual.float()
    if fused == "swiglu":
        wanted = functional.silu(wanted[:, :n]) * wanted[:, n:]
    out = residual if residual is not None else torch.empty(rows, n, dtype=x.dtype)
    multiply_any(x, weight, out=out, launcher=LAUNCHER, bias=bias, residual=residual, swiglu=fused == "swiglu")
    assert relative_error(out, wanted) < TOLERANCES[torch.float16]


@pytest.mark.parametrize("swiglu", [False, True])
def test_every_tile_is_summed_up_by_whole_groups_of_warps(swiglu: bool) -> None:
    """64 outputs for four warps: other instructions of the tensor cores add up in another order."""
    for rows in (1, 16, 17, 64, 100, 256, 5000):
        blocks = choose_invariant_blocks(rows, swiglu=swiglu)
        assert blocks.num_warps % 4 == 0
        assert blocks.block_n % 64 == 0
        assert blocks.rows >= min(rows, 256)


@pytest.fixture
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contexts of a hundred tokens have several."""
    monkeypatch.setattr(invariant, "PART_TOKENS", 64)


CONTEXTS, QUERIES = [1, 64, 65, 130, 80], [1, 1, 1, 2, 25]


@pytest.mark.usefixtures("short_parts")
@pytest.mark.parametrize(
    ("window", "cache_dtype"),
    [
        (None, None),
        pytest.param(50, None, marks=pytest.mark.long),
        pytest.param(None, torch.float8_e4m3fn, marks=pytest.mark.long),
        (50, torch.float8_e4m3fn),
    ],
)
def test_parts_are_added_up_alike_by_one_and_by_many(window: int | None, cache_dtype: torch.dtype | None) -> None:
    """Decodes and chunks that begin and end anywhere: the reference's up to rounding, and the same to the bit whoever adds up."""
    inputs = Inputs("cpu", torch.float16, 5)
    case = Attention(inputs, CONTEXTS, QUERIES, heads=3, kv_heads=1, head_dim=24, cache_dtype=cache_dtype)
    by_one, by_many = torch.full_like(case.query, torch.nan), torch.full_like(case.query, torch.nan)
    alone = case.invariant(window, num_multiprocessors=1)
    case.invariant(window, num_multiprocessors=1).plan(case.host, case.tables).attend(1, case.query, by_one)
    case.invariant(window, num_multiprocessors=64).plan(case.host, case.tables).attend(1, case.query, by_many)
    assert relative_error(by_one, case.reference(window)) < TOLERANCES[torch.float16]
    assert torch.equal(by_one, by_many)
    behind = torch.full_like(case.query, 7.0)
    alone.plan_chunks(replace(case.host, num_decodes=3), case.tables).attend(1, case.query, behind)
    assert torch.equal(behind[3:], by_one[3:])
    assert (behind[:3] == 7.0).all()


@pytest.mark.usefixtures("short_parts")
@pytest.mark.parametrize("num_multiprocessors", [1, 64])
def test_verified_rows_stay_within_their_pages(num_multiprocessors: int) -> None:
    """One sequence has ended and claims more than it has: its neighbours' rows are what they are without it."""
    inputs, contexts = Inputs("cpu", torch.float16, 6), [30, 140, 80]
    case = Attention(inputs, contexts, [3, 3, 3], heads=4, kv_heads=2, head_dim=16)
    attention = invariant.InvariantRows(case.invariant(num_multiprocessors=num_multiprocessors))
    before, after = torch.empty_like(case.query), torch.full_like(case.query, torch.nan)
    attention.plan(case.tables, 3, 3).attend(1, case.query, before)
    assert relative_error(before, case.reference(None)) < TOLERANCES[torch.float16]
    case.tables.context_lengths[0] = 75
    attention.plan(case.tables, 3, 3).attend(1, case.query, after)
    assert torch.equal(before[3:], after[3:])


@pytest.mark.usefixtures("short_parts")
def test_who_has_seen_nothing_is_zero() -> None:
    """A padding sequence of a graph that verifies: more rows than its context has tokens."""
    case = Attention(Inputs("cpu", torch.float16, 7), [100], [4], heads=4, kv_heads=2, head_dim=16)
    case.tables.context_lengths[0] = 2
    for num_multiprocessors in (1, 64):
        out = torch.full_like(case.query, torch.nan)
        attention = case.invariant(num_multiprocessors=num_multiprocessors)
        attention.plan_rows(case.tables, 1, 4).attend(1, case.query, out)
        assert (out[:2] == 0).all()
        assert out.isfinite().all()
        assert (out[2:] != 0).any()


def test_memory_for_parts_is_bounded() -> None:
    """A context of a million tokens, of which 128 rows would take 4.5 GB: fewer share theirs, and the rest have a program each."""
    case = Attention(Inputs("cpu", torch.float16, 8), [20], [1], heads=32, kv_heads=8, head_dim=128)
    attention = invariant.InvariantAttention(
        case.pages, num_heads=32, layer_windows=[None, None], launcher=LAUNCHER, max_context_length=1 << 20,
        num_multiprocessors=132,
    )  # fmt: skip
    assert attention.parts_bytes <= 128 << 20
    few, many = attention.plan_rows(case.tables, 1, 3), attention.plan_rows(case.tables, 1, 200)
    assert attention.programs_for(few) > 1
    assert attention.programs_for(many) == 1
