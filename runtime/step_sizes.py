"""Numbers of rows at which a step costs little for each row: those of graphs, and those that the scheduler fills steps up to.

Products are cut into tiles, and which tiles cuBLAS takes changes with the number of rows, not always for the better. Steps of
Llama-3.1-8B in ms, torch 2.11.0. Without decodes on an H100 (`python -m tests.bench.steps MODEL --only rows`):

    rows    64   128   192   256   320   384   448   512   640   704   768   896  1024  1280  1536  1792  2048
    bf16   6.4   6.8   7.0   7.9   9.2  10.0  15.5  12.5  15.9  17.8  17.9  23.4  24.0  30.2  36.2  42.7  48.7
    FP8    4.4   5.1   5.5   5.8   7.0   7.1   8.7   8.2  10.8  12.4  12.5  13.9  15.2  19.3  22.4  26.9  30.0

and prompt rows beside 60 decodes over 1,150 tokens on an H200, each step repeated until the clock had settled:

    rows            60   256   384   512   640   768  1024
    bf16          7.05  9.87 12.13 15.07 18.14 20.55 26.74
    FP8           5.21  7.69  9.18 10.15 12.50 14.17 16.92

So 448 rows take longer than 512, and 896 about as long as 1,024: sizes like these are left out. A step that has 300 rows is padded
to 320. But where the scheduler may choose, it does not fill steps up to 320 or 640: two steps of 256 rows and one of 384 do more
than three of 320 in less time. With weights in e4m3, whose products are the quickest for a row at 512, steps of 512 and steps that
only decode, in turn, do more than steps of 256 and 384: a prompt row costs 10.9 µs in the former and 12.4 in the latter.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

STEP_SIZES = (16, 32, 64, 128, 192, 256, 320, 384, 512, 640, 768, 1024, 1280, 1536, 2048)
"""Ascending: what a step is padded to."""
_TILE_ROWS = 256
"""Beyond the largest filled size."""


@dataclass(frozen=True, slots=True)
class MixedSizes:
    """What steps with decodes and prompts are filled up to: sizes that no mixture of others is cheaper than."""

    sizes: tuple[int, ...]
    """Ascending, all among STEP_SIZES; the least is a number of rows with which the device does not wait for weights."""
    in_turn: bool = False
    """Whether steps of the second size, and steps without prompts between them, are cheaper than steps of the least."""

    def around(self, num_rows: int) -> tuple[int, int]:
        """The largest size that is at most `num_rows`, and the next; the two smallest if there is none below."""
        if num_rows >= self.sizes[-1]:
            below = num_rows // _TILE_ROWS * _TILE_ROWS
            return below, below + _TILE_ROWS
        place = max(1, bisect_right(self.sizes, num_rows))
        return self.sizes[place - 1], self.sizes[place]


MIXED_SIZES = MixedSizes((256, 384, 512, 768, 1024, 1280, 1536, 2048))
"""Within 2 %, for weights in 16 bits."""
E4M3_MIXED_SIZES = MixedSizes((256, 512, 1024, 1536, 2048), in_turn=True)


def smallest_holding(sizes: Sequence[int], count: int) -> int | None:
    """The smallest of the ascending `sizes` that is at least `count`; None if all are smaller."""
    place = bisect_left(sizes, count)
    return sizes[place] if place < len(sizes) else None
