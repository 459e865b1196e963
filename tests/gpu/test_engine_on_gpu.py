"""The engine on a GPU against the float32 reference on the CPU: both backends, graphs and none, overlap and none.

Greedy texts in bfloat16 are compared up to ties (`tests.support.greedy_ties`): at the first difference the reference's own
logprobs of the two tokens must lie within MAX_GAP. Logits of this model have a deviation of about 5.7; in torch's bfloat16 on a CPU
they are 0.17 off in the mean square, the difference of two of them 0.23: of a thousand places one may be four times as far.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from runtime.attention import triton
from runtime.attention.shared_prefixes import SharedPrefixes
from runtime.attention.triton import TritonAttention
from runtime.batch import Int32, StepBatch
from runtime.errors import KernelMissing
from runtime.request import GenerationRequest
from runtime.runner.building import build_runner
from runtime.runner.device_building import build_device_runner
from runtime.runner.device_runner import DeviceRunner
from runtime.runner.kernel_choice import choose_kernels
from runtime.runner.torch_runner import TorchRunner
from runtime.settings import EngineSettings
from tests.support.engine_runs import Answer, ask, build_engine, run_all
from tests.support.greedy_ties import assert_equal_up_to_ties
from tests.support.random_models import VOCAB_SIZE, write_random_model
from tests.support.step_batches import Chunk, step_batch

pytestmark = pytest.mark.gpu

MAX_GAP = 0.95
NUM_TOKENS = 48
MODELS: dict[str, dict[str, Any]] = {
    "llama-64": {"head_dim": 64},
    "llama-128": {"head_dim": 128},
    "qwen3-128": {"head_dim": 128, "qwen3": True},
}


def prompts() -> list[list[int]]:
    """Of many lengths, some with a common beginning."""
    random = np.random.default_rng(3)
    ids = random.integers(3, VOCAB_SIZE, 4000).tolist()
    lengths = (1, 5, 16, 17, 64, 100, 129, 300, 513, 700)
    own = [ids[7 * index : 7 * index + length] for index, length in enumerate(lengths)]
    return own + [ids[:256] + ids[1000 + index : 1030 + index] for index in range(6)]


def greedy(first_id: int = 1) -> list[GenerationRequest]:
    return [
        ask(first_id + index, prompt, max_tokens=NUM_TOKENS, temperature=0.0, ignore_eos=True)
        for index, prompt in enumerate(prompts())
    ]


def build_device(folder: Path, backend: str, **given: Any) -> DeviceRunner:
    settings = EngineSettings(
        model_path=str(folder),
        device="cuda",
        dtype="bfloat16",
        kernels_path=os.environ.get("CASEMATE_TEST_KERNELS", ""),
        attention_backend=backend,  # type: ignore[arg-type]
        **{"max_total_tokens": 16_384, "max_running_requests": 40, "chunked_prefill_size": 512} | given,
    )
    try:
        return build_device_runner(folder, settings, choose_kernels(settings, print), advance=lambda: None).runner
    except KernelMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module", params=MODELS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_model(tmp_path_factory.mktemp("model"), **MODELS[request.param])


@pytest.fixture(scope="module")
def reference(folder: Path) -> TorchRunner:
    return build_runner(folder, num_pages=400, dtype="float32", num_threads=4)


@pytest.fixture(scope="module")
def expected(reference: TorchRunner) -> dict[tuple[int, int], Answer]:
    return run_all(build_engine(reference, eos_token_ids=[2], context_length=2048), greedy())


@pytest.mark.parametrize("backend", ["triton", "flashinfer", "auto"])
@pytest.mark.parametrize(
    "given",
    [
        {"cuda_graph_max_bs": 16},
        {"cuda_graph_max_bs": 0, "piecewise_cuda_graph_max_tokens": 0},
        {"cuda_graph_max_bs": 3, "chunked_prefill_size": 33},
    ],
    ids=["graphs", "no graphs", "small graphs, small chunks"],
)
def test_greedy_texts_are_the_references(
    folder: Path,
    reference: TorchRunner,
    expected: dict[tuple[int, int], Answer],
    backend: str,
    given: dict[str, Any],
) -> None:
    """Up to ties, cold and with a warm cache, with overlap and without."""
    runner = build_device(folder, backend, **given)
    agreed = total = 0
    for overlap in (True, False):
        engine = build_engine(
            runner, eos_token_ids=[2], context_length=2048, overlap_schedule=overlap, max_running_requests=40,
            chunked_prefill_size=given.get("chunked_prefill_size", 512),
        )  # fmt: skip
        for first_id in (1, 101):
            answers = run_all(engine, greedy(first_id))
            for index, prompt in enumerate(prompts()):
                mine, theirs = answers[first_id + index, 0].tokens, expected[1 + index, 0].tokens
                agreed += assert_equal_up_to_ties(reference, prompt, mine, theirs, MAX_GAP)
                total += NUM_TOKENS
    print(f"{backend} {given}: {agreed} of {total} tokens before a tie")
    assert agreed > total * 0.3


@pytest.mark.parametrize("backend", ["triton", "auto"])
@pytest.mark.parametrize("largest_graph", [40, 0])
def test_common_beginnings_do_not_change_greedy_texts(
    folder: Path, backend: str, largest_graph: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts of which several begin alike: read once for each group, by each for itself, and each prompt alone in a batch.

    All three are the same sums in other orders. So the logprobs of the tokens that two texts have in common, and of the first
    that differ, may be as far apart by groups as they are by batches. Prompts come a few at a time, so that decodes run
    beside chunks, too.
    """
    monkeypatch.setattr(triton, "DEFAULT_BLOCKS", replace(triton.DEFAULT_BLOCKS, shared_rows=16))
    random = np.random.default_rng(5)
    stems = random.integers(3, VOCAB_SIZE, (4, 400)).tolist()
    asked = [stems[index % 4] + random.integers(3, VOCAB_SIZE, 5 + 3 * index).tolist() for index in range(24)]
    requests = [
        ask(index + 1, prompt, max_tokens=32, temperature=0.0, ignore_eos=True, logprobs=0)
        for index, prompt in enumerate(asked)
    ]
    runner = build_device(folder, backend, cuda_graph_max_bs=largest_graph)
    engine = build_engine(
        runner, eos_token_ids=[2], context_length=2048, max_running_requests=40, chunked_prefill_size=700
    )
    found = count_groups(monkeypatch)
    by_groups = run_all(engine, requests)
    num_steps = len(found)
    alone = [run_all(engine, [request])[request.request_id, 0] for request in requests]
    assert num_steps > 5
    assert len(found) == num_steps
    monkeypatch.setattr(TritonAttention, "share", lambda *_: None)
    texts_apart = run_all(engine, requests)
    apart = [texts_apart[request.request_id, 0] for request in requests]
    by_batches = max(difference(*pair) for pair in zip(alone, apart, strict=True))
    found_difference = max(difference(by_groups[number, 0], text) for number, text in enumerate(apart, 1))
    print(
        f"{backend}, graphs up to {largest_graph}: {found_difference:.3f} nats by groups, {by_batches:.3f} by batches"
    )
    assert found_difference < 1.5 * by_batches + 0.02


