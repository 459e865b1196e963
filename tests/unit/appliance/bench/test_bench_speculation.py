"""The search over drafts: what is tried, what is best, and what to configure."""

from dataclasses import dataclass

import msgspec
import pytest

from appliance.bench.speculation import (
    PLAIN,
    Row,
    Shape,
    best_rows,
    choose_shape,
    configuration_lines,
    find_shapes,
    format_table,
    merge_plain,
    search,
)
from appliance.drafting.tuning import split_shapes, verify_shape
from appliance.errors import CommandFailed
from runtime.settings import EngineSettings
from runtime.speculative.options import speculation_options

SETTINGS = EngineSettings(model_path="m", speculative_algorithm="EAGLE3", speculative_draft_model_path="h")
SHORT, LONG = Shape(2, 1, 3), Shape(5, 1, 6)


@dataclass
class Told:
    """A measurement that is given."""

    tokens_per_s: float
    round_s: float = 0.01
    acceptance_length: float = 2.0


def rows_of(speeds: dict[int, tuple[float, float, float]]) -> list[Row]:
    """Of plain decoding, a short chain and a long one, by batch size."""
    place = {PLAIN: 0, SHORT: 1, LONG: 2}
    return search([SHORT, LONG], list(speeds), lambda shape, batch: Told(speeds[batch][place[shape]]))


def test_chains_are_tried_and_what_the_engine_refuses_is_told() -> None:
    """Two lengths of chains; a chain that says another number of tokens, in the engine's own words."""
    shapes = find_shapes(SETTINGS, [5, 2], [1], [])
    assert (shapes.accepted, shapes.refused) == ([SHORT, LONG], {})
    shapes = find_shapes(SETTINGS, [2], [1], [3, 9])
    assert shapes.accepted == [SHORT]
    assert "speculative_num_draft_tokens" in shapes.refused[Shape(2, 1, 9)]


def test_all_that_is_tried_is_what_the_configuration_accepts() -> None:
    """Trees and chains alike: each combination is either refused with words, or makes options."""
    shapes = find_shapes(SETTINGS, [1, 3], [1, 2, 4], [4, 8])
    assert len(shapes.accepted) + len(shapes.refused) == 12
    for shape in shapes.accepted:
        assert speculation_options(shape.applied(SETTINGS)) is not None


def test_trees_are_tried_beside_chains_by_a_runner_of_their_own_where_it_must_be() -> None:
    """On the reference one takes all; on a GPU one takes all chains, and each tree has its own."""
    found = find_shapes(SETTINGS, [3, 5], [1, 4], [8, 16, 4, 6], verify_shape).accepted
    chains, trees = [Shape(3, 1, 4), Shape(5, 1, 6)], [shape for shape in found if shape.topk == 4]
    assert len(trees) == 7
    assert split_shapes(found, SETTINGS) == [found]
    on_gpu = msgspec.structs.replace(SETTINGS, device="cuda")
    assert split_shapes(found, on_gpu) == [chains, *([tree] for tree in trees)]
    assert split_shapes(trees, on_gpu) == [[tree] for tree in trees]


def test_plain_decoding_that_was_measured_several_times_is_the_median() -> None:
    """A loaded model for the chain and one for each tree: gains are over the same, and no unlucky measurement makes a winner."""
    rows = rows_of({1: (100, 130, 90), 4: (400, 500, 600)}) + rows_of({1: (60, 120, 80)}) + rows_of({1: (110, 140, 70)})
    merged = merge_plain(rows)
    assert [row.shape for row in merged] == [PLAIN, *[SHORT, LONG] * 3, PLAIN, SHORT, LONG]
    assert [round(row.speedup, 2) for row in merged[:7]] == [1.0, 1.3, 0.9, 1.2, 0.8, 1.4, 0.7]
    assert merged[7:] == rows[3:6]
    assert best_rows(merged)[1].tokens_per_s == 140


def test_the_best_of_a_batch_size_is_the_fastest() -> None:
    """And plain decoding, where drafts gain no more than measurements differ by."""
    best = best_rows(rows_of({1: (100, 180, 240), 8: (500, 640, 600), 64: (900, 910, 500)}))
    assert {batch: row.shape for batch, row in best.items()} == {1: LONG, 8: SHORT, 64: PLAIN}
    assert best[1].speedup == pytest.approx(2.4)


def test_the_configuration_gains_most_over_all_sizes() -> None:
    """A loss counts for nothing, as an adaptive engine decodes plainly there."""
    assert choose_shape(rows_of({1: (100, 150, 300), 64: (900, 950, 300)})) == LONG
    assert choose_shape(rows_of({1: (100, 290, 300), 64: (900, 1350, 910)})) == SHORT
    assert choose_shape(rows_of({1: (100, 90, 80), 64: (900, 901, 300)})) == PLAIN


def test_what_to_write_is_what_the_engine_reads() -> None:
    """Five keys of an engine's entry, or none."""
    lines = configuration_lines(LONG, "models/head")
    values = dict(line.split(" = ") for line in lines)
    assert values["speculative_num_steps"] == "5"
    assert values["speculative_draft_model_path"] == '"models/head"'
    assert set(values) <= set(EngineSettings.__struct_fields__)
    assert configuration_lines(PLAIN, "models/head") == []


def test_the_table_names_the_best() -> None:
    """A line a measurement; one mark a batch size."""
    table = format_table(rows_of({1: (100, 150, 300), 4: (300, 200, 100)})).splitlines()
    assert [line.rstrip().endswith("best |") for line in table[2:]] == [False, False, True, True, False, False]


def test_nothing_to_compare_with_is_told() -> None:
    """Answers that are over at once."""
    with pytest.raises(CommandFailed, match="batch size 4: no step"):
        search([SHORT], [4], lambda _shape, _batch: Told(0.0))
