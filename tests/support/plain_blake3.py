"""The kernels of `runtime.kernels.digest` in plain Python: what they leave in their outputs, computed chunk by chunk.

Source: BLAKE3, one function, fast everywhere (2021), section 2.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from runtime.kernels.launching import Constant, Options

START = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
ORDER = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
COLUMNS = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15))
DIAGONALS = ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))
CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8
MASK = 0xFFFFFFFF
PUBLISHED = {
    0: "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
    1: "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213",
    1023: "10108970eeda3eb932baac1428c7a2163b0e924c9a9e25b35bba72b28f70bd11",
    1024: "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7",
    1025: "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444",
    2049: "5f4d72f40d7a5f82b15ca2b2e44b1de3c2ef86c426c95c1af0b6879522563030",
    3072: "b98cb0ff3623be03326b373de6b9095218513e64f1ee2edd2525c7ad1e5cffd2",
    3073: "7124b49501012f81cc7f11ca069ec9226cecb8a2c850cfe644e327d22d3e1cd3",
    4097: "9b4052b38f1c5fc8b1f9ff7ac7b27cd242487b3d890d15c96a1c25b8aa0fb995",
    5121: "628bd2cb2004694adaab7bbd778a25df25c47b9d4155a55f8fbd79f2fe154cff",
    7169: "a003fc7a51754a9b3c7fae0367ab3d782dccf28855a03d435f8cfe74605e7817",
}
"""Of the test vectors that BLAKE3's authors publish: digests by length of `published_input`."""


def published_input(length: int) -> bytes:
    """0 to 250, again and again."""
    return bytes(index % 251 for index in range(length))


def compress(node: Sequence[int], block: bytes, counter: int, length: int, flags: int) -> list[int]:
    """The first eight words of the compression function."""
    words = [int.from_bytes(block[at : at + 4], "little") for at in range(0, 64, 4)]
    state = [*node, *START[:4], counter & MASK, counter >> 32, length, flags]
    for _ in range(7):
        for index, (a, b, c, d) in enumerate(COLUMNS + DIAGONALS):
            for word, first, second in ((words[2 * index], 16, 12), (words[2 * index + 1], 8, 7)):
                state[a] = (state[a] + state[b] + word) & MASK
                state[d] = rotate(state[d] ^ state[a], first)
                state[c] = (state[c] + state[d]) & MASK
                state[b] = rotate(state[b] ^ state[c], second)
        words = [words[place] for place in ORDER]
    return [state[index] ^ state[index + 8] for index in range(8)]


def rotate(word: int, count: int) -> int:
    """To the right."""
    return (word >> count | word << (32 - count)) & MASK


def hash_chunk(chunk: bytes, counter: int, root: int) -> list[int]:
    """The node of one chunk."""
    node: list[int] = list(START)
    blocks = [chunk[at : at + 64] for at in range(0, max(1, len(chunk)), 64)]
    for index, block in enumerate(blocks):
        flags = (CHUNK_START if index == 0 else 0) | (CHUNK_END | root if index == len(blocks) - 1 else 0)
        node = compress(node, block.ljust(64, b"\0"), counter, len(block), flags)
    return node


def merge(nodes: list[list[int]], root: int) -> list[int]:
    """The node above neighbours: the left subtree is as large as a power of two can be."""
    if len(nodes) == 1:
        return nodes[0]
    left = 1 << (len(nodes) - 1).bit_length() - 1
    words = merge(nodes[:left], 0) + merge(nodes[left:], 0)
    return compress(START, b"".join(word.to_bytes(4, "little") for word in words), 0, 64, PARENT | root)


class PlainLauncher:
    """See `runtime.kernels.launching.Launcher`; tensors are on the CPU."""

    def launch(
        self,
        kernel: str,
        grid: tuple[int, int, int],
        arguments: Sequence[Any],
        constants: Mapping[str, Constant],
        options: Options,
    ) -> None:
        """One of the two kernels."""
        group = int(constants["GROUP"])
        work = {"digest.hash_chunks": self._hash_chunks, "digest.merge_nodes": self._merge_nodes}[kernel]
        for program in range(grid[0]):
            work(program, group, *arguments)

    def _hash_chunks(
        self, program: int, group: int, content: torch.Tensor, out: torch.Tensor, size: int, first: int, is_root: int
    ) -> None:
        held = content.numpy().tobytes()[:size][program * group * 1024 : (program + 1) * group * 1024]
        root, chunks = ROOT * is_root, [held[at : at + 1024] for at in range(0, max(1, len(held)), 1024)]
        start = (first + program) * group
        nodes = [hash_chunk(chunk, start + index, root * (len(chunks) == 1)) for index, chunk in enumerate(chunks)]
        store(merge(nodes, root), out[program])

    def _merge_nodes(
        self, program: int, group: int, nodes: torch.Tensor, parents: torch.Tensor, count: int, is_root: int
    ) -> None:
        words = [
            [word & MASK for word in node] for node in nodes[:count][program * group : (program + 1) * group].tolist()
        ]
        store(merge(words, ROOT * is_root), parents[program])


def store(node: list[int], out: torch.Tensor) -> None:
    """Words as int32."""
    out.copy_(torch.tensor(node, dtype=torch.int64).to(torch.int32))
