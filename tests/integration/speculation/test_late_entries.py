"""Speculation that pauses and returns, with real heads: drafts made after a pause are those that are made without one.

On the reference, and over the runner that a GPU uses with plain torch as its kernels. There the head's pages hold NaN where nothing
was written: a draft made from an entry that is missing is another one.
"""

from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from runtime.engine.loop import Engine
from runtime.request import GenerationRequest
from runtime.runner.building import build_runner
from runtime.speculative.source import HeadSource
from tests.support.device_runners import build_plain_device
from tests.support.draft_heads import EOS
from tests.support.draft_trees import NUM_STEPS, NUM_TREE_DRAFTS, TREES
from tests.support.engine_runs import Answer, build_engine
from tests.support.speculation_runs import NUM_DRAFTS, NUM_PAGES, SPECULATION, Answers, requests, tokens_of

SHAPES = pytest.mark.parametrize("is_tree", [False, True], ids=["chains", "trees"])
RUNNERS = pytest.mark.parametrize("on_device", [False, True], ids=["reference", "graphs"])
Drafts = dict[int, tuple[list[int], list[int]]]


def build(folder: Path, head: HeadSource, *, is_tree: bool, on_device: bool, **settings: Any) -> Engine:
    """An engine with its runner, drafts as asked for."""
    drafts = TREES if is_tree else SPECULATION
    runner: Any
    if on_device:
        tree = (TREES["speculative_eagle_topk"], NUM_TREE_DRAFTS + 1) if is_tree else None
        runner = build_plain_device(
            folder, num_pages=NUM_PAGES, head=head, num_steps=NUM_STEPS if is_tree else NUM_DRAFTS, tree=tree
        ).runner
    else:
        runner = build_runner(folder, num_pages=NUM_PAGES, head=head)
    return build_engine(runner, eos_token_ids=[EOS], **drafts, **settings)


def drafts_of(engine: Engine, request: GenerationRequest, levels: list[int]) -> Drafts:
    """What is drafted behind each length of the text, so many steps deep in each step."""
    made: Drafts = {}
    engine.submit(request)
    for level in cycle(levels):
        if not engine.has_work:
            return made
        engine.pin_drafts(level)
        engine.step()
        table = engine._scheduler._running.table
        for row in table.decode_rows().tolist():
            if table.sample[row] < 0 and table.num_drafts[row]:
                made[int(table.known[row])] = (table.drafts[row].tolist(), table.parents[row].tolist())
    raise AssertionError


@SHAPES
@RUNNERS
def test_drafts_after_a_pause_are_those_without_one(
    folder: Path, head: HeadSource, *, is_tree: bool, on_device: bool
) -> None:
    """A prompt in chunks computed in a pause, then pauses of 1 to 6 tokens: behind every length of text the same drafts."""
    (request,) = (request for request in requests() if request.request_id == 2)
    engine = build(folder, head, is_tree=is_tree, on_device=on_device, overlap_schedule=False, chunked_prefill_size=33)
    most = NUM_STEPS if is_tree else NUM_DRAFTS
    steady = drafts_of(engine, request, [most])
    engine.flush_cache()
    paused = drafts_of(engine, request, [0] * 6 + [most, most, 0, most, 0, 0, 0])
    both = steady.keys() & paused.keys()
    assert len(both) > 5
    assert {length: paused[length] for length in both} == {length: steady[length] for length in both}
    assert engine.stats().num_late_entries > 70
    assert engine.stats().num_lost_entries == 0
    again = drafts_of(engine, request, [most])
    assert {length: again[length] for length in both} == {length: steady[length] for length in both}, "from the cache"


def run_with_pauses(engine: Engine, levels: list[int]) -> dict[tuple[int, int], tuple[list[int], str]]:
    """All requests, so many drafts in each step."""
    told: dict[tuple[int, int], Answer] = {}
    for request in requests():
        engine.submit(request)
        told.update({(request.request_id, choice): Answer() for choice in range(request.n)})
    for level in cycle(levels):
        if not engine.has_work:
            break
        engine.pin_drafts(level)
        output = engine.step()
        for request_id, choice, token in output.plain:
            told[request_id, choice].tokens.append(token)
        for delivery in output.tokens:
            answer = told[delivery.request_id, delivery.choice]
            answer.tokens += delivery.token_ids
            answer.reason = delivery.finish.reason if delivery.finish else answer.reason
    return tokens_of(told)


@SHAPES
@RUNNERS
def test_pauses_change_no_text(
    folder: Path, head: HeadSource, plain_answers: Answers, *, is_tree: bool, on_device: bool
) -> None:
    """Greedy and sampled, several choices, shared prompts, in chunks and from the cache, one step ahead."""
    engine = build(folder, head, is_tree=is_tree, on_device=on_device, chunked_prefill_size=33)
    most = NUM_STEPS if is_tree else NUM_DRAFTS
    for _ in range(1 if is_tree else 2):
        assert run_with_pauses(engine, [0] * 7 + [most] * 3 + [0, most]) == tokens_of(plain_answers)
    stats = engine.stats()
    assert stats.num_late_entries > 50
    assert stats.num_verified > 20
    assert stats.draft_prefill_s > 0
