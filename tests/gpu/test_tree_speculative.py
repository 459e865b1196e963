"""Trees of drafts on a GPU: graphs that verify and grow them, against plain decoding and against the float32 reference.

As in `test_speculative`, texts in bfloat16 are compared up to ties; that trees change no token is tested exactly on a CPU.
"""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from runtime.attention.verifying import TreeRows, TritonVerification
from runtime.runner.device_building import build_device_runner
from runtime.runner.device_runner import DeviceRunner
from runtime.runner.kernel_choice import choose_kernels
from runtime.runner.torch_runner import TorchRunner
from runtime.settings import EngineSettings
from runtime.speculative.source import HeadSource
from tests.gpu.test_engine_on_gpu import MAX_GAP, NUM_TOKENS, greedy
from tests.gpu.test_speculative import folder, head_folder, reference, reference_answers
from tests.support.engine_runs import Answer, build_engine, run_all
from tests.support.greedy_ties import assert_equal_up_to_ties
from tests.support.kernel_checks import LAUNCHER, TOLERANCES, Attention, Inputs

__all__ = ["folder", "head_folder", "reference", "reference_answers"]
pytestmark = pytest.mark.gpu

TREES: dict[str, Any] = {
    "speculative_algorithm": "EAGLE3",
    "speculative_num_steps": 4,
    "speculative_eagle_topk": 4,
    "speculative_num_draft_tokens": 16,
    "speculative_adaptive": False,
}
LIMITS: dict[str, Any] = {"max_running_requests": 40, "chunked_prefill_size": 512}


def build_speculating(folder: Path, head_folder: Path, **given: Any) -> tuple[DeviceRunner, list[str]]:
    """The runner, and what it warns of."""
    settings = EngineSettings(
        model_path=str(folder), device="cuda", dtype="bfloat16", speculative_draft_model_path=str(head_folder),
        max_total_tokens=16_384, kernels_path=os.environ.get("CASEMATE_TEST_KERNELS", ""), **TREES, **LIMITS, **given,
    )  # fmt: skip
    warnings: list[str] = []
    kernels = choose_kernels(settings, warnings.append)
    runner = build_device_runner(folder, settings, kernels, advance=lambda: None, head=HeadSource(head_folder)).runner
    return runner, warnings


@pytest.mark.parametrize(
    "given",
    [
        {"attention_backend": "auto"},
        {"attention_backend": "triton", "cuda_graph_max_bs": 4},
        {"attention_backend": "flashinfer"},
        {"attention_backend": "triton", "cuda_graph_max_bs": 0},
        {"attention_backend": "triton", "kv_cache_dtype": "fp8_e4m3"},
    ],
    ids=["auto", "some in graphs", "flashinfer", "no graphs", "e4m3 cache"],
)
@pytest.mark.parametrize("overlap", [True, False])
def test_greedy_texts_are_those_of_plain_decoding(
    folder: Path,
    head_folder: Path,
    reference: TorchRunner,
    reference_answers: dict[tuple[int, int], Answer],
    given: dict[str, Any],
    *,
    overlap: bool,
) -> None:
    """Up to ties of the float32 reference; with a cache in e4m3, up to its rounding, only that all texts are whole."""
    runner, warnings = build_speculating(folder, head_folder, **given)
    assert any("verified by Triton" in told for told in warnings) == (given["attention_backend"] == "flashinfer")
    engine = build_engine(
        runner, eos_token_ids=[], context_length=2048, speculative_draft_model_path="head", overlap_schedule=overlap,
        **TREES, **LIMITS,
    )  # fmt: skip
    answers = run_all(engine, greedy())
    assert engine.stats().num_verified > 0
    for request in greedy():
        tokens, expected = (found[request.request_id, 0].tokens for found in (answers, reference_answers))
        assert len(tokens) == NUM_TOKENS
        if "kv_cache_dtype" not in given:
            assert_equal_up_to_ties(reference, list(request.prompt), tokens, expected, MAX_GAP)


@pytest.mark.parametrize("heads", [8, 32])
@pytest.mark.parametrize("num_queries", [4, 16, 64])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_tree_that_is_a_chain_attends_as_the_chain(dtype: torch.dtype, num_queries: int, heads: int) -> None:
    """With words that say what the order of positions says, rows see what the reference lets them see, with a window too."""
    contexts = [num_queries, 80, 129, 1000, 4097]
    case = Attention(Inputs("cuda", dtype, 5), contexts, [num_queries] * 5, heads=heads, kv_heads=8, head_dim=128)
    words = torch.zeros(num_queries, -(-num_queries // 32), dtype=torch.int64)
    for row in range(num_queries):
        for place in range(row + 1):
            words[row, place // 32] |= 1 << (place % 32)
    words = torch.where(words >= 1 << 31, words - (1 << 32), words).to(torch.int32).repeat(5, 1).cuda()
    lengths = torch.tensor(contexts, dtype=torch.int32, device="cuda")
    depths = torch.arange(num_queries, dtype=torch.int32, device="cuda").repeat(5)
    tree = TreeRows(words, depths, lengths - num_queries, lengths)
    for layer, window in enumerate((None, 100)):
        attention = TritonVerification(
            case.pages, num_heads=heads, layer_windows=(None, window), launcher=LAUNCHER, max_queries=num_queries,
            max_sequences=5, num_multiprocessors=132, pdl=True,
        )  # fmt: skip
        out = torch.full_like(case.query, torch.nan)
        attention.plan(case.tables, 5, num_queries, tree).attend(1, case.query, out)
        wanted = case.reference(window)
        assert float((out.float() - wanted).norm() / wanted.norm()) < TOLERANCES[dtype], layer
