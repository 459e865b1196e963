"""`deterministic` on a GPU: what a request gets is the same to the bit, whatever happens beside it and however it is divided."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from runtime.attention.device import SequenceTables
from runtime.attention.invariant import InvariantAttention
from runtime.kernels.invariant import multiply_any
from runtime.request import GenerationRequest
from runtime.runner.building import build_runner
from tests.gpu.test_engine_on_gpu import MAX_GAP, build_device, greedy, prompts
from tests.gpu.test_speculative import NUM_DRAFTS, SPECULATION, build_speculating
from tests.support.draft_heads import write_random_head
from tests.support.engine_runs import Answer, ask, build_engine, mixed_requests, run_all
from tests.support.greedy_ties import assert_equal_up_to_ties
from tests.support.kernel_checks import LAUNCHER, TOLERANCES, Attention, Inputs, relative_error
from tests.support.random_models import VOCAB_SIZE, write_random_model

pytestmark = pytest.mark.gpu

COUNTS = (1, 2, 7, 16, 17, 32, 33, 64, 65, 128, 129, 255, 256, 257, 700)
MODELS: dict[str, dict[str, Any]] = {"llama-64": {"head_dim": 64}, "qwen3-128": {"head_dim": 128, "qwen3": True}}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize(
    ("n", "k", "swiglu"),
    [(6144, 4096, False), (4096, 14336, False), (14336, 4096, True), (2000, 520, False), (1000, 136, True)],
)
def test_a_row_of_a_product_does_not_depend_on_the_others(n: int, k: int, swiglu: bool, dtype: torch.dtype) -> None:
    """Nor on how many they are, which chooses the tile, nor on its place among them; and it is the reference's up to rounding."""
    inputs = Inputs("cuda", dtype, 3)
    x, weight = inputs.normal(max(COUNTS), k), inputs.normal(2 * n if swiglu else n, k, scale=k**-0.5)
    bias, residual = inputs.normal(len(weight)), inputs.normal(len(x), n)

    def product(rows: Tensor, before: Tensor) -> Tensor:
        out = torch.empty(len(rows), n, dtype=dtype, device="cuda")
        added = None if swiglu else before.contiguous()
        multiply_any(rows.contiguous(), weight, out=out, launcher=LAUNCHER, bias=bias, residual=added, swiglu=swiglu)
        return out

    whole = product(x, residual)
    for count in COUNTS:
        assert torch.equal(product(x[:count], residual[:count]), whole[:count]), f"the first {count}"
        assert torch.equal(product(x[-count:], residual[-count:]), whole[-count:]), f"the last {count}"
    wide = x.float() @ weight.float().T + bias.float()
    if swiglu:
        wide = torch.nn.functional.silu(wide[:, :n]) * wide[:, n:]
    else:
        wide += residual.float()
    assert relative_error(whole, wide) < TOLERANCES[dtype]


@pytest.mark.parametrize("cache_dtype", [None, torch.float8_e4m3fn], ids=["", "e4m3"])
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(32, 8, 128), (8, 2, 64), (16, 8, 256)])
def test_a_query_sees_the_same_in_every_chunk(
    heads: int, kv_heads: int, head_dim: int, cache_dtype: torch.dtype | None
) -> None:
    """Whole prompts, chunks of any length behind cached tokens, and decodes, alone and beside another, with a window or none;
    whether one program adds up the parts of a context or several, which is so where rows are few."""
    contexts = [1700, 333]
    inputs = Inputs("cuda", torch.bfloat16, 4)
    case = Attention(
        inputs, contexts, contexts, heads=heads, kv_heads=kv_heads, head_dim=head_dim, cache_dtype=cache_dtype
    )
    for window in (None, 100, 900):
        by_many, by_one = case.invariant(window), case.invariant(window, num_multiprocessors=1)
        whole = _attend(by_many, case, contexts, contexts)
        assert relative_error(whole, case.reference(window)) < TOLERANCES[torch.bfloat16]
        for first, second in [(1, 1), (1, 40), (2, 1), (16, 333), (17, 5), (64, 64), (100, 99), (1699, 1)]:
            for attention in (by_many, by_one):
                given = _attend(attention, case, contexts, [first, second])
                assert torch.equal(given[:first], whole[1700 - first : 1700]), (window, first, second)
                assert torch.equal(given[first:], whole[2033 - second :]), (window, first, second)
        for end in (421, 1024, 1025):
            earlier = _attend(by_many, case, [end, 333], [9, 1])
            assert torch.equal(earlier[:9], whole[end - 9 : end]), (window, end)


