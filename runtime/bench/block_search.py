"""The best blocks of every product of a decode step, found in the step: what `runtime.kernels.blocks.TABLE` is made of.

One product is changed at a time, beginning with those that read most, the others staying at the best found so far; then how
each best one shares the device with its neighbours (`late`, `prefetch`). What is found fits the chain of kernels that there
is, so after a change to one of them it is to be searched again.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from runtime.bench import quantized_layers
from runtime.bench.decode_chain import E4M3_SHAPES, SHAPES, DecodeChain
from runtime.kernels.blocks import MAX_ROWS, GemvBlocks, choose_blocks, choose_e4m3_blocks
from runtime.kernels.launching import Launcher

ORDER = ("gate_up", "down", "qkv", "o", "head")
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
_REDUCES = (
    GemvBlocks("multiply_reduce", 1, 2048, 4),
    GemvBlocks("multiply_reduce", 1, 4096, 8),
    GemvBlocks("multiply_reduce", 2, 1024, 4),
    GemvBlocks("multiply_reduce", 2, 2048, 4),
    GemvBlocks("multiply_reduce", 2, 4096, 8),
    GemvBlocks("multiply_reduce", 4, 1024, 4),
    GemvBlocks("multiply_reduce", 4, 2048, 4),
)


@dataclass(frozen=True, slots=True)
class Trial:
    """One way to cut one product, and the step's time with it."""

    name: str
    """The product's, as in `decode_chain.SHAPES`."""
    blocks: GemvBlocks
    seconds: float
    is_best: bool
    """Of all so far; the first of each product are those of the frozen table."""


def candidates(rows: int, *, quantized: bool = False) -> list[GemvBlocks]:
    """What is worth trying for any product."""
    if quantized:
        more = (
            [(16, 256, 4, 4), (32, 256, 4, 2), (32, 128, 8, 2), (64, 128, 4, 2)]
            if rows <= MAX_ROWS
            else [(32, 128, 4, 3)]
        )
        return [*quantized_layers.candidates(rows, by_block=False), *(GemvBlocks("split_dot", *cut) for cut in more)]
    if rows == 1:
        return list(_REDUCES)
    tiles = [GemvBlocks("split_dot", *cut) for cut in _SPLIT_DOTS]
    return [*_DOTS, *tiles, *(_REDUCES if rows == 2 else ())]


def neighbours(blocks: GemvBlocks, *, quantized: bool = False) -> list[GemvBlocks]:
    """The same cut, and other moments for the next kernel and for its own weights."""
    prefetches = (0,) if quantized else (0, 1024, 4096)
    ways = [replace(blocks, late=late, prefetch=prefetch) for late in (False, True) for prefetch in prefetches]
    return [way for way in ways if way != blocks]


def search(launcher: Launcher, rows: int, *, quantized: bool = False) -> Iterator[Trial]:
    """Every trial for a step of so many rows, in the order in which they are made; those that are `is_best` lead to the table.

    Args:
        quantized: with weights in e4m3; the head stays as it is.
    """
    chain = DecodeChain(launcher, max_rows=rows, quantized=quantized)
    table: dict[str, GemvBlocks] = frozen_table(rows, quantized=quantized)
    order = [name for name in ORDER if name in table]
    ways = candidates(rows, quantized=quantized)
    head: dict[str, GemvBlocks | None] = {} if rows <= MAX_ROWS or not quantized else {"head": None}
    chain.compile(rows, [head | table, *(head | dict.fromkeys(order, way) for way in ways)])
    shortest = chain.seconds(rows, blocks=head | table)
    for name, blocks in table.items():
        yield Trial(name, blocks, shortest, True)
    for is_refined in (False, True):
        if is_refined:
            moments = zip(*(neighbours(table[name], quantized=quantized) for name in order), strict=False)
            chain.compile(rows, [head | dict(zip(order, row, strict=True)) for row in moments])
        for name in order:
            for way in neighbours(table[name], quantized=quantized) if is_refined else ways:
                seconds = chain.seconds(rows, blocks=head | table | {name: way})
                yield Trial(name, way, seconds, seconds < shortest)
                if seconds < shortest:
                    shortest, table = seconds, table | {name: way}


def frozen_table(rows: int, *, quantized: bool) -> dict[str, GemvBlocks]:
    """What the engine takes; of a quantized model without its head."""
    if not quantized:
        return {name: choose_blocks(shape, rows) for name, shape in SHAPES.items()}
    return {
        name: choose_e4m3_blocks(shape, rows, by_block=False) for name, shape in E4M3_SHAPES.items() if name != "head"
    }
