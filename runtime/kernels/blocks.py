"""How products of few rows are cut: tables that were measured once, and a rule for the shapes that are not in them.

Where every kernel waits for another's output, what counts is how soon its first weights arrive, so the best cut of one product
alone is not its best in a step. The entries are what `casemate bench kernels search` (for e4m3 `search_e4m3`) found, which changes
one product at a time within a whole decode step of Llama-3.1-8B with a context of 640, with torch 2.11.0 and Triton 3.6.0. They
are from an H200 (a copy moves 4.2 TB/s), but for those of 128 rows, which are from an H100 (3.0 TB/s). Steps of 3 to 7 rows take
the entries of 8, and so on. docs/engine-speed.md has the times.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache

MAX_ROWS = 8
"""Up to so many rows a norm, where there is one, is part of the product."""
MOST_ROWS = 128
"""Beyond so many rows cuBLAS multiplies."""


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

    @property
    def fewest_rows(self) -> int:
        """The narrow side of the tensor cores' products: 16 where a group of warps multiplies from shared memory, which takes
        weights in e4m3 as they are; else 8."""
        return 16 if self.kernel == "dot" and self.block_n >= 64 and self.num_warps >= 4 else 8


@dataclass(frozen=True, slots=True)
class Shape:
    """A product: `n` output columns (a fused activation's, not the weight's rows) of `k` inputs."""

    n: int
    k: int
    swiglu: bool = False


TABLE: Mapping[Shape, Mapping[int, GemvBlocks | None]] = {
    Shape(6144, 4096): {
        1: GemvBlocks("multiply_reduce", 2, 4096, 8, late=True),
        MAX_ROWS: GemvBlocks("dot", 64, 256, 4, 4, 512),
        16: GemvBlocks("dot", 64, 256, 4, 5, 512),
        32: GemvBlocks("dot", 64, 256, 4, 4, 512),
        64: GemvBlocks("dot", 64, 128, 4, 6, 512),
        MOST_ROWS: GemvBlocks("dot", 64, 64, 4, 8, 512),
    },
    Shape(4096, 4096): {
        1: GemvBlocks("multiply_reduce", 2, 4096, 8),
        MAX_ROWS: GemvBlocks("split_dot", 32, 128, 4, 4, late=True),
        16: GemvBlocks("dot", 64, 256, 4, 4),
        32: GemvBlocks("dot", 64, 128, 4, 6, 512, late=True),
        64: GemvBlocks("dot", 64, 64, 4, 12, 4096),
        MOST_ROWS: None,
    },
    Shape(14336, 4096, swiglu=True): {
        1: GemvBlocks("multiply_reduce", 2, 4096, 8),
        MAX_ROWS: GemvBlocks("dot", 128, 128, 8, 3),
        16: GemvBlocks("dot", 64, 128, 4, 4, 512, late=True),
        64: GemvBlocks("dot", 64, 128, 4, 4, late=True),
        MOST_ROWS: GemvBlocks("dot", 64, 128, 4, 3),
    },
    Shape(4096, 14336): {
        1: GemvBlocks("multiply_reduce", 2, 2048, 4),
        MAX_ROWS: GemvBlocks("split_dot", 16, 256, 4, 3, late=True),
        16: GemvBlocks("dot", 64, 256, 4, 5, late=True),
        32: GemvBlocks("dot", 64, 256, 4, 4, late=True),
        64: GemvBlocks("dot", 64, 64, 4, 12, 4096),
        MOST_ROWS: None,
    },
    Shape(128256, 4096): {
        1: GemvBlocks("multiply_reduce", 2, 4096, 8),
        MAX_ROWS: GemvBlocks("dot", 128, 128, 8, 3),
        16: GemvBlocks("dot", 128, 128, 8, 3, late=True),
        32: GemvBlocks("dot", 64, 128, 4, 3),
        64: GemvBlocks("dot", 128, 128, 8, 4, 512, late=True),
        MOST_ROWS: GemvBlocks("dot", 128, 128, 8, 3),
    },
}
"""Blocks by shape and the largest number of rows that they are for; None: cuBLAS is faster."""


@dataclass(frozen=True, slots=True)
class InvariantBlocks:
    """How a product is cut whose rows must not depend on how many they are: `rows` by `block_n` outputs a program."""

    rows: int
    block_n: int
    block_k: int
    num_warps: int
    num_stages: int


_INVARIANT_TABLE = (
    InvariantBlocks(16, 64, 256, 4, 4),
    InvariantBlocks(32, 64, 128, 4, 6),
    InvariantBlocks(64, 64, 128, 4, 4),
    InvariantBlocks(128, 128, 64, 8, 4),
    InvariantBlocks(256, 128, 64, 8, 4),
)
"""Tiles of whole groups of warps, which all sum an output up in the same way; the last is for any number of rows."""


E4M3_MOST_ROWS = 64

E4M3_TABLE: Mapping[Shape, Mapping[int, GemvBlocks]] = {
    Shape(6144, 4096): {
        1: GemvBlocks("multiply_reduce", 2, 4096, 4, prefetch=1024),
        2: GemvBlocks("dot", 64, 512, 4, 4),
        16: GemvBlocks("dot", 64, 512, 4, 3, 512),
        32: GemvBlocks("dot", 64, 512, 4, 3, 1024),
        E4M3_MOST_ROWS: GemvBlocks("dot", 64, 256, 4, 5, 512),
    },
    Shape(4096, 4096): {
        1: GemvBlocks("multiply_reduce", 4, 4096, 4, prefetch=512),
        2: GemvBlocks("dot", 64, 256, 4, 6, 4096, late=True),
        MAX_ROWS: GemvBlocks("dot", 64, 256, 4, 6, 2048),
        16: GemvBlocks("dot", 64, 512, 4, 4, 1024),
        32: GemvBlocks("dot", 64, 256, 4, 6, 1024),
        E4M3_MOST_ROWS: GemvBlocks("dot", 64, 256, 4, 5, 512),
    },
    Shape(28672, 4096): {
        1: GemvBlocks("multiply_reduce", 2, 2048, 4),
        2: GemvBlocks("dot", 128, 128, 8, 4, late=True),
        16: GemvBlocks("dot", 64, 256, 4, 3, 512, late=True),
        32: GemvBlocks("dot", 128, 128, 4, 3, 1024, late=True),
        E4M3_MOST_ROWS: GemvBlocks("dot", 128, 128, 4, 3, 512, late=True),
    },
    Shape(4096, 14336): {
        1: GemvBlocks("split_dot", 16, 256, 8, 2),
        2: GemvBlocks("dot", 64, 256, 4, 6, 1024),
        MAX_ROWS: GemvBlocks("split_dot", 16, 256, 8, 2, 1024),
        16: GemvBlocks("dot", 64, 512, 4, 4, 512),
        32: GemvBlocks("dot", 64, 256, 4, 6, 1024),
        E4M3_MOST_ROWS: GemvBlocks("dot", 64, 256, 4, 6, 512, late=True),
    },
}
"""The same for weights in e4m3 with a scale for each output; a fused activation is a kernel of its own there."""


@cache
def choose_blocks(shape: Shape, rows: int) -> GemvBlocks | None:
    """The table's, or those of the nearest shape in it, cut down to the inputs that there are; None: cuBLAS is to multiply."""
    if rows > MOST_ROWS:
        return None
    classes = TABLE[_nearest(TABLE, shape)]
    blocks = classes[min(most for most in classes if rows <= most)]
    return None if blocks is None else _cut_down(blocks, shape)


