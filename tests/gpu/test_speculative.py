"""Speculation on a GPU: graphs that verify and draft, against plain decoding and against the float32 reference.

Greedy texts in bfloat16 are compared up to ties, as in `test_engine_on_gpu`: verifying has other kernels than decoding, so logits
differ by what bfloat16 moves them. That drafts themselves never change a token is tested exactly on a CPU.
"""

import os
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from runtime.attention import triton
from runtime.attention.verifying import TritonVerification
from runtime.request import GenerationRequest
from runtime.runner.building import build_runner
from runtime.runner.device_building import build_device_runner
from runtime.runner.device_runner import DeviceRunner
from runtime.runner.kernel_choice import choose_kernels
from runtime.runner.torch_runner import TorchRunner
from runtime.scheduling.delivery import StepOutput
from runtime.settings import EngineSettings
from runtime.speculative.source import HeadSource
from tests.gpu.test_engine_on_gpu import MAX_GAP, NUM_TOKENS, build_device, count_groups, greedy
from tests.support.draft_heads import write_random_head
from tests.support.engine_runs import Answer, ask, build_engine, run_all
from tests.support.greedy_ties import assert_equal_up_to_ties
from tests.support.kernel_checks import LAUNCHER, TOLERANCES, Attention, Inputs
from tests.support.random_models import VOCAB_SIZE, write_random_model

pytestmark = pytest.mark.gpu

