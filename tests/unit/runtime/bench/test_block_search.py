"""What the search for blocks tries, and how it comes to a table."""

from collections.abc import Mapping

import pytest

from runtime.bench import block_search
from runtime.bench.block_search import ORDER, candidates, fits, neighbours, search
from runtime.bench.decode_chain import SHAPES
from runtime.kernels.blocks import GemvBlocks, choose_blocks
from runtime.kernels.recording import RecordingLauncher


@pytest.mark.parametrize("rows", [1, 2, 4, 8, 16, 128])
def test_candidates_differ_and_fit_the_kernels(rows: int) -> None:
    """No way twice; the tensor cores take 16 columns, and more than two rows no sums on the vector units."""
    ways = candidates(rows)
    assert len(set(ways)) == len(ways)
    assert all(way.kernel == "multiply_reduce" or way.block_n >= 16 for way in ways)
    assert rows <= 2 or all(way.kernel != "multiply_reduce" for way in ways)


def test_neighbours_are_cut_alike() -> None:
    """All other moments for the next kernel and for a kernel's own weights, and not the one that is known."""
    blocks = GemvBlocks("split_dot", 16, 256, 4, 2)
    ways = neighbours(blocks)
    assert len(ways) == 7
    assert blocks not in ways
    assert {(way.kernel, way.block_n, way.block_k, way.num_warps, way.num_stages) for way in ways} == {
        ("split_dot", 16, 256, 4, 2)
    }


@pytest.mark.parametrize(("rows", "swiglu", "expected"), [(8, False, True), (128, False, True), (128, True, False)])
def test_what_finds_no_room_is_not_tried(rows: int, swiglu: bool, expected: bool) -> None:
    """Six tiles of 64 columns and the rows, 128 inputs each: 16 rows at least, twice the columns under an activation."""
    assert fits(GemvBlocks("dot", 64, 128, 4, 4), rows, swiglu=swiglu, quantized=False) is expected
    assert fits(GemvBlocks("dot", 64, 128, 4, 4), rows, swiglu=swiglu, quantized=True)
    assert not fits(GemvBlocks("dot", 64, 256, 4, 6), rows, swiglu=swiglu, quantized=False)


class ScriptedChain:
    """A step whose time follows from its blocks: the first table's, less what some ways save."""

    savings: Mapping[GemvBlocks, float] = {}

    def __init__(self, launcher: object, *, max_rows: int, quantized: bool) -> None:
        pass

    def compile(self, rows: int, tables: object) -> None:
        pass

    def seconds(self, rows: int, *, blocks: Mapping[str, GemvBlocks]) -> float:
        return 1.0 - sum(self.savings.get(way, 0.0) for way in blocks.values())


def test_the_best_ways_lead_to_the_shortest_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each product keeps the best way found for it, refined at the end; what is no better than all before is not told as best."""
    good, better = candidates(8)[6], candidates(8)[9]
    refined = neighbours(better)[2]
    monkeypatch.setattr(block_search, "DecodeChain", ScriptedChain)
    monkeypatch.setattr(ScriptedChain, "savings", {good: 0.01, better: 0.02, refined: 0.05})
    trials = list(search(RecordingLauncher(), 8))
    best = [trial for trial in trials if trial.is_best]
    assert [trial.blocks for trial in best[: len(SHAPES)]] == [choose_blocks(shape, 8) for shape in SHAPES.values()]
    table = {trial.name: trial.blocks for trial in best}
    assert table == dict.fromkeys(ORDER, refined)
    assert min(trial.seconds for trial in trials) == best[-1].seconds == pytest.approx(1 - 5 * 0.05)
