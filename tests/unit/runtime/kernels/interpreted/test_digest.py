"""`runtime.kernels.digest`, interpreted, against the library."""

import random

import pytest
import torch
from blake3 import blake3

from runtime.kernels.digest import DigestKernels, padded
from runtime.kernels.launcher import JitLauncher
from runtime.weights.tree_digest import TreeDigest
from tests.support.plain_blake3 import PUBLISHED, hash_chunk, published_input

CPU = torch.device("cpu")


def digest_of(content: bytes, group_chunks: int, order: random.Random) -> str:
    """By a group a piece, in any order."""
    kernels = DigestKernels(JitLauncher(), group_chunks=group_chunks)
    digest = TreeDigest(len(content), CPU, kernels)
    starts = list(range(0, max(1, len(content)), kernels.group_bytes))
    order.shuffle(starts)
    for start in starts:
        piece = content[start : start + kernels.group_bytes]
        memory = torch.zeros(max(1024, padded(len(piece))), dtype=torch.uint8)
        memory.numpy()[: len(piece)] = bytearray(piece)
        digest.add(start, memory, len(piece))
    return digest.hexdigest()


@pytest.mark.parametrize(
    ("length", "group_chunks"),
    [
        (0, 2), (1, 4), (63, 2), (64, 2), (65, 2), (2049, 4),
        *(
            pytest.param(length, group_chunks, marks=pytest.mark.long)
            for length, group_chunks in [
                (127, 2), (128, 2), (1023, 2), (1024, 2), (1025, 4), (2047, 2), (2048, 2), (3072, 4), (3073, 4), (4096, 4),
                (4097, 2), (5120, 2), (5121, 4), (6144, 2), (7169, 2), (8192, 4), (8193, 2), (16385, 4),
            ]
        ),
    ],
)  # fmt: skip
def test_digest_is_the_librarys(length: int, group_chunks: int) -> None:
    """Lengths of the official vectors, and numbers of chunks and groups of all kinds; the last piece may come first."""
    content = published_input(length)
    found = digest_of(content, group_chunks, random.Random(length))
    assert found == blake3(content).hexdigest() == PUBLISHED.get(length, found)


def test_chunks_are_counted_beyond_32_bits() -> None:
    """The counter of a chunk has two words: group 2**30 of 4 chunks begins with chunk 2**32."""
    kernels = DigestKernels(JitLauncher(), group_chunks=4)
    content = torch.zeros(1024, dtype=torch.uint8)
    content[:65] = torch.arange(65)
    node = torch.empty(1, 8, dtype=torch.int32)
    kernels.hash_groups(content, 65, 1 << 30, node, is_whole=False)
    expected = hash_chunk(content[:65].numpy().tobytes(), 1 << 32, 0)
    assert [word & 0xFFFFFFFF for word in node[0].tolist()] == expected
