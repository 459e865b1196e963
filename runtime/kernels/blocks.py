"""How products of few rows are cut: tables that were measured once, and a rule for the shapes that are not in them.

Where every kernel waits for another's output, what counts is how soon its first weights arrive, so the best cut of one product
alone is not its best in a step. The entries are what `casemate bench kernels search` (for e4m3 `search_e4m3`) found, which changes
one product at a time within a whole decode step of Llama-3.1-8B with a context of 640, with torch 2.11.0 and Triton 3.6.0.

Those in bf16 are from an H200 (a copy moves 4.23 TB/s): a step of 1 row takes 3.87 ms there, one of 8 rows 4.42 ms. By the entries
before, which an H100 had chosen, it was 4.14 and 4.84 ms. On an H100 (3.0 TB/s) the same entries take 5.24 and 5.83 ms, those
before 5.29 and 5.88. Steps of 2 to 7 rows take the entries of 8. Those in e4m3 are from the H100: a step of 1 row 3.31 ms (before
3.43), of 8 rows 3.91 ms (4.17), of 16 rows 4.17 ms (4.33).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

MAX_ROWS = 8


@dataclass(frozen=True, slots=True)
class GemvBlocks:
    """How a product is cut. See `runtime.kernels.triton.linear` for the kernels."""

    kernel: str
    """`multiply_reduce`, `dot` or `split_dot`"""
    block_n: int
    """Output columns of a program; but for `multiply_reduce` at least 16."""
    block_k: int
    """Inputs of a step; of one warp's part of it for `split_dot`."""
    num_warps: int
    num_stages: int = 1
    """Tiles on their way at once, but for `multiply_reduce`."""
    prefetch: int = 0
    """Inputs of each weight row that are asked for in L2 while the kernel before still runs; a power of 2 of at least 64."""
    first_tile: bool = False
    """For `dot`: its first tile of weights is on its way before the wait, in registers, as `multiply_reduce`'s always is."""
    late: bool = False
    """The next kernel may start only when this one has read its weights, not at once: it holds no memory of this one's
    multiprocessors meanwhile."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A product: `n` output columns (a fused activation's, not the weight's rows) of `k` inputs."""

    n: int
    k: int
    swiglu: bool = False


TABLE: Mapping[Shape, Mapping[int, GemvBlocks]] = {
    Shape(6144, 4096): {
        1: GemvBlocks("multiply_reduce", 2, 4096, 8, late=True),
        MAX_ROWS: GemvBlocks("split_dot", 32, 128, 4, 3, 1024, late=True),
    },
    Shape(4096, 4096): {
        1: GemvBlocks("multiply_reduce", 2, 4096, 8),
        MAX_ROWS: GemvBlocks("split_dot", 16, 256, 4, 3),
    },
    Shape(14336, 4096, swiglu=True): {
        1: GemvBlocks("multiply_reduce", 2, 4096, 8),
        MAX_ROWS: GemvBlocks("split_dot", 32, 128, 4, 2),
    },
    Shape(4096, 14336): {
        1: GemvBlocks("multiply_reduce", 2, 2048, 4),
        MAX_ROWS: GemvBlocks("split_dot", 16, 256, 4, 3),
    },
    Shape(128256, 4096): {
        1: GemvBlocks("multiply_reduce", 2, 4096, 8),
        MAX_ROWS: GemvBlocks("split_dot", 32, 128, 4, 2, late=True),
    },
}
"""Blocks by shape and the largest number of rows that they are for."""


E4M3_MOST_ROWS = 64

E4M3_TABLE: Mapping[Shape, Mapping[int, GemvBlocks]] = {
    Shape(6144, 4096): {
        1: GemvBlocks("multiply_reduce", 4, 4096, 4),
        2: GemvBlocks("multiply_reduce", 2, 2048, 4),
        MAX_ROWS: GemvBlocks("dot", 16, 256, 1, 6),
        E4M3_MOST_ROWS: GemvBlocks("dot", 64, 256, 4, 4),
    },
    Shape(4096, 4096): {
        1: GemvBlocks("multiply_reduce", 4, 4096, 4),
        2: GemvBlocks("multiply_reduce", 2, 2048, 4),
        MAX_ROWS: GemvBlocks("split_dot", 16, 256, 4, 2),
        16: GemvBlocks("dot", 64, 128, 4, 8, late=True),
        E4M3_MOST_ROWS: GemvBlocks("dot", 64, 256, 4, 4),
    },
    Shape(28672, 4096): {
        1: GemvBlocks("multiply_reduce", 1, 4096, 4),
        2: GemvBlocks("multiply_reduce", 2, 2048, 4),
        MAX_ROWS: GemvBlocks("dot", 16, 256, 1, 6, late=True),
        16: GemvBlocks("dot", 64, 256, 4, 3, late=True),
        E4M3_MOST_ROWS: GemvBlocks("dot", 64, 256, 4, 4),
    },
    Shape(4096, 14336): {
        1: GemvBlocks("split_dot", 16, 256, 4, 3),
        2: GemvBlocks("multiply_reduce", 2, 2048, 4),
        MAX_ROWS: GemvBlocks("dot", 16, 256, 1, 6, late=True),
        16: GemvBlocks("dot", 64, 128, 4, 8),
        E4M3_MOST_ROWS: GemvBlocks("dot", 64, 256, 4, 4),
    },
}
"""The same for weights in e4m3 with a scale for each output; a fused activation is a kernel of its own there."""


def choose_blocks(shape: Shape, rows: int) -> GemvBlocks:
    """The table's, or those of the nearest shape in it, cut down to the inputs that there are. For up to MAX_ROWS rows."""
    return _choose(TABLE, shape, rows)


def choose_e4m3_blocks(shape: Shape, rows: int, *, by_block: bool) -> GemvBlocks:
    """For weights in e4m3 and up to E4M3_MOST_ROWS rows. With scales by block a step is one block of inputs."""
    if by_block:
        return GemvBlocks("dot", 32, 128, 2, 5) if rows <= MAX_ROWS else GemvBlocks("dot", 64, 128, 4, 6)
    return _choose(E4M3_TABLE, shape, rows)


def _choose(table: Mapping[Shape, Mapping[int, GemvBlocks]], shape: Shape, rows: int) -> GemvBlocks:
    nearest = min((known for known in table if known.swiglu == shape.swiglu), key=lambda known: _distance(known, shape))
    most = min(most for most in table[nearest] if rows <= most)
    blocks = table[nearest][most]
    return replace(blocks, block_k=min(blocks.block_k, _power_of_two(shape.k)))


def _distance(known: Shape, asked: Shape) -> float:
    """Of two shapes: by how many doublings they differ."""
    return abs(math.log2(known.n / asked.n)) + abs(math.log2(known.k / asked.k))


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()
