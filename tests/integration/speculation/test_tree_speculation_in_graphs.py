"""Trees over the runner that a GPU uses, with plain torch as its kernels: rows, masks, paths and moves found on the device, padding
to graphs, trees that the next step takes where the host has not looked yet. Plain decoding is the judge of texts, and the reference
of drafts.
"""

from pathlib import Path
from typing import Any

import pytest

from runtime.runner.building import build_runner
from runtime.speculative.source import HeadSource
from tests.support.device_runners import build_plain_device
from tests.support.draft_heads import EOS
from tests.support.draft_trees import NUM_STEPS, NUM_TREE_DRAFTS, TREES
from tests.support.engine_runs import build_engine, run_all
from tests.support.speculation_runs import NUM_PAGES, Answers, requests, tokens_of

TREE = (TREES["speculative_eagle_topk"], NUM_TREE_DRAFTS + 1)
LONG = pytest.mark.long


@pytest.mark.parametrize(
    ("largest_graph", "overlap"),
    [
        pytest.param(0, True, marks=LONG),
        (3, True),
        pytest.param(16, True, marks=LONG),
        pytest.param(16, False, marks=LONG),
    ],
)
def test_texts_are_those_of_plain_decoding(
    folder: Path, head: HeadSource, plain_answers: Answers, largest_graph: int, *, overlap: bool
) -> None:
    """With graphs for all steps that only decode, for some and for none."""
    device = build_plain_device(
        folder, num_pages=NUM_PAGES, cuda_graph_max_bs=largest_graph, piecewise_cuda_graph_max_tokens=16 * largest_graph,
        head=head, num_steps=NUM_STEPS, tree=TREE,
    )  # fmt: skip
    settings: dict[str, Any] = {"overlap_schedule": overlap, "chunked_prefill_size": 33}
    engine = build_engine(device.runner, eos_token_ids=[EOS], **TREES, **settings)
    assert tokens_of(run_all(engine, requests())) == tokens_of(plain_answers)
    assert engine.stats().num_verified > 100
    assert (engine.stats().num_graph_steps > 0) == (largest_graph > 0)


@pytest.mark.parametrize("overlap", [True, False])
def test_trees_are_those_of_the_reference(folder: Path, head: HeadSource, *, overlap: bool) -> None:
    """The same heads grow the same trees by graphs and by plain torch, in every step: what was accepted was moved there, too."""
    (request,) = (request for request in requests() if request.request_id == 2)
    trees = []
    for runner in (
        build_runner(folder, num_pages=NUM_PAGES, head=head),
        build_plain_device(
            folder, num_pages=NUM_PAGES, head=head, num_steps=NUM_STEPS, tree=TREE, cuda_graph_max_bs=2
        ).runner,
    ):
        engine = build_engine(runner, eos_token_ids=[EOS], overlap_schedule=overlap, **TREES)
        engine.submit(request)
        seen: list[tuple[list[int], list[int]]] = []
        while engine.has_work:
            engine.step()
            table = engine._scheduler._running.table
            seen += [(table.drafts[row].tolist(), table.parents[row].tolist()) for row in table.decode_rows().tolist()]
        trees.append(seen)
    assert len(trees[0]) > 15
    assert trees[0] == trees[1]


@pytest.mark.long
def test_retraction_changes_nothing(folder: Path, head: HeadSource, plain_answers: Answers) -> None:
    """With a fifth of the memory."""
    device = build_plain_device(folder, num_pages=16, head=head, num_steps=NUM_STEPS, tree=TREE, cuda_graph_max_bs=4)
    engine = build_engine(device.runner, eos_token_ids=[EOS], chunked_prefill_size=32, **TREES)
    assert tokens_of(run_all(engine, requests())) == tokens_of(plain_answers)
    assert engine.stats().num_retractions > 0
