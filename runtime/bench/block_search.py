"""The best blocks of every product of a decode step, found in the step: what `runtime.kernels.blocks.TABLE` is made of.

One product is changed at a time, beginning with those that read most, the others staying at the best found so far; then how
each best one shares the device with its neighbours (`late`, `prefetch`). What is found fits the chain of kernels that there
is, so after a change to one of them it is to be searched again.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from runtime.bench import quantized_layers
from runtime.bench.decode_chain import E4M3_SHAPES, SHAPES, DecodeChain
from runtime.kernels.blocks import MAX_ROWS, GemvBlocks, choose_blocks, choose_e4m3_blocks
from runtime.kernels.launching import Launcher

ORDER = ("gate_up", "down", "qkv", "o", "head")
_SHARED_BYTES = 227 << 10
_SPLIT_DOTS = (
    (16, 256, 4, 1), (16, 256, 4, 2), (16, 256, 4, 3), (16, 128, 8, 2), (16, 128, 8, 3), (16, 256, 8, 1), (16, 512, 4, 1),
    (16, 128, 4, 3), (16, 512, 2, 2), (16, 256, 2, 3), (32, 128, 4, 2), (32, 128, 4, 3), (32, 256, 4, 1), (32, 128, 8, 1),
    (32, 128, 8, 2), (32, 64, 8, 2), (32, 128, 4, 4), (32, 256, 4, 2), (64, 64, 4, 3), (64, 128, 4, 2), (64, 64, 8, 2),
)  # fmt: skip
_DOTS = (
    GemvBlocks("dot", 16, 256, 1, 4, 1024),
    GemvBlocks("dot", 16, 256, 1, 6),
    GemvBlocks("dot", 16, 512, 1, 3, 1024),
    GemvBlocks("dot", 16, 512, 1, 3, late=True),
    GemvBlocks("dot", 64, 128, 4, 4, late=True),
)
_WIDE = (
    (64, 64, 4, 4), (64, 64, 4, 6), (64, 64, 4, 8), (64, 64, 4, 12), (64, 128, 4, 3), (64, 128, 4, 4), (64, 128, 4, 6),
    (64, 256, 4, 2), (64, 256, 4, 3), (64, 256, 4, 4), (64, 256, 4, 5), (64, 256, 4, 6), (64, 512, 4, 3), (64, 512, 4, 4),
    (128, 64, 4, 6), (128, 128, 4, 3), (128, 128, 8, 3), (128, 128, 8, 4), (128, 64, 8, 4), (128, 256, 8, 3),
)  # fmt: skip
"""Of `dot`, for a group of warps. As many tiles on their way as find room: where few programs share the reading, each has to."""
_REDUCES = (
    GemvBlocks("multiply_reduce", 1, 2048, 4),
    GemvBlocks("multiply_reduce", 1, 4096, 8),
    GemvBlocks("multiply_reduce", 2, 1024, 4),
    GemvBlocks("multiply_reduce", 2, 2048, 4),
    GemvBlocks("multiply_reduce", 2, 4096, 8),
    GemvBlocks("multiply_reduce", 4, 1024, 4),
    GemvBlocks("multiply_reduce", 4, 2048, 4),
)

Table = dict[str, GemvBlocks | None]


@dataclass(frozen=True, slots=True)
class Trial:
    """One way to cut one product, and the step's time with it."""

    name: str
    """The product's, as in `decode_chain.SHAPES`."""
    blocks: GemvBlocks | None
    """None: cuBLAS, where the frozen table leaves it the product."""
    seconds: float
    is_best: bool
    """Of all so far; the first of each product are those of the frozen table."""


