"""Sums over ranks and joined rows, interpreted: what the others give lies in memory, and they have come already."""

import pytest
import torch

from runtime.kernels import ranks
from runtime.kernels.launcher import JitLauncher
from runtime.kernels.ranks import MAX_PROGRAMS, Meeting, add_sum, join

NUM_RANKS = 3
MET = 1 << 20
"""More often than this rank: it waits for nobody."""


def addresses(tensors: list[torch.Tensor]) -> torch.Tensor:
    return torch.tensor([tensor.data_ptr() for tensor in tensors])


def meet(rank: int) -> tuple[Meeting, list[torch.Tensor]]:
    """A meeting, and every rank's words."""
    words = [torch.full((MAX_PROGRAMS, NUM_RANKS), MET, dtype=torch.int32) for _ in range(NUM_RANKS)]
    words[rank][:, rank] = 0
    return Meeting(addresses(words), torch.zeros(MAX_PROGRAMS, dtype=torch.int32), rank), words


@pytest.mark.parametrize(("rows", "dim"), [(1, 72), (3, 1024), (300, 520)])
def test_the_sum_is_that_of_all_ranks_in_their_order(rows: int, dim: int) -> None:
    """In float32, rounded once, and added to the residual; one program, several, and several rounds of all of them."""
    generator = torch.Generator().manual_seed(rows)
    parts = [torch.randn(rows, dim, generator=generator).half() for _ in range(NUM_RANKS)]
    hidden = torch.randn(rows, dim, generator=generator).half()
    total = parts[0].float()
    for part in parts[1:]:
        total += part.float()
    expected = (hidden.float() + total).half()
    meeting, words = meet(rank=1)
    add_sum(hidden, addresses(parts), meeting, launcher=JitLauncher())
    assert torch.equal(hidden, expected)
    came = meeting.counts > 0
    assert came.any()
    for of_rank in words:  # This rank has told each that it came, and has told nothing else.
        assert torch.equal(of_rank[came, 1], torch.ones_like(of_rank[came, 1]))
        assert (of_rank[:, [0, 2]] == MET).all()


@pytest.mark.parametrize("rank", range(NUM_RANKS))
def test_a_large_sum_is_made_by_slices(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each rank adds up its own slice, leaves it in its part, and fetches the others', here made before: the bits of one sum."""
    monkeypatch.setattr(ranks, "_SLICED_FROM", 1)
    rows, dim = 7, 24 * NUM_RANKS
    generator = torch.Generator().manual_seed(3)
    parts = [torch.randn(rows * dim, generator=generator).half() for _ in range(NUM_RANKS)]
    hidden = torch.randn(rows * dim, generator=generator).half()
    total = torch.zeros(rows * dim)
    for part in parts:
        total += part.float()
    expected = (hidden.float() + total).half()
    slices = expected.chunk(NUM_RANKS)
    for other in set(range(NUM_RANKS)) - {rank}:
        parts[other].chunk(NUM_RANKS)[other].copy_(slices[other])
    meeting, _words = meet(rank)
    given = hidden.view(rows, dim)
    add_sum(given, addresses(parts), meeting, launcher=JitLauncher())
    assert torch.equal(given.flatten(), expected)
    assert torch.equal(parts[rank].chunk(NUM_RANKS)[rank], slices[rank])
    assert set(meeting.counts.tolist()) == {0, 2}


@pytest.mark.parametrize(("rows", "width"), [(1, 72), (5, 4104)])
def test_rows_are_joined_side_by_side(rows: int, width: int) -> None:
    """To the bit, and every program meets the others before and after."""
    parts = [torch.arange(rows * width).view(rows, width).half() % 97 + 100 * rank for rank in range(NUM_RANKS)]
    out = torch.full((rows, NUM_RANKS * width), torch.nan).half()
    meeting, _words = meet(rank=2)
    join(out, addresses(parts), meeting, launcher=JitLauncher())
    assert torch.equal(out, torch.cat(parts, dim=1))
    assert set(meeting.counts.tolist()) == {0, 2}
