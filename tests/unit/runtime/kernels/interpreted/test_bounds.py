"""That the watch over kernels' memory sees what it is there for."""

import torch

from runtime.kernels.embedding import gather_embeddings
from tests.support.kernel_bounds import KernelBounds
from tests.support.kernel_checks import LAUNCHER


def test_a_read_behind_a_tensor_is_seen(bounds: KernelBounds) -> None:
    """Three ids are asked for and two are there, in the midst of others; what is there of them is as it should be."""
    ids, none = torch.tensor([9, 9, 1, 2, 3, 9]), torch.full((3,), -1)
    embedding, out = torch.arange(40.0).reshape(10, 4), torch.zeros(3, 4)
    gather_embeddings(ids[2:4], none, none, embedding, out=out, launcher=LAUNCHER)
    assert torch.equal(out[:2], embedding[1:3])
    assert [each.split(" at ")[0] for each in bounds.violations] == ["embedding.gather: load of 1 x 8 bytes"]
    bounds.violations.clear()
