"""Logprobs of tokens under the model's own distribution."""

import torch

from runtime.sampling.logprobs import concatenate, logprobs_of


def test_logprobs_are_those_of_softmax() -> None:
    """The target's and the most likely tokens' logarithms, most likely first."""
    logits = torch.randn(5, 30, generator=torch.Generator().manual_seed(1))
    targets = torch.tensor([3, 0, 29, 7, 7])
    found = logprobs_of(logits, targets, 4).to_host()
    expected = torch.softmax(logits.double(), -1).log()
    torch.testing.assert_close(torch.from_numpy(found.chosen).double(), expected[range(5), targets], rtol=0, atol=1e-6)
    values, ids = expected.topk(4)
    assert found.top_ids.tolist() == ids.tolist()
    torch.testing.assert_close(torch.from_numpy(found.top_values).double(), values, rtol=0, atol=1e-6)


def test_rows_do_not_depend_on_their_neighbours() -> None:
    """Each row has the bits it has alone."""
    logits = torch.randn(23, 199, generator=torch.Generator().manual_seed(2))
    targets = torch.arange(23)
    together = logprobs_of(logits, targets, 5)
    alone = concatenate(logprobs_of(logits[row : row + 1], targets[row : row + 1], 5) for row in range(23))
    assert torch.equal(together.chosen, alone.chosen)
    assert torch.equal(together.top_values, alone.top_values)
    assert torch.equal(together.top_ids, alone.top_ids)


def test_rows_that_did_not_ask_hold_zeros() -> None:
    """Rows are put where they belong; no top tokens are an empty dimension."""
    found = logprobs_of(torch.zeros(2, 4), torch.tensor([1, 2]), 0).spread(torch.tensor([2, 0]), 4).to_host()
    assert found.chosen[[1, 3]].tolist() == [0.0, 0.0]
    assert (found.chosen[[0, 2]] < -1.3).all()
    assert found.top_ids.shape == (4, 0)


def test_equally_likely_tokens_come_by_their_ids() -> None:
    """Whatever `topk` would make of them; those below zero are in order, too."""
    logits = torch.tensor([[-2.0, 1.0, -1.0, 1.0, -1.0, 1.0], [0.0] * 6])
    found = logprobs_of(logits, torch.zeros(2, dtype=torch.int64), 5)
    assert found.top_ids.tolist() == [[1, 3, 5, 2, 4], [0, 1, 2, 3, 4]]
    assert torch.equal(found.top_values, torch.log_softmax(logits, -1).gather(1, found.top_ids))
