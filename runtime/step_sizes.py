"""Numbers of rows at which a step costs least for each row: what the scheduler fills steps up to, and graphs are captured for.

Products are cut into tiles, and which tiles cuBLAS takes changes with the number of rows, not always for the better. Steps of
Llama-3.1-8B in bf16 on an H100, in ms (`python -m tests.bench.steps MODEL --only rows`, torch 2.11.0):

    rows   64   128   192   256   320   384   448   512   640   704   768   896  1024  1280  1536  2048
    ms    6.5   6.9   7.2   8.1   9.5  10.5  15.9  13.0  16.1  18.7  18.7  23.8  24.4  30.3  38.1  49.4

So 448 rows take longer than 512, and 896 as long as 1,024: sizes like these are left out.
"""

from bisect import bisect_left
from collections.abc import Sequence

STEP_SIZES = (16, 32, 64, 128, 192, 256, 320, 384, 512, 640, 768, 1024, 1280, 1536, 2048)
_TILE_ROWS = 256
"""Beyond the largest."""


def smallest_holding(sizes: Sequence[int], count: int) -> int | None:
    """The smallest of the ascending `sizes` that is at least `count`; None if all are smaller."""
    place = bisect_left(sizes, count)
    return sizes[place] if place < len(sizes) else None


def fill_up(num_rows: int) -> int:
    """The next number of rows that is worth computing."""
    return smallest_holding(STEP_SIZES, num_rows) or -(-num_rows // _TILE_ROWS) * _TILE_ROWS