def _attend(attention: InvariantAttention, case: Attention, contexts: Sequence[int], counts: Sequence[int]) -> Tensor:
    """The last `counts` queries of each sequence, whose first `contexts` tokens are there."""
    starts = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
    lengths = np.asarray(contexts, np.int32)
    own = np.concatenate(([0], np.cumsum(case.contexts)))
    rows = [np.arange(own[i] + contexts[i] - counts[i], own[i] + contexts[i]) for i in range(len(contexts))]
    query = case.query[torch.from_numpy(np.concatenate(rows)).cuda()].contiguous()
    host = SequenceTables(
        starts, lengths, case.host.page_starts, case.host.page_ids, sum(count == 1 for count in counts)
    )
    case.tables.query_starts.copy_(torch.from_numpy(starts))
    case.tables.context_lengths.copy_(torch.from_numpy(lengths))
    out = torch.empty_like(query)
    attention.plan(host, case.tables).attend(1, query, out)
    return out


@pytest.fixture(scope="module", params=MODELS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_model(tmp_path_factory.mktemp("model"), **MODELS[request.param])


def write_head(folder: Path) -> Path:
    """Of a model's folder, within it."""
    head = folder / "head"
    head.mkdir(exist_ok=True)
    return write_random_head(head)


def asked() -> list[GenerationRequest]:
    """Greedy and drawn, with penalties, bias, top-p, top-k, min-p, n of several and logprobs, of many lengths."""
    ids = np.random.default_rng(8).integers(3, VOCAB_SIZE, 900).tolist()
    long = [
        ask(
            20 + index,
            ids[: 100 * index + 77],
            max_tokens=40,
            temperature=index % 2,
            seed=index,
            ignore_eos=True,
            logprobs=5,
        )
        for index in range(8)
    ]
    return [*mixed_requests(VOCAB_SIZE, 40), *long]


RUNS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "together": ({}, {}),
    "small chunks": ({"chunked_prefill_size": 48}, {}),
    "one after another step": ({}, {"overlap_schedule": False}),
    "without graphs": ({"cuda_graph_max_bs": 0, "piecewise_cuda_graph_max_tokens": 0}, {}),
    "without a prefix cache": ({}, {"disable_radix_cache": True}),
    "short of memory": ({"max_total_tokens": 2048}, {}),
    "an e4m3 cache": ({"kv_cache_dtype": "fp8_e4m3"}, {}),
    "drafts": (SPECULATION, {}),
    "drafts, small chunks": (SPECULATION | {"chunked_prefill_size": 48}, {}),
    "drafts, as many as pay": (SPECULATION, {"speculative_adaptive": True}),
    "drafts, one after another step": (SPECULATION, {"overlap_schedule": False}),
    "drafts without graphs": (SPECULATION | {"cuda_graph_max_bs": 0, "piecewise_cuda_graph_max_tokens": 0}, {}),
    "drafts, an e4m3 cache": (SPECULATION | {"kv_cache_dtype": "fp8_e4m3"}, {}),
}