NUM_DRAFTS = 5
SPECULATION: dict[str, Any] = {
    "speculative_algorithm": "EAGLE3",
    "speculative_num_steps": NUM_DRAFTS,
    "speculative_eagle_topk": 1,
    "speculative_num_draft_tokens": NUM_DRAFTS + 1,
    "speculative_adaptive": False,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_model(tmp_path_factory.mktemp("model"), head_dim=128)


@pytest.fixture(scope="module")
def head_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_head(tmp_path_factory.mktemp("head"))


@pytest.fixture(scope="module")
def reference(folder: Path) -> TorchRunner:
    return build_runner(folder, num_pages=400, dtype="float32", num_threads=4)


@pytest.fixture(scope="module")
def reference_answers(reference: TorchRunner) -> dict[tuple[int, int], Answer]:
    return run_all(build_engine(reference, eos_token_ids=[], context_length=2048), greedy())


def build_speculating(folder: Path, head_folder: Path, backend: str = "auto", **given: Any) -> DeviceRunner:
    settings = EngineSettings(
        model_path=str(folder),
        device="cuda",
        dtype="bfloat16",
        kernels_path=os.environ.get("CASEMATE_TEST_KERNELS", ""),
        attention_backend=backend,  # type: ignore[arg-type]
        speculative_draft_model_path=str(head_folder),
        **SPECULATION,
        **{"max_total_tokens": 16_384, "max_running_requests": 40, "chunked_prefill_size": 512} | given,
    )
    kernels = choose_kernels(settings, print)
    return build_device_runner(folder, settings, kernels, advance=lambda: None, head=HeadSource(head_folder)).runner


def answers_of(runner: DeviceRunner, requests: list[GenerationRequest], **given: Any) -> dict[tuple[int, int], Answer]:
    settings = {"chunked_prefill_size": 512, "max_running_requests": 40} | given
    engine = build_engine(
        runner, eos_token_ids=[], context_length=2048, speculative_draft_model_path="head", **SPECULATION, **settings
    )
    answers = run_all(engine, requests)
    assert engine.stats().num_verified > 0
    return answers


@pytest.mark.parametrize("backend", ["auto", "triton"])
@pytest.mark.parametrize("overlap", [True, False])
def test_greedy_texts_are_those_of_plain_decoding(
    folder: Path,
    head_folder: Path,
    reference: TorchRunner,
    reference_answers: dict[tuple[int, int], Answer],
    backend: str,
    *,
    overlap: bool,
) -> None:
    """Up to ties of the float32 reference, with graphs, chunks, prefixes and batches of 16."""
    runner = build_speculating(folder, head_folder, backend)
    given = answers_of(runner, greedy(), overlap_schedule=overlap)
    for request in greedy():
        tokens, expected = (answers[request.request_id, 0].tokens for answers in (given, reference_answers))
        assert len(tokens) == NUM_TOKENS
        assert_equal_up_to_ties(reference, list(request.prompt), tokens, expected, MAX_GAP)


@pytest.mark.parametrize("largest_graph", [40, 0])
@pytest.mark.parametrize("levels", [[0], [0, NUM_DRAFTS, NUM_DRAFTS, 0]], ids=["without drafts", "between drafts"])
def test_common_beginnings_are_read_once(
    folder: Path,
    head_folder: Path,
    reference: TorchRunner,
    monkeypatch: pytest.MonkeyPatch,
    levels: list[int],
    largest_graph: int,
) -> None:
    """By steps that verify no drafts, alone and beside prompts: texts are those of the float32 reference, up to ties."""
    random = np.random.default_rng(5)
    stems = random.integers(3, VOCAB_SIZE, (4, 400)).tolist()
    requests = [
        ask(
            index + 1,
            stems[index % 4] + random.integers(3, VOCAB_SIZE, 5 + 3 * index).tolist(),
            max_tokens=NUM_TOKENS,
            temperature=0.0,
            ignore_eos=True,
        )
        for index in range(24)
    ]
    expected = run_all(build_engine(reference, eos_token_ids=[], context_length=2048), requests)
    monkeypatch.setattr(triton, "DEFAULT_BLOCKS", replace(triton.DEFAULT_BLOCKS, shared_rows=16))
    runner = build_speculating(folder, head_folder, cuda_graph_max_bs=largest_graph)
    engine = build_engine(
        runner, eos_token_ids=[], context_length=2048, speculative_draft_model_path="head", max_running_requests=40,
        chunked_prefill_size=700, **SPECULATION,
    )  # fmt: skip
    pinned, step = cycle(levels), engine.step

    def step_pinned() -> StepOutput:
        engine.pin_drafts(next(pinned))
        return step()

    monkeypatch.setattr(engine, "step", step_pinned)
    found = count_groups(monkeypatch)
    answers = run_all(engine, requests)
    assert len(found) > 5
    assert (engine.stats().num_verified > 0) == (levels != [0])
    for request in requests:
        tokens, right = (each[request.request_id, 0].tokens for each in (answers, expected))
        assert_equal_up_to_ties(reference, list(request.prompt), tokens, right, MAX_GAP)


def test_drafts_are_accepted_where_they_are_right(folder: Path, head_folder: Path) -> None:
    """With the host's own drafts in the table, which know the text, passes give several tokens: acceptance works on the device.

    A synchronous engine sends the drafts of its table to the device; here they are those of the same text, by passes of as many
    rows: with other numbers of rows a tie may go the other way, and all drafts behind it are wrong.
    """
    runner = build_speculating(folder, head_folder)
    (request,) = (ask(1, list(range(3, 40)), max_tokens=NUM_TOKENS, temperature=0.0, ignore_eos=True),)
    text = answers_of(runner, [request])[1, 0].tokens
    engine = build_engine(
        runner, eos_token_ids=[], context_length=2048, overlap_schedule=False, max_running_requests=40,
        speculative_draft_model_path="head", **SPECULATION,
    )  # fmt: skip
    engine.submit(request)
    got: list[int] = []
    while engine.has_work:
        table = engine._scheduler._running.table
        coming = text[len(got) : len(got) + NUM_DRAFTS]
        table.drafts[0, : len(coming)] = coming
        table.drafts[int(table.decode_rows()[0]) if len(table.decode_rows()) else 0, : len(coming)] = coming
        output = engine.step()
        got += [token for _, _, token in output.plain] + [t for delivery in output.tokens for t in delivery.token_ids]
    stats = engine.stats()
    assert len(got) == NUM_TOKENS
    assert 1 + stats.num_accepted / stats.num_verified > 4, "right drafts are not accepted"


def test_sampled_texts_are_those_of_plain_decoding_mostly(folder: Path, head_folder: Path) -> None:
    """The same seeds give the same texts up to what bfloat16 moves: most of 16 texts agree in their first 8 tokens."""
    random = np.random.default_rng(1)
    asked = [
        ask(place, random.integers(3, VOCAB_SIZE, 30).tolist(), max_tokens=16, temperature=0.7, seed=place, top_p=top_p)
        for place, top_p in enumerate([1.0] * 8 + [0.9] * 8)
    ]
    given = answers_of(build_speculating(folder, head_folder), asked)
    plain = build_engine(
        build_device(folder, "auto"), eos_token_ids=[], context_length=2048, chunked_prefill_size=512,
        max_running_requests=40,
    )  # fmt: skip
    expected = run_all(plain, asked)
    equal = sum(given[key].tokens[:8] == expected[key].tokens[:8] for key in expected)
    assert equal >= 11


@pytest.mark.parametrize("window", [None, 100])
@pytest.mark.parametrize("num_queries", [1, 4, 8])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_verification_attends_as_the_reference(dtype: torch.dtype, num_queries: int, window: int | None) -> None:
    """Several latest positions of contexts short and long, in parts and whole."""
    contexts = [num_queries, 16, 129, 1000, 4097]
    case = Attention(Inputs("cuda", dtype, 5), contexts, [num_queries] * 5, heads=32, kv_heads=8, head_dim=128)
    attention = TritonVerification(
        case.pages, num_heads=32, layer_windows=(None, window), launcher=LAUNCHER, max_queries=num_queries,
        max_sequences=5, num_multiprocessors=132, pdl=True,
    )  # fmt: skip
    out = torch.full_like(case.query, torch.nan)
    attention.plan(case.tables, 5, num_queries).attend(1, case.query, out)
    wanted = case.reference(window)
    assert float((out.float() - wanted).norm() / wanted.norm()) < TOLERANCES[dtype]
