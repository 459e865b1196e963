"""BLAKE3 of files whose bytes are in device memory, piece by piece in any order.

The kernels are in `runtime.kernels.triton.digest`. A *group* is so many chunks of 1,024 bytes that follow each other in a file,
counted from its first byte; a *node* is the chaining value of a group, 8 words that are kept as int32.
"""

import torch
from torch import Tensor

from runtime.kernels.launching import Launcher, Options

NODE_WORDS = 8
_CHUNK_BYTES = 1024
_GROUP_CHUNKS = 128
_LANES_PER_WARP = 32


class DigestKernels:
    """Launches on the current stream; one thread at a time."""

    def __init__(self, launcher: Launcher, *, group_chunks: int = _GROUP_CHUNKS) -> None:
        """
        Args:
            group_chunks: how many chunks one program hashes, and how many nodes it merges; a power of 2 from 2.
        """
        self._launcher = launcher
        self._group_chunks = group_chunks
        self.group_bytes = group_chunks * _CHUNK_BYTES

    def hash_groups(self, content: Tensor, size_bytes: int, first_group: int, out: Tensor, *, is_whole: bool) -> None:
        """The nodes of some groups.

        Args:
            content: [any] uint8: groups that follow each other, the last of which may be shorter where the file ends; zeroes from
                `size_bytes` on up to `padded` bytes.
            first_group: how many groups of the file come before.
            out: [groups, 8] int32.
            is_whole: these bytes are the whole file, and not more than one group: its node is the digest.
        """
        num_groups = self.count_groups(size_bytes)
        assert not is_whole or (num_groups == 1 and first_group == 0)
        self._launcher.launch(
            "digest.hash_chunks",
            (num_groups, 1, 1),
            (content.view(torch.int32), out, size_bytes, first_group, int(is_whole)),
            {"GROUP": self._group_chunks},
            self._options,
        )

    def merge(self, nodes: Tensor) -> Tensor:
        """[8] int32: the digest of a file, by the nodes [groups, 8] int32 of all its groups; of a single one it is the digest."""
        while (count := nodes.shape[0]) > 1:
            num_groups = -(-count // self._group_chunks)
            parents = nodes.new_empty(num_groups, NODE_WORDS)
            self._launcher.launch(
                "digest.merge_nodes",
                (num_groups, 1, 1),
                (nodes, parents, count, int(num_groups == 1)),
                {"GROUP": self._group_chunks},
                self._options,
            )
            nodes = parents
        return nodes[0]

    def count_groups(self, size_bytes: int) -> int:
        """Of a file, or a part that begins with a group; an empty file has one, too."""
        return max(1, -(-size_bytes // self.group_bytes))

    @property
    def _options(self) -> Options:
        return Options(num_warps=max(1, self._group_chunks // _LANES_PER_WARP), num_stages=1)


def padded(size_bytes: int) -> int:
    """Rounded up to whole chunks."""
    return -(-size_bytes // _CHUNK_BYTES) * _CHUNK_BYTES
