"""How products of few rows are cut: a table that was measured once, and a rule for the shapes that are not in it.

Measured on an H100 80GB HBM3 (a copy moves 2.98 TB/s) with torch 2.11.0 and Triton 3.6.0. `casemate bench kernels linear` times
each layer of Llama-3.1-8B by itself, `casemate bench kernels chain` times them as a decode step runs them. For one row the best
alone are the best together (a step takes 5.29 ms, before 5.42 ms). For more rows they are not: where every kernel waits for
another's output, what counts is how soon its first weights arrive. So those entries are what `casemate bench kernels search`
found, which changes one product at a time within the step: of 4 rows 5.76 ms and of 8 rows 5.88 ms, with a context of 640.
With the best alone it was 6.49 ms and 6.68 ms. Steps of 2 and 3 rows were not searched and take the same.
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
        1: GemvBlocks("multiply_reduce", 2, 4096, 4),
        MAX_ROWS: GemvBlocks("dot", 16, 256, 1, 6, 1024),
    },
    Shape(4096, 4096): {
        1: GemvBlocks("multiply_reduce", 2, 2048, 4),
        MAX_ROWS: GemvBlocks("split_dot", 16, 256, 8, 1),
    },
    Shape(14336, 4096, swiglu=True): {
        1: GemvBlocks("multiply_reduce", 1, 4096, 8),
        MAX_ROWS: GemvBlocks("dot", 16, 512, 1, 3, 1024),
    },
    Shape(4096, 14336): {
        1: GemvBlocks("multiply_reduce", 1, 16384, 8),
        MAX_ROWS: GemvBlocks("split_dot", 16, 256, 4, 3),
    },
    Shape(128256, 4096): {
        1: GemvBlocks("multiply_reduce", 1, 4096, 4),
        MAX_ROWS: GemvBlocks("split_dot", 32, 128, 4, 3),
    },
}
"""Blocks by shape and the largest number of rows that they are for."""


def choose_blocks(shape: Shape, rows: int) -> GemvBlocks:
    """The table's, or those of the nearest shape in it, cut down to the inputs that there are."""
    nearest = min((known for known in TABLE if known.swiglu == shape.swiglu), key=lambda known: _distance(known, shape))
    most = min(most for most in TABLE[nearest] if rows <= most)
    blocks = TABLE[nearest][most]
    return replace(blocks, block_k=min(blocks.block_k, _power_of_two(shape.k)))


def choose_e4m3_blocks(shape: Shape, rows: int, *, by_block: bool) -> GemvBlocks:
    """For weights in e4m3 and up to 64 rows. With scales by block a step is one block of inputs."""
    if by_block:
        return GemvBlocks("dot", 32, 128, 2, 5) if rows <= MAX_ROWS else GemvBlocks("dot", 64, 128, 4, 6)
    k = _power_of_two(shape.k)
    if rows <= 2:
        return GemvBlocks("multiply_reduce", 2, min(k, 4096 // rows), 4)
    if rows <= MAX_ROWS:
        return GemvBlocks("dot", 16, min(k, 256), 1, 6)
    return GemvBlocks("dot", 64, min(k, 256), 4, 4)


def _distance(known: Shape, asked: Shape) -> float:
    """Of two shapes: by how many doublings they differ."""
    return abs(math.log2(known.n / asked.n)) + abs(math.log2(known.k / asked.k))


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()
