"""Ranks on GPUs of their own: sums are right and the same on all, and greedy texts are those of one rank up to ties."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from runtime.runner.building import build_runner
from runtime.runner.torch_runner import TorchRunner
from tests.support.draft_heads import write_random_head
from tests.support.engine_runs import build_engine, run_all
from tests.support.greedy_ties import assert_equal_up_to_ties
from tests.support.next_distributions import COUNTS, assert_alike, next_distributions
from tests.support.quantized_checkpoints import FORMATS, plain_tensors, quantized_tensors, write_checkpoint
from tests.support.random_models import write_random_model
from tests.support.shared_requests import NUM_TOKENS, prompts, requests

NUM_GPUS = torch.cuda.device_count()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(NUM_GPUS < 2, reason="needs two GPUs")]

MAX_GAP = 0.95
"""As of one rank in bfloat16, see `test_engine_on_gpu`."""
MAX_ROUNDING = 2**-7


def run_ranks(folder: Path, *words: str, limit_s: int = 240) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu.shared_engine", str(folder), *words],
        env=os.environ, capture_output=True, text=True, timeout=limit_s, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("size", [size for size in (2, 4, 8) if size <= max(2, NUM_GPUS)])
def test_sums_are_right_and_the_same_bits_on_every_rank(size: int, tmp_path: Path) -> None:
    """From one row to 8,192, by one kernel and by slices; and rows joined from all ranks are to the bit what they gave."""
    found = run_ranks(tmp_path, str(size), "--sums")
    errors = {name: error for name, error in found.items() if name.startswith("error")}
    assert all(type(error) is float and error <= MAX_ROUNDING for error in errors.values()), errors
    assert all(value for name, value in found.items() if name.startswith("joined"))


@pytest.mark.parametrize("backend", ["triton", "auto"])
def test_greedy_texts_are_those_of_the_reference_up_to_ties(backend: str, tmp_path: Path) -> None:
    """Two ranks, graphs, overlap and prefix cache, against float32 on a CPU."""
    folder = write_random_model(tmp_path, head_dim=128)
    reference = build_runner(folder, num_pages=400, num_threads=None)
    given = run_ranks(folder, "2", f'attention_backend="{backend}"')
    assert_greedy_texts(reference, given["answers"])


CHAIN = {"num_steps": 5, "eagle_topk": 1, "num_draft_tokens": 6}
TREE = {"num_steps": 4, "eagle_topk": 4, "num_draft_tokens": 16}


@pytest.mark.parametrize(
    ("drafts", "backend"),
    [(CHAIN, "auto"), (CHAIN, "triton"), (TREE, "auto")],
    ids=["chain", "chain by Triton", "tree"],
)
def test_drafts_change_no_greedy_text(drafts: dict[str, int], backend: str, tmp_path: Path) -> None:
    """Each of two ranks drafts by the whole head and accepts the same; up to ties of float32."""
    folder = write_random_model(tmp_path, head_dim=128)
    (tmp_path / "head").mkdir()
    head = write_random_head(tmp_path / "head")
    reference = build_runner(folder, num_pages=400, num_threads=None)
    given = run_ranks(
        folder, "2", f'attention_backend="{backend}"', 'speculative_algorithm="EAGLE3"',
        f'speculative_draft_model_path="{head}"', "speculative_adaptive=false",
        *(f"speculative_{key}={number}" for key, number in drafts.items()),
    )  # fmt: skip
    assert given["num_verified"] > 0
    assert_greedy_texts(reference, given["answers"])


@pytest.mark.parametrize("drafts", [{}, CHAIN], ids=["", "chain"])
def test_deterministic_ranks_give_what_they_give_to_a_request_alone(drafts: dict[str, int], tmp_path: Path) -> None:
    """Tokens and logprobs to the bit: together, in chunks, behind cached beginnings, with drafts or none."""
    folder = write_random_model(tmp_path, head_dim=128)
    words = ["--logprobs", "deterministic=true"]
    alone = run_ranks(folder, "2", "--alone", *words)
    if drafts:
        (tmp_path / "head").mkdir()
        head = write_random_head(tmp_path / "head")
        words += ['speculative_algorithm="EAGLE3"', f'speculative_draft_model_path="{head}"']
        words += [f"speculative_{key}={number}" for key, number in drafts.items()]
    given = run_ranks(folder, "2", *words, "chunked_prefill_size=48")
    assert given["answers"] == alone["answers"]
    assert given["logprobs"] == alone["logprobs"]
    assert all(len(each) == NUM_TOKENS for each in given["logprobs"])


@pytest.mark.parametrize(
    ("weights", "cache"),
    [
        ("at load", "auto"),
        ("compressed-tensors, tensor, static", "auto"),
        ("fbgemm_fp8", "auto"),
        ("", "fp8_e4m3"),
    ],
)
def test_e4m3_of_two_ranks_serves_what_its_emulation_serves(weights: str, cache: str, tmp_path: Path) -> None:
    """Weights, a cache, or both. Each rank rounds its part of a row by a scale of its own, the emulation the whole row."""
    form = FORMATS.get(weights)
    tensors = plain_tensors() if form is None else quantized_tensors(form)
    folder = write_checkpoint(tmp_path, tensors, None if form is None else form.declared)
    quantization = "fp8" if weights == "at load" else "auto"
    emulation = build_runner(folder, num_pages=20, quantization=quantization, kv_cache_dtype=cache)
    given = run_ranks(
        folder, "2", "--next", 'attention_backend="triton"', f'quantization="{quantization}"',
        f'kv_cache_dtype="{cache}"', "max_running_requests=16", "cuda_graph_max_bs=16", "max_total_tokens=2048",
        "context_length=256",
    )  # fmt: skip
    for count, distributions in zip(COUNTS, given, strict=True):
        served = [{int(token): value for token, value in each.items()} for each in distributions]
        assert_alike(served, next_distributions(emulation, count))


def assert_greedy_texts(reference: TorchRunner, answers: list[tuple[int, list[int]]]) -> None:
    """Those of `shared_requests` up to ties of the reference, and on the whole the same."""
    expected = run_all(build_engine(reference, eos_token_ids=[2], context_length=2048), requests())
    agreed = 0
    for prompt, (request_id, tokens) in zip(prompts(), answers, strict=True):
        assert len(tokens) == NUM_TOKENS
        agreed += assert_equal_up_to_ties(reference, prompt, tokens, expected[request_id, 0].tokens, MAX_GAP)
    assert agreed > len(prompts())