def difference(one: Answer, other: Answer) -> float:
    """Nats between the logprobs of two greedy texts, at most: of their common tokens and of the first that differ."""
    common = next(
        (place for place, pair in enumerate(zip(one.tokens, other.tokens, strict=True)) if len(set(pair)) > 1), 31
    )
    return max(abs(a - b) for a, b in zip(one.logprobs[: common + 1], other.logprobs[: common + 1], strict=True))


def count_groups(monkeypatch: pytest.MonkeyPatch) -> list[SharedPrefixes]:
    """What steps find from here on, those that find any."""
    found, share = [], TritonAttention.share

    def noted(self: TritonAttention, page_tables: Int32, context_lengths: Int32) -> SharedPrefixes | None:
        prefixes = share(self, page_tables, context_lengths)
        if prefixes is not None:
            found.append(prefixes)
        return prefixes

    monkeypatch.setattr(TritonAttention, "share", noted)
    return found


@pytest.mark.parametrize("backend", ["triton", "flashinfer", "auto"])
def test_graphs_compute_what_kernels_compute(folder: Path, backend: str) -> None:
    """Decodes in graphs that hold them exactly, and outside: the same kernels, so the same tokens, sampled ones included."""
    texts = []
    for largest in (40, 0):
        runner = build_device(folder, backend, cuda_graph_max_bs=largest, piecewise_cuda_graph_max_tokens=0)
        engine = build_engine(runner, eos_token_ids=[2], context_length=2048, overlap_schedule=False)
        requests = [
            ask(index + 1, prompt[:40], max_tokens=24, temperature=0.7 * (index % 2), seed=index, ignore_eos=True)
            for index, prompt in enumerate(prompts()[:8])
        ]
        texts.append({key: answer.tokens for key, answer in run_all(engine, requests).items()})
    assert texts[0] == texts[1]


