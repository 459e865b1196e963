"""The digest of a file whose pieces are hashed where they are used, in device memory, in any order: BLAKE3 is a tree.

Of each group of chunks one node is kept, 32 bytes of 128 KiB, and the nodes are merged when all are there. What is hashed has been
copied to the device once, and the tensors take their bytes from that same copy: nobody else can write it, so there is no time
between check and use. The kernels are as trusted as those that compute the answers: they come from the same verified bundle.
"""

import torch
from torch import Tensor

from runtime.kernels.digest import NODE_WORDS, DigestKernels


class TreeDigest:
    """Of one file. One thread at a time adds pieces, on one stream."""

    def __init__(self, size_bytes: int, device: torch.device, kernels: DigestKernels) -> None:
        self._kernels = kernels
        num_groups = kernels.count_groups(size_bytes)
        self._is_one_group = num_groups == 1
        self._nodes = torch.empty(num_groups, NODE_WORDS, dtype=torch.int32, device=device)

    def add(self, begin: int, piece: Tensor, size_bytes: int) -> None:
        """Hash the bytes from `begin` on, where a group begins.

        Args:
            piece: [any] uint8: `size_bytes`, which end with a group or the file, and zeroes up to the end of a chunk.
        """
        first, rest = divmod(begin, self._kernels.group_bytes)
        assert rest == 0
        nodes = self._nodes[first : first + self._kernels.count_groups(size_bytes)]
        self._kernels.hash_groups(piece, size_bytes, first, nodes, is_whole=self._is_one_group)

    def hexdigest(self) -> str:
        """Of the whole file, once all pieces were hashed: whoever calls has waited for the stream."""
        return self._kernels.merge(self._nodes).cpu().numpy().tobytes().hex()
