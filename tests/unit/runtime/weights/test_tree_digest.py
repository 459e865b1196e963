"""A file's digest from its pieces in any order, by kernels that stand in for a GPU's; the kernels' own tests are theirs."""

import random

import pytest
import torch
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.kernels.digest import DigestKernels, padded
from runtime.weights.tree_digest import TreeDigest
from tests.support.plain_blake3 import PUBLISHED, PlainLauncher, published_input


def digest_of(content: bytes, group_chunks: int, groups_each: int, order: random.Random) -> str:
    """Piece by piece."""
    kernels = DigestKernels(PlainLauncher(), group_chunks=group_chunks)
    digest = TreeDigest(len(content), torch.device("cpu"), kernels)
    piece_bytes = groups_each * kernels.group_bytes
    starts = list(range(0, max(1, len(content)), piece_bytes))
    order.shuffle(starts)
    for start in starts:
        piece = content[start : start + piece_bytes]
        memory = torch.zeros(max(1024, padded(len(piece))), dtype=torch.uint8)
        memory.numpy()[: len(piece)] = bytearray(piece)
        digest.add(start, memory, len(piece))
    return digest.hexdigest()


@pytest.mark.parametrize("length", PUBLISHED)
def test_published_digests_are_found(length: int) -> None:
    """By the stand-in for the kernels as well as by the library that all else is compared with."""
    content = published_input(length)
    assert digest_of(content, 2, 1, random.Random(length)) == PUBLISHED[length] == blake3(content).hexdigest()


@given(
    size=st.integers(0, 12_000) | st.sampled_from([0, 1, 1023, 1024, 1025, 2047, 2048, 2049, 4096, 4097, 8192, 8193]),
    group_chunks=st.sampled_from([2, 4, 8]),
    groups_each=st.integers(1, 3),
    seeded=st.randoms(use_true_random=False),
)
@settings(max_examples=40)
def test_any_order_of_pieces_gives_the_digest_of_the_file(
    size: int, group_chunks: int, groups_each: int, seeded: random.Random
) -> None:
    """Whatever the sizes of file, groups and pieces."""
    content = seeded.randbytes(size)
    assert digest_of(content, group_chunks, groups_each, seeded) == blake3(content).hexdigest()
