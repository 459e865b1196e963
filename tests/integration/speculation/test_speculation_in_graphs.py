"""Speculation over the runner that a GPU uses, with plain torch as its kernels: places and lengths found on the device, padding
to graphs, drafts that the next step takes where the host has not looked yet. The reference runner is the judge.
"""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from runtime.attention import shared_prefixes
from runtime.attention.beside import OneByOne, Work
from runtime.engine.loop import Engine
from runtime.request import GenerationRequest, PromptDelivery
from runtime.runner.building import build_runner
from runtime.scheduling.delivery import StepOutput
from runtime.speculative.source import HeadSource
from tests.support.device_runners import build_plain_device
from tests.support.draft_heads import EOS, LAYERS, write_head
from tests.support.engine_runs import ask, build_engine, run_all
from tests.support.speculation_runs import NUM_DRAFTS, NUM_PAGES, SPECULATION, Answers, requests, tokens_of


@pytest.mark.parametrize(
    ("largest_graph", "overlap"),
    [
        pytest.param(0, True, marks=pytest.mark.long),
        (3, True),
        pytest.param(16, True, marks=pytest.mark.long),
        (16, False),
    ],
)
def test_texts_are_those_of_plain_decoding(
    folder: Path, head: HeadSource, plain_answers: Answers, largest_graph: int, *, overlap: bool
) -> None:
    """With graphs for all steps that only decode, for some and for none; twice, so that the cache is warm the second time."""
    device = build_plain_device(
        folder, num_pages=NUM_PAGES, cuda_graph_max_bs=largest_graph, piecewise_cuda_graph_max_tokens=16 * largest_graph,
        head=head, num_steps=NUM_DRAFTS,
    )  # fmt: skip
    settings: dict[str, Any] = {"overlap_schedule": overlap, "chunked_prefill_size": 33}
    engine = build_engine(device.runner, eos_token_ids=[EOS], **SPECULATION, **settings)
    for _ in range(2):
        assert tokens_of(run_all(engine, requests())) == tokens_of(plain_answers)
    assert engine.stats().num_verified > 200
    assert (engine.stats().num_graph_steps > 0) == (largest_graph > 0)


def test_steps_with_prompts_run_in_graphs(folder: Path, head: HeadSource, plain_answers: Answers) -> None:
    """By pieces between the attentions, beside answers whose drafts are verified and beside none."""
    device = build_plain_device(
        folder, num_pages=NUM_PAGES, cuda_graph_max_bs=16, piecewise_cuda_graph_max_tokens=128, head=head,
        num_steps=NUM_DRAFTS,
    )  # fmt: skip
    for pinned in (NUM_DRAFTS, 0):
        engine = build_engine(device.runner, eos_token_ids=[EOS], chunked_prefill_size=33, **SPECULATION)
        engine.pin_drafts(pinned)
        assert tokens_of(run_all(engine, requests())) == tokens_of(plain_answers)
        stats = engine.stats()
        assert stats.num_graph_steps == stats.num_steps


def capturing(folder: Path, *layers: int) -> HeadSource:
    """A head that reads what comes out of those layers."""
    names = {"eagle_aux_hidden_state_layer_ids": [layer - 1 for layer in layers]}
    return HeadSource(write_head(folder, eagle_config=names))


@pytest.mark.parametrize("last_captured", [LAYERS - 1, LAYERS])
def test_prompts_are_scored_and_embedded(folder: Path, tmp_path: Path, last_captured: int) -> None:
    """All rows of a chunk are finished where somebody asks for them, beside answers; and where the head reads the last layer's."""
    prompt = requests()[1].prompt
    asked = [
        *requests(),
        ask(8, prompt[3:], temperature=0.0, max_tokens=3, ignore_eos=True, prompt_logprobs=2),
        msgspec.structs.replace(ask(9, prompt[5:], temperature=0.0, max_tokens=1), wants_embedding=True),
    ]
    head = capturing(tmp_path, 1, 3, last_captured)
    device = build_plain_device(folder, num_pages=NUM_PAGES, head=head, num_steps=NUM_DRAFTS).runner
    engine = build_engine(device, eos_token_ids=[EOS], chunked_prefill_size=33, **SPECULATION)
    plain = build_engine(build_runner(folder, num_pages=NUM_PAGES), eos_token_ids=[EOS])
    given, expected = deliveries(engine, asked), deliveries(plain, asked)
    logprobs = [[entry and entry.chosen for entry in each[8].logprobs or []] for each in (given, expected)]
    assert logprobs[0] == pytest.approx(logprobs[1], abs=1e-3)
    assert len(logprobs[0]) == len(prompt) - 3
    embeddings = [np.frombuffer(each[9].embedding, np.float32) for each in (given, expected)]
    np.testing.assert_allclose(*embeddings, atol=1e-4)
    assert abs(np.linalg.norm(embeddings[0]) - 1) < 1e-4


def deliveries(engine: Engine, asked: Sequence[GenerationRequest]) -> dict[int, PromptDelivery]:
    """Of the prompts, by request."""
    for request in asked:
        engine.submit(request)
    found: dict[int, PromptDelivery] = {}
    while engine.has_work:
        found |= {delivery.request_id: delivery for delivery in engine.step().prompts}
    return found