def chunk_steps(num_rows: int) -> list[StepBatch]:
    """Three prompts, then their decodes beside two more prompts: both steps have `num_rows` tokens."""
    ids, third = prompts()[9], num_rows // 3
    first = [third, third, num_rows - 2 * third]
    pages = np.arange(1, 1 + 5 * 16).reshape(5, 16).tolist()
    prefills = [Chunk(ids[10 * index : 10 * index + count], 0, pages[index]) for index, count in enumerate(first)]
    decodes = [Chunk([5 + index], count, pages[index]) for index, count in enumerate(first)]
    others = [Chunk(ids[50 : 50 + third], 0, pages[3]), Chunk(ids[:num_rows][3 + third :], 0, pages[4])]
    return [step_batch(prefills), step_batch([*decodes, *others])]


@pytest.mark.parametrize("backend", ["triton", "flashinfer", "auto"])
@pytest.mark.parametrize(("num_rows", "size"), [(64, 64), (192, 192), (100, 128)])
def test_pieces_of_graphs_compute_what_kernels_compute(folder: Path, backend: str, num_rows: int, size: int) -> None:
    """Prompts, and decodes beside prompts. With as many rows as a piece has: the same bits in the cache and the same tokens.
    With padding cuBLAS may sum in another order: the cache is the same up to bfloat16's rounding."""
    caches, tokens = [], []
    for largest in (256, 0):
        runner = build_device(folder, backend, piecewise_cuda_graph_max_tokens=largest)
        with torch.inference_mode():
            runner.pages.zero_()
        results = [runner.launch(batch).result() for batch in chunk_steps(num_rows)]
        assert [result.captured_size for result in results] == [size if largest else 0] * 2
        tokens.append([result.token_ids.tolist() for result in results])
        caches.append(runner.pages[:, 1:81].float().cpu())
    if num_rows == size:
        assert tokens[0] == tokens[1]
        assert torch.equal(caches[0], caches[1])
    error = (caches[0] - caches[1]).norm() / caches[1].norm()
    assert error < 2e-2, f"relative error {error:.4f}"


@pytest.mark.parametrize("backend", ["triton", "flashinfer", "auto"])
@pytest.mark.parametrize("largest_graph", [8, 0])
def test_a_broken_sequence_does_not_touch_its_neighbours(folder: Path, backend: str, largest_graph: int) -> None:
    """NaN in one sequence's pages flags that sequence alone, in a graph and outside; so does NaN past a context's end."""
    runner = build_device(folder, backend, cuda_graph_max_bs=largest_graph)
    with torch.inference_mode():
        runner.pages.fill_(torch.nan)
    prompt = prompts()[4]
    assert (
        runner.launch(step_batch([Chunk(prompt, 0, [1, 2, 3, 4, 5]), Chunk(prompt, 0, [6, 7, 8, 9, 10])]))
        .result()
        .is_finite.all()
    )
    with torch.inference_mode():
        runner.pages[:, 2] = torch.nan
    decodes = [Chunk([5], len(prompt), [1, 2, 3, 4, 5]), Chunk([5], len(prompt), [6, 7, 8, 9, 10])]
    result = runner.launch(step_batch(decodes)).result()
    assert result.is_finite.tolist() == [False, True]
    assert result.captured_size == (2 if largest_graph else 0)