def candidates(rows: int, *, quantized: bool = False) -> list[GemvBlocks]:
    """What is worth trying for any product in which it fits."""
    wide = [GemvBlocks("dot", *cut) for cut in _WIDE]
    if quantized:
        narrow = [(16, 256, 4, 4), (32, 256, 4, 2), (32, 128, 8, 2)] if rows <= MAX_ROWS else [(32, 128, 4, 3)]
        split = [GemvBlocks("split_dot", *cut) for cut in narrow]
        return list(dict.fromkeys([*quantized_layers.candidates(rows, by_block=False), *split, *wide]))
    if rows == 1:
        return list(_REDUCES)
    if rows > MAX_ROWS:
        return wide
    tiles = [GemvBlocks("split_dot", *cut) for cut in _SPLIT_DOTS]
    return list(dict.fromkeys([*_DOTS, *tiles, *wide, *(_REDUCES if rows == 2 else ())]))


def fits(blocks: GemvBlocks, rows: int, *, swiglu: bool, quantized: bool) -> bool:
    """Whether what `dot` has on its way finds room in a multiprocessor's shared memory."""
    if blocks.kernel != "dot":
        return True
    size = 1 if quantized else 2
    weights = (2 if swiglu else 1) * blocks.block_n
    tile = (weights + max(blocks.fewest_rows, 1 << (rows - 1).bit_length())) * blocks.block_k * size
    # In e4m3 the first tile, which is on its way before the wait, has room of its own.
    return tile * (blocks.num_stages + quantized) <= _SHARED_BYTES


def neighbours(blocks: GemvBlocks) -> list[GemvBlocks]:
    """The same cut, and other moments for the next kernel and for its own weights."""
    prefetches = (0, 512, 1024, 4096)
    ways = [replace(blocks, late=late, prefetch=prefetch) for late in (False, True) for prefetch in prefetches]
    return [way for way in ways if way != blocks]


def search(launcher: Launcher, rows: int, *, quantized: bool = False) -> Iterator[Trial]:
    """Every trial for a step of so many rows, in the order in which they are made; those that are `is_best` lead to the table.

    Args:
        quantized: with weights in e4m3; the head stays as it is.
    """
    chain = DecodeChain(launcher, max_rows=rows, quantized=quantized)
    table = frozen_table(rows, quantized=quantized)
    order = [name for name in ORDER if name in table]
    shortest = chain.seconds(rows, blocks=table)
    for name, blocks in table.items():
        yield Trial(name, blocks, shortest, True)
    for is_refined in (False, True):
        ways = {name: _ways(name, table[name], rows, quantized=quantized, is_refined=is_refined) for name in order}
        chain.compile(rows, [table | dict(zip(order, row, strict=True)) for row in _side_by_side(ways, table)])
        for name in order:
            for way in ways[name]:
                seconds = chain.seconds(rows, blocks=table | {name: way})
                yield Trial(name, way, seconds, seconds < shortest)
                if seconds < shortest:
                    shortest, table = seconds, table | {name: way}


def _ways(name: str, best: GemvBlocks | None, rows: int, *, quantized: bool, is_refined: bool) -> list[GemvBlocks]:
    if is_refined:
        return [] if best is None else neighbours(best)
    swiglu = not quantized and SHAPES[name].swiglu
    ways = candidates(rows, quantized=quantized)
    return [way for way in ways if fits(way, rows, swiglu=swiglu, quantized=quantized)]


def _side_by_side(ways: Mapping[str, Sequence[GemvBlocks]], table: Table) -> Iterator[list[GemvBlocks | None]]:
    """One table for each place in the longest list, so that all ways of all products are compiled in as many steps."""
    for place in range(max(map(len, ways.values()))):
        yield [row[place] if place < len(row) else table[name] for name, row in ways.items()]


def frozen_table(rows: int, *, quantized: bool) -> Table:
    """What the engine takes, None being cuBLAS; of a quantized model without its head."""
    if not quantized:
        return {name: choose_blocks(shape, rows) for name, shape in SHAPES.items()}
    return {
        name: choose_e4m3_blocks(shape, rows, by_block=False) for name, shape in E4M3_SHAPES.items() if name != "head"
    }
