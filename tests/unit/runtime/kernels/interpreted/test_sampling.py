"""`runtime.kernels.sampling`, interpreted."""

import pytest
import torch

from tests.support.kernel_checks import Inputs, check_sampling, run_sampling

VOCAB = 5000
"""Three blocks, the last one not full."""


@pytest.mark.parametrize("drawn", [False, True])
def test_token_is_the_references(drawn: bool) -> None:
    """Greedy and drawn rows side by side choose as `runtime.sampling` does."""
    assert check_sampling(Inputs("cpu", torch.bfloat16, 3), 6, VOCAB, drawn=drawn) == 0.0


def test_equal_logits_give_the_lowest_id() -> None:
    """Ties within a block and between blocks."""
    logits = torch.zeros(2, VOCAB)
    logits[1, [4100, 2050, 2049, 4999]] = 1.0
    token_ids, _ = run_sampling(logits, *_greedy(2), drawn=False)
    assert token_ids.tolist() == [0, 2049]


@pytest.mark.parametrize(
    ("bad", "drawn"),
    [
        (float("nan"), False),
        (float("inf"), True),
        pytest.param(float("nan"), True, marks=pytest.mark.long),
        pytest.param(float("inf"), False, marks=pytest.mark.long),
    ],
)
def test_rows_that_are_not_finite_are_told(drawn: bool, bad: float) -> None:
    """One bad logit, or no finite one, spoils its row alone; ids stay below the vocabulary's size."""
    logits = torch.randn(5, VOCAB, generator=torch.Generator().manual_seed(0))
    logits[1, 4999] = bad
    logits[2] = -torch.inf
    logits[3, :4000] = -torch.inf
    logits[4] = bad
    temperatures, seeds, positions = _greedy(5)
    token_ids, is_finite = run_sampling(logits, temperatures + float(drawn), seeds, positions, drawn=drawn)
    assert is_finite.tolist() == [1, 0, 0, 1, 0]
    assert bool(((token_ids >= 0) & (token_ids < VOCAB)).all())
    assert int(token_ids[3]) >= 4000


def test_a_tiny_temperature_is_greedy() -> None:
    """Differences overflow to minus infinity, never to NaN."""
    logits = torch.randn(2, VOCAB, generator=torch.Generator().manual_seed(1))
    _, seeds, positions = _greedy(2)
    token_ids, _ = run_sampling(logits, torch.full((2,), 1e-38), seeds, positions, drawn=True)
    assert torch.equal(token_ids, logits.argmax(dim=-1))


def _greedy(rows: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.zeros(rows), torch.arange(rows), torch.arange(rows) + 7