def test_as_many_choices_as_a_chunk_has_rows(folder: Path, head: HeadSource) -> None:
    """All are chosen from its last row, though there is a sample for each."""
    device = build_plain_device(folder, num_pages=NUM_PAGES, cuda_graph_max_bs=0, head=head, num_steps=NUM_DRAFTS)
    asked = [ask(1, range(3, 37), n=2, temperature=0.0, max_tokens=4, ignore_eos=True)]
    plain = build_engine(build_runner(folder, num_pages=NUM_PAGES), eos_token_ids=[EOS])
    engine = build_engine(device.runner, eos_token_ids=[EOS], chunked_prefill_size=32, **SPECULATION)
    assert tokens_of(run_all(engine, asked)) == tokens_of(run_all(plain, asked))


@pytest.mark.parametrize("largest_graph", [16, 0])
@pytest.mark.parametrize("levels", [[0], [0, NUM_DRAFTS, NUM_DRAFTS, 0]], ids=["without drafts", "between drafts"])
def test_common_beginnings_are_read_once(
    folder: Path,
    head: HeadSource,
    plain_answers: Answers,
    monkeypatch: pytest.MonkeyPatch,
    largest_graph: int,
    levels: list[int],
) -> None:
    """Wherever a step verifies no drafts, beside prompts and alone, and though the device may be ahead of the host's lengths."""
    monkeypatch.setattr(shared_prefixes, "_MIN_PAGES", 2)
    device = build_plain_device(
        folder, num_pages=NUM_PAGES, cuda_graph_max_bs=largest_graph, piecewise_cuda_graph_max_tokens=8 * largest_graph,
        head=head, num_steps=NUM_DRAFTS, shares=True,
    )  # fmt: skip
    engine = build_engine(device.runner, eos_token_ids=[EOS], chunked_prefill_size=33, **SPECULATION)
    pinned = cycle(levels)

    def step() -> StepOutput:
        engine.pin_drafts(next(pinned))
        return step_engine()

    step_engine = engine.step
    monkeypatch.setattr(engine, "step", step)
    assert device.target is not None
    device.target.num_grouped = 0  # Graphs on a CPU are recorded by running them.
    assert tokens_of(run_all(engine, requests())) == tokens_of(plain_answers)
    assert device.target.num_grouped >= 10 * LAYERS
    assert device.target.num_grouped % LAYERS == 0
    assert (engine.stats().num_graph_steps > 20) == (largest_graph > 0)
    assert (engine.stats().num_verified > 0) == (levels != [0])


class LastFirst(OneByOne):
    """Notes that something runs beside something else, and begins with what is named last."""

    def __init__(self) -> None:
        self.num_runs = 0

    def run(self, first: Work, second: Work) -> None:
        self.num_runs += 1
        super().run(second, first)


@pytest.mark.parametrize("num_drafts", [NUM_DRAFTS, 0], ids=["verified", "decoded"])
def test_prompts_attend_beside_answers(folder: Path, head: HeadSource, plain_answers: Answers, num_drafts: int) -> None:
    """In every layer of a step with both, whichever comes first: neither reads what the other writes."""
    beside = LastFirst()
    device = build_plain_device(folder, num_pages=NUM_PAGES, head=head, num_steps=NUM_DRAFTS, beside=beside)
    engine = build_engine(device.runner, eos_token_ids=[EOS], chunked_prefill_size=33, **SPECULATION)
    engine.pin_drafts(num_drafts)
    assert tokens_of(run_all(engine, requests())) == tokens_of(plain_answers)
    assert beside.num_runs >= 3 * LAYERS
    assert beside.num_runs % LAYERS == 0


@pytest.mark.parametrize("last_captured", [LAYERS - 1, LAYERS])
def test_drafts_are_those_of_the_reference(folder: Path, tmp_path: Path, last_captured: int) -> None:
    """The same heads make the same drafts by graphs and by plain torch, in every step."""
    head = capturing(tmp_path, 1, 3, last_captured)
    (request,) = (request for request in requests() if request.request_id == 2)
    drafts = []
    for runner in (
        build_runner(folder, num_pages=NUM_PAGES, head=head),
        build_plain_device(folder, num_pages=NUM_PAGES, head=head, num_steps=NUM_DRAFTS).runner,
    ):
        engine = build_engine(runner, eos_token_ids=[EOS], **SPECULATION)
        engine.submit(request)
        seen: list[list[int]] = []
        while engine.has_work:
            engine.step()
            table = engine._scheduler._running.table
            seen += [table.drafts[row].tolist() for row in table.decode_rows().tolist()]
        drafts.append(seen)
    assert len(drafts[0]) > 20
    assert drafts[0] == drafts[1]


def test_retraction_changes_nothing(folder: Path, head: HeadSource, plain_answers: Answers) -> None:
    """With a fifth of the memory."""
    device = build_plain_device(folder, num_pages=16, head=head, num_steps=NUM_DRAFTS)
    engine = build_engine(device.runner, eos_token_ids=[EOS], chunked_prefill_size=32, **SPECULATION)
    assert tokens_of(run_all(engine, requests())) == tokens_of(plain_answers)
    assert engine.stats().num_retractions > 0
