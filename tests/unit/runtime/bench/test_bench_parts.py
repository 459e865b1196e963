"""Lines of `casemate bench kernels`: every kernel's has its share of the wall."""

import json
import math
from collections.abc import Iterator, Sequence
from typing import cast

import pytest

from runtime.bench import parts
from runtime.bench.kernels import KernelResult
from runtime.bench.parts import Line, Walls, measure_part
from runtime.kernels.launching import Launcher

WALLS = Walls(copy_tb_s=4.0, bf16_tflop_s=800.0, e4m3_tflop_s=1600.0)
LAUNCHER = cast(Launcher, None)


def measured(monkeypatch: pytest.MonkeyPatch, name: str, line: Line) -> Line:
    """What becomes of a part's only line."""

    def part(_launcher: Launcher, _rows: Sequence[int]) -> Iterator[Line]:
        yield line

    monkeypatch.setattr(parts, "PARTS", {name: part})
    (found,) = measure_part(name, LAUNCHER, [1], WALLS)
    return found


@pytest.mark.parametrize(
    ("name", "rates", "share"),
    [
        ("linear", {"tb_s": 3.0}, 0.75),
        ("kernels", {"tb_s": 1.0, "tflop_s": 600.0}, 0.75),
        ("kernels", {"tb_s": 3.6, "tflop_s": 80.0}, 0.9),
        ("e4m3", {"tb_s": 0.4, "tflop_s": 800.0}, 0.5),
    ],
    ids=["memory alone", "arithmetic", "memory", "arithmetic in e4m3"],
)
def test_the_nearer_wall_counts(monkeypatch: pytest.MonkeyPatch, name: str, rates: Line, share: float) -> None:
    """Of memory and arithmetic, that of the products' own type."""
    assert measured(monkeypatch, name, rates) == {"part": name} | rates | {"wall_share": share}


def test_what_is_no_single_kernel_has_no_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole step, or a count of trials."""
    assert measured(monkeypatch, "chain", {"rows": 4, "us": 5700.0}) == {"part": "chain", "rows": 4, "us": 5700.0}


@pytest.mark.parametrize(
    ("reference_s", "names"), [(2e-6, {"torch_us"}), (math.nan, set())], ids=["beside torch", "alone"]
)
def test_a_kernel_that_torch_lacks_has_no_time_of_it(reference_s: float, names: set[str]) -> None:
    """NaN would not be JSON."""
    result = KernelResult("decode attention", "1x640", 0.002, 1e-6, reference_s, 1_000.0)
    line = parts._kernel_line(result)
    assert {name for name in line if name == "torch_us"} == names
    json.dumps(line, allow_nan=False)