def run(
    folder: Path, given: dict[str, Any], engine: dict[str, Any], requests: list[list[GenerationRequest]]
) -> dict[tuple[int, int], Answer]:
    """Each list at once, on one engine; with drafts of a head that knows nothing, if `given` asks for some."""
    if "speculative_algorithm" in given:
        rest = {key: value for key, value in given.items() if key not in SPECULATION}
        runner = build_speculating(folder, write_head(folder), "auto", **rest)
        engine = SPECULATION | {"speculative_draft_model_path": "head"} | engine
    else:
        runner = build_device(folder, "auto", **given)
    sizes = {"chunked_prefill_size": 512, "max_running_requests": 40} | {
        key: value for key, value in given.items() if key == "chunked_prefill_size"
    }
    built = build_engine(runner, eos_token_ids=[2], context_length=2048, **sizes, **engine)
    answers: dict[tuple[int, int], Answer] = {}
    for together in requests:
        answers |= run_all(built, together)
    return answers


@pytest.mark.parametrize("name", RUNS)
def test_tokens_and_logprobs_are_those_of_a_request_alone(folder: Path, name: str) -> None:
    """To the bit: with others, twice over with what the first time left in the cache, in other chunks, graphs, and retracted."""
    given, engine = RUNS[name]
    alone = {"kv_cache_dtype": given.get("kv_cache_dtype", "auto"), "deterministic": True}
    expected = run(folder, alone, {"disable_radix_cache": True}, [[request] for request in asked()])
    requests = [asked()] if name == "short of memory" else [asked(), asked()]
    got = run(folder, given | {"deterministic": True}, engine, requests)
    for key, answer in expected.items():
        assert got[key].tokens == answer.tokens, key
        assert got[key].logprobs == answer.logprobs, key
        assert answer.tokens


@pytest.mark.parametrize("num_right", range(NUM_DRAFTS + 1))
def test_drafts_that_are_taken_change_no_bit(folder: Path, num_right: int) -> None:
    """The first so many of each step's drafts are what comes, and the next is not: each number of accepted ones, at every place."""
    (request,) = (ask(1, list(range(3, 700)), max_tokens=60, temperature=1.0, seed=5, ignore_eos=True, logprobs=5),)
    alone = run(folder, {"deterministic": True}, {"disable_radix_cache": True}, [[request]])[1, 0]
    runner = build_speculating(folder, write_head(folder), "auto", deterministic=True)
    engine = build_engine(
        runner, eos_token_ids=[2], context_length=2048, overlap_schedule=False, max_running_requests=40,
        chunked_prefill_size=512, speculative_draft_model_path="head", **SPECULATION,
    )  # fmt: skip
    engine.submit(request)
    given = Answer()
    while engine.has_work:
        table, done = engine._scheduler._running.table, len(given.tokens)
        drafts = [*alone.tokens[done : done + num_right], *[0] * NUM_DRAFTS][:NUM_DRAFTS]
        table.drafts[int(table.decode_rows()[0]) if len(table.decode_rows()) else 0] = drafts
        for delivery in engine.step().tokens:
            given.tokens += delivery.token_ids
            given.logprobs += [entry.chosen for entry in delivery.logprobs or []]
    assert (given.tokens, given.logprobs) == (alone.tokens, alone.logprobs)
    stats = engine.stats()
    assert stats.num_accepted >= num_right * (stats.num_verified - 2)


def test_without_it_bits_differ(folder: Path) -> None:
    """The comparison sees what it is for: an ordinary engine's logprobs depend on who is beside a request."""
    alone = run(folder, {}, {"disable_radix_cache": True}, [[request] for request in asked()])
    got = run(folder, {}, {}, [asked()])
    assert any(got[key].logprobs != answer.logprobs for key, answer in alone.items())


def test_greedy_texts_are_the_references(folder: Path) -> None:
    """Up to ties of float32: deterministic, and right."""
    reference = build_runner(folder, num_pages=400, dtype="float32", num_threads=4)
    expected = run_all(build_engine(reference, eos_token_ids=[2], context_length=2048), greedy())
    got = run(folder, {"deterministic": True}, {}, [greedy()])
    for request, prompt in zip(greedy(), prompts(), strict=True):
        key = (request.request_id, 0)
        assert_equal_up_to_ties(reference, prompt, got[key].tokens, expected[key].tokens, MAX_GAP)