@cache
def choose_invariant_blocks(rows: int, *, swiglu: bool) -> InvariantBlocks:
    """The smallest that holds the rows, or the largest. With a fused activation, which is two products, fewer columns fit."""
    blocks = next((each for each in _INVARIANT_TABLE if rows <= each.rows), _INVARIANT_TABLE[-1])
    return replace(blocks, block_n=64, block_k=min(blocks.block_k, 128), num_stages=4) if swiglu else blocks


@cache
def choose_e4m3_blocks(shape: Shape, rows: int, *, by_block: bool) -> GemvBlocks:
    """For weights in e4m3 and up to E4M3_MOST_ROWS rows. With scales by block a step is one block of inputs."""
    if by_block:
        return GemvBlocks("dot", 32, 128, 2, 5) if rows <= MAX_ROWS else GemvBlocks("dot", 64, 128, 4, 6)
    classes = E4M3_TABLE[_nearest(E4M3_TABLE, shape)]
    return _cut_down(classes[min(most for most in classes if rows <= most)], shape)


def _nearest(known: Iterable[Shape], asked: Shape) -> Shape:
    return min((shape for shape in known if shape.swiglu == asked.swiglu), key=lambda shape: _distance(shape, asked))


def _cut_down(blocks: GemvBlocks, shape: Shape) -> GemvBlocks:
    return replace(blocks, block_k=min(blocks.block_k, _power_of_two(shape.k)))


def _distance(known: Shape, asked: Shape) -> float:
    """Of two shapes: by how many doublings they differ."""
    return abs(math.log2(known.n / asked.n)) + abs(math.log2(known.k / asked.k))


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()
